"""Operating points: from which probability of a finding on a verdict is one, chosen on the validation split."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

LEAST = 0.95
"""Sensitivity of `screening` and specificity of `rule-in`, at least, on the validation split."""


def choose(finding: NDArray[np.float64], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Choose a threshold for each operating point.

    Args:
        finding: float64[pictures], calibrated probability of a finding, [0, 1].
        truth: bool[pictures], whether it is one; some are and some are not.

    Returns:
        `balanced`: the threshold with the greatest mean of sensitivity and specificity, of ties the one nearest 0.5;
        `screening`: the highest up to it whose sensitivity is at least `LEAST`; `rule-in`: the lowest from it on whose
        specificity is. Each lies between two neighbouring probabilities that occur, so that the last bit of a
        computation decides nothing.

    Source: Youden, W. J., "Index for rating diagnostic tests", Cancer 3(1), 1950: J is twice that mean less 1.
    """
    cuts = _cuts(finding)
    sensitivity = _share_at_least(finding[truth], cuts)
    specificity = 1 - _share_at_least(finding[~truth], cuts)
    # In whole pictures, since 19 of 20 is not quite 0.95 in floating point.
    enough_found = sensitivity * truth.sum() >= LEAST * truth.sum() - 1e-6
    enough_spared = specificity * (~truth).sum() >= LEAST * (~truth).sum() - 1e-6
    mean = (sensitivity + specificity) / 2
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    balanced = float(cuts[best[np.abs(cuts[best] - 0.5).argmin()]])
    # None is enough only where a negative has the probability 1 to the last bit.
    spares = float(cuts[enough_spared][0]) if enough_spared.any() else 1.0
    # Of a model that is good enough for both at once, either point would lie on the wrong side.
    return {
        "screening": min(float(cuts[enough_found][-1]), balanced),
        "balanced": balanced,
        "rule-in": max(spares, balanced),
    }


def figures(finding: NDArray[np.float64], truth: NDArray[np.bool_], threshold: float) -> dict[str, float | None]:
    """Sensitivity and specificity for findings, [0, 1], at a threshold; None where there is nothing to count."""
    found = finding >= threshold
    return {
        "sensitivity": round(float(found[truth].mean()), 4) if truth.any() else None,
        "specificity": round(float((~found[~truth]).mean()), 4) if (~truth).any() else None,
    }


def between(low: float, high: float, wanted: float) -> float:
    """The number nearest `wanted`, of as few decimals as do (4 at least), that is above `low` and at most `high`."""
    for decimals in range(4, 17):
        for value in (round(wanted, decimals), np.floor(high * 10.0**decimals) / 10.0**decimals):
            if low < value <= high:
                return float(value)
    return high


def _cuts(finding: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every threshold that makes a difference, ascending: 0, between neighbouring values, and above them all."""
    values = np.unique(finding)
    cuts = [between(low, high, (low + high) / 2) for low, high in itertools.pairwise(values)]
    if values[-1] < 1:
        cuts.append(between(values[-1], 1.0, (values[-1] + 1) / 2))
    return np.array([0.0, *cuts])


def _share_at_least(values: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of the values that are at least each cut, float64[cuts]."""
    return 1 - np.searchsorted(np.sort(values), cuts) / len(values)
