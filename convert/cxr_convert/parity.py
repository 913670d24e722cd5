"""How much a file differs from the Keras model it was made from, in each runtime, and how much is too much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_convert import figures
from cxr_edge.manifest import Manifest

FLIPS_PCT = 2.0
FLIPS_OF_CERTAIN_PCT = 0.5
SENSITIVITY_LOSS = 0.01
PROBABILITY_ERROR = 0.02
DICE_LOSS = 0.005


def parity(rows: pd.DataFrame, manifest: Manifest) -> dict[str, Any]:
    """Compare the float model with a file on the rows of one split.

    Args:
        rows: with the columns of `predict.by_keras` and `predict.by_file`.
        manifest: whose temperature and operating points judge both.

    Returns:
        `flips_pct`, where the verdicts name different labels, and `flips_of_certain_pct`, the same among the pictures
        whose verdict by the file is not 'uncertain' (None without any); `mean_abs_probability_error` of the outputs
        as they are, before calibration; and accuracy, sensitivity, AUC and Dice of both, `float` and `file`.
    """
    wide, narrow = np.stack(list(rows["float"])), np.stack(list(rows["file"]))
    of_float, of_file = _calibrated_float(wide, manifest.temperature), figures.calibrated(rows, manifest)
    chosen_float, _ = figures.verdicts(of_float, manifest)
    chosen_file, certain = figures.verdicts(of_file, manifest)
    flips = chosen_float != chosen_file
    return {
        "pictures": len(rows),
        "flips_pct": figures.pct(flips),
        "flips_of_certain_pct": figures.pct(flips[certain]) if certain.any() else None,
        "mean_abs_probability_error": round(float(np.abs(wide - narrow).mean()), 4),
        "float": figures.scores(rows, of_float, chosen_float, rows["float_dice"], manifest.labels),
        "file": figures.scores(rows, of_file, chosen_file, rows["file_dice"], manifest.labels),
    }


def agreement(first: pd.DataFrame, second: pd.DataFrame, manifest: Manifest) -> dict[str, Any]:
    """Compare one file in two runtimes, on the same rows.

    Returns:
        `certain_that_differ`: of the pictures that either is certain of, how many they give different labels;
        `mean_abs_difference` of the outputs as they are.
    """
    (label_a, sure_a), (label_b, sure_b) = (
        figures.verdicts(figures.calibrated(rows, manifest), manifest) for rows in (first, second)
    )
    gap = np.abs(np.stack(list(first["file"])) - np.stack(list(second["file"])))
    return {
        "certain_that_differ": int(((label_a != label_b) & (sure_a | sure_b)).sum()),
        "mean_abs_difference": round(float(gap.mean()), 4),
    }


def over_budget(record: dict[str, Any]) -> list[str]:
    """What of a `parity` record is beyond the budget, a phrase for each figure; none where it is kept."""
    wide, narrow = record["float"], record["file"]
    certain = record["flips_of_certain_pct"]
    losses = [
        (f"sensitivity of {label} lower by", round(value - narrow["sensitivity"][label], 4), SENSITIVITY_LOSS)
        for label, value in wide["sensitivity"].items()
    ]
    if wide["dice"] is not None:
        losses.append(("lung Dice lower by", round(wide["dice"] - narrow["dice"], 4), DICE_LOSS))
    losses.append(("mean probability error", record["mean_abs_probability_error"], PROBABILITY_ERROR))
    shares = [("verdict flips", record["flips_pct"], FLIPS_PCT)]
    if certain is not None:
        shares.append(("verdict flips among certain pictures", certain, FLIPS_OF_CERTAIN_PCT))
    over = [f"{name} {value:g} % (at most {most:g} %)" for name, value, most in shares if value > most]
    return over + [f"{name} {value:g} (at most {most:g})" for name, value, most in losses if value > most]


def _calibrated_float(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """As `cxr_edge.judge.calibrate`, of probabilities that were never rounded: float64[pictures, labels]."""
    logits = np.log(np.maximum(probabilities, 0.5 / 256)) / temperature
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))
