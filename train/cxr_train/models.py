"""Any trained model, one face: pixels in, probabilities and lung mask out.

model.keras + model.json   what `cxr-train fit` made; says its own labels and input
.h5, .keras alone          somebody else's Keras model: labels and pixel range are told by options
.tflite                    what `cxr-convert` made; calibrated as the box calibrates it
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cxr_edge import judge, masks, model_file, preprocess
from cxr_edge.errors import UsageError
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime
from cxr_train import keras2

PIXELS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "-1..1": preprocess.scale,
    "0..1": lambda pixels: pixels.astype(np.float32) / np.float32(255),
    "0..255": lambda pixels: pixels.astype(np.float32),
}
"""Ranges that models are trained with, and how gray levels come there. `rescale=1/255` is '0..1'."""
SUM_TOLERANCE = 0.02
"""How far from 1 probabilities may add up: 16-bit floats and int8 are that coarse, logits and single sigmoids worse."""
Outputs = tuple[NDArray[np.float64], NDArray[np.uint8] | None]


@dataclass(frozen=True)
class Predictor:
    """A loaded model.

    `labels` are in the order of the outputs; `spec` is its input; `parameters` their number, None of a .tflite;
    `run` computes raw outputs; `stretched` says whether it was trained on stretched intensities (`preprocess.stretch`),
    as ours are and other people's are not.
    """

    labels: tuple[str, ...]
    spec: InputSpec
    parameters: int | None
    run: Callable[[NDArray[np.uint8]], Outputs]
    stretched: bool = True

    def prepare(self, gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One picture, uint8[H, W] -> what `predict` takes, uint8[1, height, width, 1]."""
        if self.stretched:
            return preprocess.to_input(gray, self.spec)
        return preprocess.resize(gray, self.spec.width, self.spec.height)[np.newaxis, :, :, np.newaxis]

    def predict(self, pixels: NDArray[np.uint8]) -> Outputs:
        """Judge pictures.

        Args:
            pixels: uint8[B, height, width, 1], from `prepare`.

        Returns:
            Probabilities, float64[B, labels], each row's sum 1; and the lung mask, uint8[B, h, w] in units of 1/256,
            or None if the model has none.

        Raises:
            UsageError: the model gives no probabilities.
        """
        p, lung = self.run(pixels)
        if p.shape[1] == 1:
            p = np.concatenate([1 - p, p], axis=1)
        sums = p.sum(axis=1, keepdims=True)
        # Written so that NaN is refused as well.
        if not (np.all(p >= -SUM_TOLERANCE) and np.all(np.abs(sums - 1) <= SUM_TOLERANCE)):
            raise UsageError(
                f"the model's outputs for one picture, {np.round(p[0], 3).tolist()}, are no probabilities of labels "
                "that exclude each other",
                "end the model with a softmax, or with one sigmoid for two labels",
            )
        p = np.clip(p, 0, None)
        return p / p.sum(axis=1, keepdims=True), lung


def load(model: Path, labels: tuple[str, ...] = (), pixels: str = "") -> Predictor:
    """Load a model file.

    Args:
        labels: of somebody else's model, in the order of its outputs; of one sigmoid: the negative, the positive.
        pixels: the range somebody else's model was trained with, a key of `PIXELS`.

    Raises:
        UsageError: it is no model, one of the two is missing or given in vain, or does not fit the outputs.
        ModelRefused: a .tflite does not describe itself, is damaged, or cannot be run.
    """
    description = model.with_suffix(".json")
    ours = model.suffix == ".tflite" or (model.suffix == ".keras" and description.exists())
    if model.suffix not in (".tflite", ".keras", ".h5", ".hdf5"):
        raise UsageError(f"{model}: is no .keras, .h5 or .tflite file", "give a model")
    if ours and (labels or pixels):
        raise UsageError(f"{model} says its own labels and pixel range", "leave --labels and --pixels out")
    if model.suffix == ".tflite":
        return _tflite(model)
    if ours:
        known, spec = read_description(description)
        return wrap(_keras(model), known, spec, str(model))
    if not labels or not pixels:
        raise UsageError(
            f"{model} has no model.json beside it, so its labels and the range of its pixels are unknown",
            f"put model.json back, or give --labels in the order of the outputs and --pixels {' or '.join(PIXELS)}",
        )
    return _foreign(model, labels, pixels)


