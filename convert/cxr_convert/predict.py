"""Judge held-out pictures with the float model and with the int8 file, side by side, one row a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_edge import imaging, masks, preprocess
from cxr_edge.errors import ImageProblem, UsageError
from cxr_edge.model_file import Manifest
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


def of_each_label(probabilities: NDArray[np.float64], task: str) -> NDArray[np.float64]:
    """The model's `probabilities` output as float64[labels]: a sigmoid's [p] becomes [1 - p, p]."""
    return np.concatenate([1 - probabilities, probabilities]) if task == "sigmoid" else probabilities


def side_by_side(model: keras.Model, engine: Engine, rows: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Predict every row with both.

    Returns:
        `rows` with `quantised` (the int8 file's raw output, uint8[labels] or, of a sigmoid, uint8[1]), `float` and
        `int8` (each float64[labels], uncalibrated, in [0, 1]), and `float_dice` and `int8_dice` (NaN where there is
        no truth mask or no mask output).
    """
    records: list[dict[str, Any]] = []
    for start in range(0, len(rows), BATCH):
        part = rows.iloc[start : start + BATCH]
        pixels = [read_input(path, manifest.input) for path in part["path"]]
        outputs = model.predict_on_batch(preprocess.scale(np.concatenate(pixels)))
        for index, mask_file in enumerate(part["mask"]):
            result = engine.infer(pixels[index])
            wide, narrow = outputs["probabilities"][index].astype(np.float64), result["probabilities"] / 256
            record: dict[str, Any] = {"quantised": result["probabilities"]}
            record |= {"float": of_each_label(wide, manifest.task), "int8": of_each_label(narrow, manifest.task)}
            if mask_file and "mask" in result:
                lung = masks.quantise(outputs["mask"][index, :, :, 0])
                record["float_dice"] = masks.score(lung, mask_file, manifest.mask_threshold)
                record["int8_dice"] = masks.score(result["mask"], mask_file, manifest.mask_threshold)
            records.append(record)
    columns = ["quantised", "float", "int8", "float_dice", "int8_dice"]
    return rows.join(pd.DataFrame(records, index=rows.index, columns=columns))
