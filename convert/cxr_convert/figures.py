"""What the file says of held-out pictures, and how good that is: by split and origin. Pure functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import recall_score, roc_auc_score

from cxr_edge import judge
from cxr_edge.manifest import DEFAULT_POINT, Manifest

Verdicts = tuple[NDArray[np.int64], NDArray[np.bool_]]


def quantised(rows: pd.DataFrame) -> NDArray[np.uint8]:
    """The file's raw outputs, uint8[pictures, labels] or uint8[pictures, 1], in units of 1/256."""
    return np.stack(list(rows["quantised"]))


def calibrated(rows: pd.DataFrame, manifest: Manifest) -> NDArray[np.float64]:
    """What the box will tell of each row: float64[pictures, labels], calibrated."""
    return judge.calibrate(quantised(rows), manifest.temperature, manifest.task)


def truth(rows: pd.DataFrame, labels: tuple[str, ...]) -> NDArray[np.int64]:
    """Index of each row's true label, int64[pictures]."""
    return np.array([labels.index(label) for label in rows["label"]], dtype=np.int64)


def verdicts(probabilities: NDArray[np.float64], manifest: Manifest, point: str = DEFAULT_POINT) -> Verdicts:
    """Each verdict's label as its index, int64[pictures], and whether it is certain, bool[pictures].

    Args:
        probabilities: float64[pictures, labels], calibrated.
    """
    chosen = judge.choose(probabilities, manifest, point)
    confidence = np.take_along_axis(probabilities, chosen[:, np.newaxis], axis=1)[:, 0]
    return chosen, confidence >= manifest.uncertain_below


def by_origin(rows: pd.DataFrame, manifest: Manifest) -> list[dict[str, Any]]:
    """The file's figures by split, whole (`origin` "all") and by origin, at the default operating point."""
    records = []
    for split, part in rows.groupby("split"):
        for origin, some in [("all", part), *part.groupby("origin")]:
            probabilities = calibrated(some, manifest)
            chosen, certain = verdicts(probabilities, manifest)
            right = chosen == truth(some, manifest.labels)
            records.append(
                {"split": split, "origin": origin, "pictures": len(some)}
                | scores(some, probabilities, chosen, some["file_dice"], manifest.labels)
                | {
                    "uncertain_pct": pct(~certain),
                    "accuracy_when_certain": round(float(right[certain].mean()), 4) if certain.any() else None,
                }
            )
    return records


def scores(
    rows: pd.DataFrame,
    probabilities: NDArray[np.float64],
    chosen: NDArray[np.int64],
    dice: pd.Series,
    labels: tuple[str, ...],
) -> dict[str, Any]:
    """Accuracy, sensitivity and AUC (each label against the others), and Dice of the masks, each in [0, 1] or None.

    Args:
        rows: with `label`.
        probabilities: float64[pictures, labels].
        chosen: int64[pictures], each verdict's label.
        dice: of each row, NaN where there is no mask.
    """
    true = truth(rows, labels)
    present = [index for index in range(len(labels)) if (true == index).any()]
    recalls = recall_score(true, chosen, labels=present, average=None, zero_division=0.0)
    ranked = [index for index in present if (true != index).any()]
    masked = dice.dropna()
    return {
        "accuracy": round(float((chosen == true).mean()), 4),
        "sensitivity": {labels[i]: round(float(value), 4) for i, value in zip(present, recalls, strict=True)},
        "auc": {labels[i]: round(float(roc_auc_score(true == i, probabilities[:, i])), 4) for i in ranked},
        "dice": round(float(masked.mean()), 4) if len(masked) else None,
        "masks": len(masked),
    }


def pct(flags: NDArray[np.bool_]) -> float:
    """Share of True, percent, two decimals."""
    return round(100 * float(flags.mean()), 2)
