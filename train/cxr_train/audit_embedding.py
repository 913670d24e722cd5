"""The embedding of a model: the numbers that its last layer with weights turns into labels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from cxr_edge import model_file
from cxr_edge.runtime import Engine, find_runtime
from cxr_train import keras2, models

LABELS_ARE_READ_FROM = "what the last layer with weights turns into labels"
OF_THE_FILE = "the output `embedding` of the file, which need not be what its labels are read from"


@dataclass(frozen=True)
class Embedding:
    """`embed`: uint8[B, H, W, 1], from `Predictor.prepare` -> float32[B, d]; `meaning`: what that is, for people."""

    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    meaning: str


def load(file: Path, pixels: str = "") -> Embedding | None:
    """Load what embeds pictures, of a model file that `models.load` accepts; None where it cannot be found.

    Of a Keras model: the input of the last layer with weights before the probabilities, averaged over its positions if
    it is a map. Of a .tflite: its output `embedding`, if its manifest names one.

    Args:
        file: of the model.
        pixels: the range somebody else's model was trained with, as in `models.load`.
    """
    if file.suffix == ".tflite":
        return _tflite(file)
    model = keras.models.load_model(file, compile=False) if file.suffix == ".keras" else keras2.load(file)
    features = find(model)
    if features is None:
        return None
    scale = models.PIXELS[pixels or "-1..1"]
    channels = model.inputs[0].shape[-1]

    def embed(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = np.asarray(features.predict_on_batch(np.repeat(scale(gray), channels, axis=3)), np.float32)
        return np.asarray(values.mean(axis=tuple(range(1, values.ndim - 1))))

    return Embedding(embed, LABELS_ARE_READ_FROM)


def find(model: keras.Model) -> keras.Model | None:
    """A model of the same input that ends where the last layer with weights before the probabilities begins.

    Returns:
        A Keras model with one output of rank 2 ([B, d]) or 4 ([B, h, w, d]); None if several tensors are joined without
        weights before the probabilities, or nothing lies before the last weights.
    """
    # A Sequential that was loaded has no `output`; a Functional tells only there which are named how.
    described = None if isinstance(model, keras.Sequential) else model.output
    if isinstance(described, dict) and "probabilities" in described:
        return _before(model, described["probabilities"])
    return _before(model, next(output for output in model.outputs if len(output.shape) == 2))


def _before(model: keras.Model, tensor: Any) -> keras.Model | None:
    while not any(tensor is one for one in model.inputs):
        # Keras has no public name for what made a tensor; `layer.input` is another one where a layer is used twice.
        operation, node, index = tensor._keras_history
        inputs = operation._inbound_nodes[node].input_tensors
        if len(inputs) != 1:
            return None
        (tensor,) = inputs
        if isinstance(operation, keras.Model):
            inner = _before(operation, operation.outputs[index])
            return None if inner is None else keras.Model(model.inputs, inner(tensor))
        if operation.weights:
            return None if any(tensor is one for one in model.inputs) else keras.Model(model.inputs, tensor)
    return None


def _tflite(file: Path) -> Embedding | None:
    model = model_file.read(file)
    if "embedding" not in model.manifest.outputs:
        return None
    engine = Engine(find_runtime(), model, threads=os.cpu_count() or 1)

    def embed(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: list[NDArray[Any]] = [engine.infer(gray[index : index + 1])["embedding"] for index in range(len(gray))]
        return np.stack(found).astype(np.float32)

    return Embedding(embed, OF_THE_FILE)
