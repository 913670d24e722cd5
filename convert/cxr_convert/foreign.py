"""Somebody else's TFLite classifier: told from its tensors, judged on the user's pictures, and given a manifest."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_convert import card, describe, predict, runtimes, table, thresholds
from cxr_convert.convert import MASK_THRESHOLD, check_labels, negative_label, of_flatbuffer
from cxr_convert.options import PIXELS, Wishes
from cxr_edge import __version__
from cxr_edge.errors import ModelRefused, UsageError
from cxr_edge.manifest import Manifest
from cxr_edge.model_file import ModelFile
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Runtime, find_runtime

_LOOKED_AT = 16
_REMEDY = "give a classifier of one picture whose output is a softmax, or a sigmoid of two labels"


@dataclass(frozen=True)
class Found:
    """What the tensors say: the input's size and channels, and which output is what."""

    height: int
    width: int
    channels: int
    task: str
    outputs: dict[str, str]


def add_manifest(
    tflite_path: Path, table_path: Path, out: Path, labels: tuple[str, ...], pixels: str, wishes: Wishes
) -> ModelFile:
    """Describe a TFLite file.

    Args:
        tflite_path: a flatbuffer, with or without files appended; those are left out.
        table_path: pictures to judge it by: `validation` chooses temperature and thresholds, `test` and, where there
            is one, `external` are only reported.
        out: the file to write.
        labels: of its probabilities, in their order.
        pixels: what it takes for black and white, one of `options.PIXELS`.

    Raises:
        UsageError: the labels or the table cannot be used.
        ModelRefused: the file is no classifier of pictures whose outputs are probabilities of these labels.
        OutputUnwritable: `out` cannot be written.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels) or "" in labels or "uncertain" in labels:
        sentence = f"{','.join(labels)!r} are not two or more different labels, none of them 'uncertain'"
        raise UsageError(sentence, "give --labels in the order of the model's outputs, such as normal,pneumonia")
    rows = table.read(table_path, splits=("validation", "test"))
    rows = rows[rows["split"] != "train"]
    check_labels(rows, labels, table_path)
    content, source_digest = _flatbuffer(tflite_path)
    runtime = find_runtime()
    found = look(content, labels, runtime, tflite_path.name)
    black, white = PIXELS[pixels]
    draft = Manifest(
        name=out.stem,
        task=found.task,
        labels=labels,
        negative=negative_label(labels, wishes),
        # Percentiles that leave intensities as they are: nobody stretched them when it was trained.
        input=InputSpec(found.height, found.width, found.channels, "triangle", 0, 100, black, white),
        outputs=found.outputs,
        temperature=1.0,
        uncertain_below=0.0,
        operating_points={},
        mask_threshold=MASK_THRESHOLD,
        lung_area_pct=None,
        familiar=None,
        affected=None,
        tflite_sha256=hashlib.sha256(content).hexdigest(),
    )
    _check_probabilities(content, runtime, draft, rows, tflite_path.name)
    with runtimes.engines(content, draft) as (engines, tried):
        preferred = next(iter(engines.values()))
        predictions = rows.join(predict.by_file(preferred, rows, draft))
        golden = runtimes.golden(preferred, draft.input)
    manifest = thresholds.settle(draft, predictions, None)
    manifest.about.update(
        card.purpose(wishes)
        | of_flatbuffer(content, tried)
        | {
            "tool": f"cxr-edge {__version__}, from {tflite_path.name}",
            "source_sha256": source_digest,
            "table_sha256": table.digest(table_path),
        }
        | thresholds.told(manifest, draft, predictions)
    )
    return describe.write(describe.package(content, manifest, card.model_card(manifest), golden), out)


def look(content: bytes, labels: tuple[str, ...], runtime: Runtime, name: str) -> Found:
    """Tell a flatbuffer's tensors apart by their shapes.

    Raises:
        ModelRefused: it has another input than one picture, or other outputs than probabilities and, maybe, a mask.
    """
    interpreter = _interpreter(content, runtime, name)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shapes = [tuple(int(side) for side in detail["shape"]) for detail in inputs]
    signature = tuple(inputs[0].get("shape_signature", shapes[0])) if inputs else ()
    one_picture = len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][0] == 1 and shapes[0][3] in (1, 3)
    if not one_picture or any(side < 1 for side in signature[1:]):
        sentence = f"{name}: inputs of {_told(shapes)} are not one picture [1, height, width, 1 or 3]"
        raise ModelRefused(sentence, "export it with a batch of 1 and a fixed size of picture")
    meanings: dict[str, str] = {}
    scores = 0
    for detail in outputs:
        shape = tuple(int(side) for side in detail["shape"])
        is_scores = shape == (1, len(labels)) or (shape == (1, 1) and len(labels) == 2)
        is_mask = len(shape) == 4 and (shape[0], shape[3]) == (1, 1)
        meaning = "probabilities" if is_scores else "mask" if is_mask else ""
        if not meaning or meaning in meanings:
            break
        meanings[meaning] = detail["name"]
        scores = shape[1] if is_scores else scores
    if "probabilities" not in meanings or len(meanings) < len(outputs) or len(set(meanings.values())) < len(meanings):
        found = _told([tuple(detail["shape"]) for detail in outputs])
        sentence = f"{name}: outputs of {found} are not one [1, {len(labels)}] of probabilities, maybe with one mask"
        raise ModelRefused(sentence, f"{_REMEDY}, and as many --labels as it has")
    _, height, width, channels = shapes[0]
    return Found(height, width, channels, "sigmoid" if scores == 1 else "softmax", meanings)


def _flatbuffer(path: Path) -> tuple[bytes, str]:
    """The flatbuffer of a file without what is appended to it, and the digest of the whole file."""
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ModelRefused(f"{path} is not a TFLite model", "give a .tflite file")
    digest = hashlib.sha256(content).hexdigest()
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content = content[: min((entry.header_offset for entry in archive.infolist()), default=len(content))]
    return content, digest


def _interpreter(content: bytes, runtime: Runtime, name: str) -> Any:
    try:
        interpreter = runtime.interpreter(model_content=content)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelRefused(f"{runtime.name} {runtime.version} cannot run {name}: {reason}", _REMEDY) from error
    return interpreter


def _check_probabilities(content: bytes, runtime: Runtime, draft: Manifest, rows: pd.DataFrame, name: str) -> None:
    """Look at what comes out, before it is cut to 0 to 1: logits or independent scores are not what they seem."""
    interpreter = _interpreter(content, runtime, name)
    (source,) = interpreter.get_input_details()
    outputs = {detail["name"]: detail for detail in interpreter.get_output_details()}
    kinds = {detail["dtype"] for detail in (source, *outputs.values())} - {np.float32, np.int8, np.uint8}
    if kinds:
        listed = ", ".join(sorted(np.dtype(kind).name for kind in kinds))
        raise ModelRefused(f"{name}: tensors of {listed} are unknown", "export it with float32, int8 or uint8 tensors")
    for path in rows.loc[rows["split"] == "validation", "path"].iloc[:_LOOKED_AT]:
        gray = predict.read_input(path, draft.input).astype(np.float32) / 255
        levels = draft.input.black + gray * (draft.input.white - draft.input.black)
        values = np.repeat(levels, draft.input.channels, axis=3).astype(np.float32)
        interpreter.set_tensor(source["index"], _stored(values, source))
        interpreter.invoke()
        for meaning, tensor in draft.outputs.items():
            result = _real(interpreter.get_tensor(outputs[tensor]["index"]), outputs[tensor])
            low, high, total = float(result.min()), float(result.max()), float(result.sum())
            # Quantised to 1/256, each of the labels may be half a step off.
            adds_up = draft.task == "sigmoid" or abs(total - 1) < 0.01 + len(draft.labels) / 512
            if not np.isfinite(total) or low < -0.01 or high > 1.01:
                sentence = f"{name}: its {meaning} go from {low:.3g} to {high:.3g}, and are not within 0 to 1"
                raise ModelRefused(sentence, _REMEDY)
            if meaning == "probabilities" and not adds_up:
                raise ModelRefused(f"{name}: its probabilities sum to {total:.3g}, not to 1", _REMEDY)


def _stored(values: NDArray[np.float32], detail: dict[str, Any]) -> NDArray[Any]:
    if detail["dtype"] is np.float32:
        return values
    scale, zero_point = detail["quantization"]
    if not scale:
        raise ModelRefused("the input tensor is of integers without a scale", "export it with its quantisation")
    limits = np.iinfo(detail["dtype"])
    return np.asarray(np.clip(np.rint(values / scale + zero_point), limits.min, limits.max), dtype=detail["dtype"])


def _real(tensor: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    if tensor.dtype == np.float32:
        return tensor
    scale, zero_point = detail["quantization"]
    return (tensor.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def _told(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(str([int(side) for side in shape]) for shape in shapes) or "nothing"
