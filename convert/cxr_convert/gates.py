"""The gates' limits and the affected area's threshold, from the file's own outputs on training and validation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_edge import gates as edge_gates
from cxr_edge import judge
from cxr_edge.errors import ModelRefused
from cxr_edge.manifest import Affected, Familiar, Manifest

LEVELS = 1000
"""Steps in which the affected area's threshold is chosen: three decimals, which the definition tells in full."""
COMPONENTS = 32
FAMILIAR_PICTURES = 2000
_EXTREME = 0.005
_MARGIN = 1.1
_UNAFFECTED = 0.95
_DIGITS = 6
_REMEDY = "look at its curves and train it again: cxr-train fit"


def lung_pct(mask: NDArray[np.uint8], manifest: Manifest) -> float:
    """Share of the frame that is lung, percent: uint8[h, w] in units of 1/256, on the mask's own grid."""
    return 100 * float((mask >= manifest.mask_threshold * 256).mean())


def heat(activation: NDArray[np.uint8], mask: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.int32]:
    """How often each probability of a finding occurs in the lung, as `judge.affected_lung` computes it.

    Args:
        activation: uint8[h, w, labels], or uint8[h, w, 1] of a sigmoid, in units of 1/256.
        mask: uint8[H, W], probability of lung in units of 1/256.

    Returns:
        int32[LEVELS + 1]: mask pixels by probability, rounded down to steps of 1/LEVELS.
    """
    inside = judge.heat(activation, mask, manifest)[mask >= manifest.mask_threshold * 256]
    return np.bincount((inside.clip(0, 1) * LEVELS).astype(int), minlength=LEVELS + 1).astype(np.int32)


def lung_area(validation: pd.DataFrame) -> tuple[float, float] | None:
    """Least and greatest share of the frame that lungs may cover, percent, from `lung_pct` of validation pictures.

    Half of their 0.5 % quantile and 1.25 times their 99.5 % quantile, at most 100. None where the mask finds no lungs
    at all, as after an epoch or two: limits around nothing would be none.
    """
    low, high = np.quantile(validation["lung_pct"].to_numpy(dtype=float), [_EXTREME, 1 - _EXTREME])
    return (round(low / 2, 2), round(min(100.0, 1.25 * high), 2)) if high >= 0.01 else None


def familiar(training: NDArray[np.float32], validation: NDArray[np.float32]) -> Familiar:
    """What training pictures look like: mean and whitening of their embeddings, and how far away is too far.

    Args:
        training: float32[pictures, d].
        validation: float32[pictures, d]; the limit is 1.1 times the 99.5 % quantile of their distances.

    Returns:
        Whitening by at most `COMPONENTS` principal components, each divided by its standard deviation, so that the
        distance is Mahalanobis's within them; rounded to six digits, which keeps the manifest small.

    Raises:
        ModelRefused: the embedding is the same for all pictures.

    Source: Lee et al., NeurIPS 2018, see `cxr_edge.manifest.Familiar`.
    """
    values = training.astype(np.float64)
    mean = values.mean(axis=0)
    _, singular, directions = np.linalg.svd(values - mean, full_matrices=False)
    deviations = singular / np.sqrt(max(1, len(values) - 1))
    # What does not vary among training pictures, but for rounding, has no scale to measure a distance by.
    kept = int((deviations[:COMPONENTS] > 1e-4 * deviations[0]).sum()) if deviations[0] > 0 else 0
    if not kept:
        raise ModelRefused("the model's embedding is the same for all training pictures", _REMEDY)
    whitening = (directions[:kept] / deviations[:kept, np.newaxis]).T
    rounded = Familiar(
        tuple(_short(value) for value in mean), tuple(tuple(_short(value) for value in row) for row in whitening), 1.0
    )
    away = [edge_gates.distance(embedding, rounded) for embedding in validation]
    limit = _short(_MARGIN * float(np.quantile(away, 1 - _EXTREME)))
    return Familiar(rounded.mean, rounded.whitening, limit)


def affected(validation: pd.DataFrame, manifest: Manifest) -> Affected:
    """The probability of a finding that 95 % of the lung stays below, in validation pictures labelled negative.

    Args:
        validation: with `label` and `heat`.

    Returns:
        A threshold of 1 where the mask finds no lungs in them.
    """
    counts = np.sum(list(validation.loc[validation["label"] == manifest.negative, "heat"]), axis=0)
    if not counts.sum():
        sentence = (
            f"Nothing counts as affected: no lungs were found in validation pictures labelled {manifest.negative}."
        )
        return Affected(1.0, sentence)
    below = np.cumsum(counts) / counts.sum()
    # From the next step on, at most 5 % are left; where they all are at 1, there is none.
    threshold = min(LEVELS, int(np.searchsorted(below, _UNAFFECTED)) + 1) / LEVELS
    definition = (
        f"Lung counts as affected where the model's evidence in that cell speaks for {_findings(manifest)} with a "
        f"probability of at least {threshold:g}, the {_UNAFFECTED:.0%} quantile over the lungs of validation pictures "
        f"labelled {manifest.negative}. A hint where to look, no measurement."
    )
    return Affected(threshold, definition)


def _findings(manifest: Manifest) -> str:
    return " or ".join(label for label in manifest.labels if label != manifest.negative)


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
