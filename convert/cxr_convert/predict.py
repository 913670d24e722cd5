"""Judge pictures with a Keras model and with a TFLite file: one row a picture, of small things only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_convert import gates
from cxr_edge import imaging, masks, preprocess
from cxr_edge.errors import ImageProblem, UsageError
from cxr_edge.manifest import Manifest
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine

BATCH = 32


def read_input(path: str, spec: InputSpec) -> NDArray[np.uint8]:
    """Read one picture as the box will: uint8[1, H, W, 1]. Raises UsageError where it cannot be read."""
    try:
        picture = imaging.decode(imaging.read_bytes(Path(path)), (spec.width, spec.height))
    except ImageProblem as problem:
        raise UsageError(f"{path}: {problem.sentence}", "make the table again with: cxr-train table") from problem
    return preprocess.to_input(picture.gray, spec)


def of_each_label(probabilities: NDArray[np.floating[Any]], task: str) -> NDArray[np.float64]:
    """The model's `probabilities` output as float64[labels]: a sigmoid's [p] becomes [1 - p, p]."""
    p = probabilities.astype(np.float64)
    return np.concatenate([1 - p, p]) if task == "sigmoid" else p


def by_keras(model: keras.Model, rows: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Predict every row with the float model, a batch at a time.

    Returns:
        For each row, `float` (float64[labels], uncalibrated, in [0, 1]) and `float_dice` (NaN where there is no truth
        mask or no mask output).
    """
    records: list[dict[str, Any]] = []
    for start in range(0, len(rows), BATCH):
        part = rows.iloc[start : start + BATCH]
        pixels = np.concatenate([read_input(path, manifest.input) for path in part["path"]])
        outputs = model.predict_on_batch(preprocess.scale(pixels))
        for index, mask_file in enumerate(part["mask"]):
            record: dict[str, Any] = {"float": of_each_label(outputs["probabilities"][index], manifest.task)}
            if mask_file and "mask" in outputs:
                lung = masks.quantise(outputs["mask"][index, :, :, 0])
                record["float_dice"] = masks.score(lung, mask_file, manifest.mask_threshold)
            records.append(record)
    return pd.DataFrame(records, index=rows.index, columns=["float", "float_dice"])


def by_file(engine: Engine, rows: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Predict every row with a TFLite file.

    Returns:
        For each row, `quantised` (the raw output, uint8[labels] or, of a sigmoid, uint8[1], in units of 1/256), `file`
        (the same as float64[labels], uncalibrated, in [0, 1]), and, NaN or None where the model has no such output or
        the row no truth mask: `file_dice`; `lung_pct`, share of the frame, percent; `embedding`, float32[d];
        `heat`, as `gates.heat` counts it.
    """
    records: list[dict[str, Any]] = []
    for path, mask_file in zip(rows["path"], rows["mask"], strict=True):
        outputs = engine.infer(read_input(path, manifest.input))
        raw = outputs["probabilities"]
        record: dict[str, Any] = {"quantised": raw, "file": of_each_label(raw / 256, manifest.task)}
        if "mask" in outputs:
            record["lung_pct"] = gates.lung_pct(outputs["mask"], manifest)
            if mask_file:
                record["file_dice"] = masks.score(outputs["mask"], mask_file, manifest.mask_threshold)
            if "activation" in outputs:
                record["heat"] = gates.heat(outputs["activation"], outputs["mask"], manifest)
        record["embedding"] = outputs.get("embedding")
        records.append(record)
    columns = ["quantised", "file", "file_dice", "lung_pct", "embedding", "heat"]
    return pd.DataFrame(records, index=rows.index, columns=columns)