def wrap(model: keras.Model, labels: tuple[str, ...], spec: InputSpec, name: str = "model") -> Predictor:
    """Make a predictor of a Keras model in memory that takes float32[B, H, W, 1] in [-1, 1], as `fit` makes them.

    Its outputs may be a tensor, a list or a dict: rank 2 are the probabilities ([B, labels], or [B, 1] of the second of
    two labels), rank 4 is the lung mask ([B, h, w, 1]).

    Raises:
        UsageError: its outputs are others, or do not fit the labels.
    """
    return Predictor(labels, spec, model.count_params(), _runner(model, preprocess.scale, labels, name))


def read_description(file: Path) -> tuple[tuple[str, ...], InputSpec]:
    """Labels and input from the `model.json` that `fit` wrote beside a model. Raises UsageError."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return tuple(content["labels"]), InputSpec(**content["input"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{file}: cannot be read ({error})", "keep model.json beside model.keras") from error


def _foreign(file: Path, labels: tuple[str, ...], pixels: str) -> Predictor:
    model = _keras(file)
    shape = tuple(model.inputs[0].shape) if len(getattr(model, "inputs", None) or ()) == 1 else None
    if not (shape and len(shape) == 4 and None not in shape[1:] and shape[3] in (1, 3)):
        remedy = "save the model with one input of a fixed size and 1 or 3 channels"
        raise UsageError(f"{file}: its input {shape or ''} is no picture of one size", remedy)

    def scale(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.repeat(PIXELS[pixels](gray), shape[3], axis=3)

    spec = InputSpec(height=shape[1], width=shape[2])
    return Predictor(labels, spec, model.count_params(), _runner(model, scale, labels, str(file)), stretched=False)


def _runner(
    model: keras.Model, scale: Callable[[NDArray[np.uint8]], NDArray[np.float32]], labels: tuple[str, ...], name: str
) -> Callable[[NDArray[np.uint8]], Outputs]:
    # A Sequential that was loaded has no `output`; a Functional tells only there which are named how.
    described = model.outputs if isinstance(model, keras.Sequential) else model.output
    shapes = [tuple(output.shape) for output in _judged(described)]
    vectors, maps = ([place for place, shape in enumerate(shapes) if len(shape) == rank] for rank in (2, 4))
    fits = len(vectors) == 1 and len(maps) <= 1 and len(vectors) + len(maps) == len(shapes)
    if not fits or any(shapes[place][3] != 1 for place in maps):
        sentence = f"{name}: outputs of the shapes {shapes} are not one row of probabilities and, at most, one mask"
        raise UsageError(sentence, "give a classifier, with a lung mask or without")
    width = shapes[vectors[0]][1]
    if not (width == len(labels) >= 2 or (width == 1 and len(labels) == 2)):
        sentence = f"{name}: {width} output{'s' * (width > 1)} for the labels {', '.join(labels)}"
        raise UsageError(sentence, "name a label for each output, or negative,positive for a single sigmoid")

    def run(pixels: NDArray[np.uint8]) -> Outputs:
        outputs = [np.asarray(output) for output in _judged(model.predict_on_batch(scale(pixels)))]
        lung = masks.quantise(outputs[maps[0]][..., 0]) if maps else None
        return outputs[vectors[0]].astype(np.float64), lung

    return run


def _judged(outputs: Any) -> list[Any]:
    """The outputs that are judged by; our own models name them, and have more for the box."""
    if isinstance(outputs, dict):
        ours = [outputs[name] for name in ("probabilities", "mask") if name in outputs]
        return ours if "probabilities" in outputs else list(outputs.values())
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _keras(file: Path) -> keras.Model:
    if file.suffix != ".keras":
        return keras2.load(file)
    try:
        return keras.models.load_model(file, compile=False)
    except Exception as error:  # Keras raises whatever a damaged or foreign file provokes
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{file}: Keras cannot load it ({reason})", "give a whole model of Keras 3") from error


def _tflite(file: Path) -> Predictor:
    model = model_file.read(file)
    engine = Engine(find_runtime(), model, threads=os.cpu_count() or 1)

    def run(pixels: NDArray[np.uint8]) -> Outputs:
        outputs = [engine.infer(pixels[index : index + 1]) for index in range(len(pixels))]
        raw = np.stack([output["probabilities"] for output in outputs])
        lung = np.stack([output["mask"] for output in outputs]) if "mask" in outputs[0] else None
        return judge.calibrate(raw, model.manifest.temperature, model.manifest.task), lung

    return Predictor(model.manifest.labels, model.manifest.input, None, run)
