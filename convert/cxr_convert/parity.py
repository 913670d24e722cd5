"""What int8 changed, and how good the int8 file is: small named figures over held-out predictions. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, recall_score

from cxr_edge.judge import calibrate
from cxr_edge.model_file import Manifest


def quantised(rows: pd.DataFrame) -> NDArray[np.uint8]:
    """The int8 file's raw outputs, uint8[pictures, labels] or uint8[pictures, 1], in units of 1/256."""
    return np.stack(list(rows["quantised"]))


def calibrated(rows: pd.DataFrame, manifest: Manifest) -> NDArray[np.float64]:
    """What the box will tell of each row: float64[pictures, labels], calibrated."""
    return calibrate(quantised(rows), manifest.temperature, manifest.task)


def parity(rows: pd.DataFrame, manifest: Manifest) -> dict[str, Any]:
    """Compare float and int8 on the rows of one split: verdict flips, probabilities, accuracy, sensitivity, Dice."""
    wide, narrow = np.stack(list(rows["float"])), np.stack(list(rows["int8"]))
    flips = wide.argmax(axis=1) != narrow.argmax(axis=1)
    certain = calibrated(rows, manifest).max(axis=1) >= manifest.uncertain_below
    return {
        "pictures": len(rows),
        "flips_pct": _pct(flips),
        "flips_of_certain_pct": _pct(flips[certain]) if certain.any() else None,
        "mean_abs_probability_error": round(float(np.abs(wide - narrow).mean()), 4),
        "float": _scores(rows, wide, manifest.labels, "float_dice"),
        "int8": _scores(rows, narrow, manifest.labels, "int8_dice"),
    }


def figures(rows: pd.DataFrame, manifest: Manifest) -> list[dict[str, Any]]:
    """The int8 file's figures by split, whole (`origin` "all") and by origin."""
    records = []
    for split, part in rows.groupby("split"):
        for origin, some in [("all", part), *part.groupby("origin")]:
            probabilities = calibrated(some, manifest)
            certain = probabilities.max(axis=1) >= manifest.uncertain_below
            right = probabilities.argmax(axis=1) == truth(some, manifest.labels)
            records.append(
                {"split": split, "origin": origin, "pictures": len(some)}
                | _scores(some, probabilities, manifest.labels, "int8_dice")
                | {
                    "uncertain_pct": _pct(~certain),
                    "accuracy_when_certain": round(float(right[certain].mean()), 4) if certain.any() else None,
                }
            )
    return records


def truth(rows: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Index of each row's true label, int64[pictures]."""
    return np.array([labels.index(label) for label in rows["label"]])


def _scores(
    rows: pd.DataFrame, probabilities: NDArray[np.float64], labels: tuple[str, ...], dice: str
) -> dict[str, Any]:
    predicted = [labels[index] for index in probabilities.argmax(axis=1)]
    present = [label for label in labels if (rows["label"] == label).any()]
    recalls = recall_score(rows["label"], predicted, labels=present, average=None, zero_division=0.0)
    masked = rows[dice].dropna()
    return {
        "accuracy": round(float(accuracy_score(rows["label"], predicted)), 4),
        "sensitivity": {label: round(float(value), 4) for label, value in zip(present, recalls, strict=True)},
        "dice": round(float(masked.mean()), 4) if len(masked) else None,
        "masks": len(masked),
    }


def _pct(flags: NDArray[np.bool_]) -> float:
    return round(100 * float(flags.mean()), 2)
