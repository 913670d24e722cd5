"""Temperature and the uncertain band, chosen on the validation split and on the int8 file's own outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from cxr_convert import operating
from cxr_edge.judge import calibrate

RELIABLE = 0.98
"""Accuracy that the verdicts which are not 'uncertain' must reach on the validation split."""


def temperature(quantised: NDArray[np.uint8], truth: NDArray[np.int64], task: str = "softmax") -> float:
    """Fit the temperature that minimises the negative log-likelihood.

    Args:
        quantised: uint8[pictures, labels], or uint8[pictures, 1] where the task is 'sigmoid', in units of 1/256.
        truth: int64[pictures], index of the true label.
        task: 'softmax' or 'sigmoid', as `cxr_edge.judge.calibrate` takes it.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    picked = np.arange(len(truth))

    def loss(log_t: float) -> float:
        return float(-np.log(calibrate(quantised, np.exp(log_t), task)[picked, truth]).mean())

    return round(float(np.exp(minimize_scalar(loss, bounds=(-2.0, 2.0), method="bounded").x)), 4)


def uncertain_below(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The lowest confidence from which on the verdicts are right in `RELIABLE` of cases, in [0, 1].

    Args:
        confidence: float64[pictures], calibrated probability of each verdict's label.
        right: bool[pictures], whether that label is the true one.

    Returns:
        A number that keeps them and none below: rounded down, to four decimals where those tell it from the next
        lower one. 1.0, which makes everything uncertain, where no confidence is enough.
    """
    # Int8 has few values, so many pictures share one: all of them are kept or none.
    lower = -1.0
    for threshold in np.unique(confidence):
        kept = right[confidence >= threshold]
        if kept.sum() >= RELIABLE * len(kept) - 1e-9:
            return operating.between(lower, float(threshold), float(threshold))
        lower = float(threshold)
    return 1.0


def expected_calibration_error(probabilities: NDArray[np.float64], truth: NDArray[np.int64], bins: int = 15) -> float:
    """ECE over equal-width bins of the top probability, in [0, 1]. Source: Guo et al., ICML 2017."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == truth
    numbers = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = (abs(float(right[own].sum() - confidence[own].sum())) for own in (numbers == n for n in range(bins)))
    return round(sum(gaps) / len(truth), 4)
