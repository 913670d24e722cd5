"""Model outputs -> verdict: calibration, operating point, the uncertain band, affected area. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cxr_edge.errors import Reason
from cxr_edge.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Judgement:
    """`verdict` is a label or 'uncertain'; `confidence` and `probabilities` are calibrated, in [0, 1]."""

    verdict: str
    confidence: float
    probabilities: tuple[float, ...]
    reason: Reason | None = None
    sentence: str = ""


def calibrate(quantised: NDArray[np.uint8], temperature: float, task: str = "softmax") -> NDArray[np.float64]:
    """Temperature scaling of the `probabilities` output: calibrated probability of each label.

    Args:
        quantised: in units of 1/256. Task 'softmax': uint8[..., labels]. Task 'sigmoid': uint8[..., 1], of the second
            of two labels.
        temperature: positive; 1 changes nothing but the rounding to units.
        task: 'softmax' or 'sigmoid'.

    Returns:
        float64[..., labels] that sum to 1; two labels where the task is 'sigmoid'.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; here p^(1/T), normalised, which is the
    same as dividing the logits. An output of 0 counts as half a quantum, for its logarithm. A sigmoid of z is the
    softmax over the logits [0, z]; 255, where uint8 ends, counts as 1 less half a quantum.
    """
    units = quantised.astype(np.float64)
    if task == "sigmoid":
        units = np.concatenate([np.where(units < 255, 256 - units, 0.5), units], axis=-1)
    logits = np.log(np.maximum(units, 0.5))
    # Relative to the largest, so that no temperature overflows.
    p = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(p / p.sum(axis=-1, keepdims=True))


def finding(probabilities: NDArray[np.floating[Any]], labels: tuple[str, ...], negative: str) -> NDArray[np.float64]:
    """Probability that something was found, of whatever label: float[..., labels] -> float64[...], in [0, 1]."""
    return np.asarray(1.0 - probabilities[..., labels.index(negative)], dtype=np.float64)


def choose(probabilities: NDArray[np.float64], manifest: Manifest, point: str) -> NDArray[np.int64]:
    """Index of the verdict's label at an operating point, float64[..., labels] -> int64[...].

    A finding, the most probable one, where findings together have at least the point's probability; else the negative
    label. With more labels than two, the point moves only the border between the negative label and the others.
    """
    negative = manifest.labels.index(manifest.negative)
    others = probabilities.copy()
    others[..., negative] = -1.0
    found = finding(probabilities, manifest.labels, manifest.negative) >= manifest.operating_points[point]
    return np.where(found, others.argmax(axis=-1), negative)


def judge(quantised: NDArray[np.uint8], manifest: Manifest, point: str) -> Judgement:
    """Judge one picture by the model's `probabilities` output.

    Args:
        quantised: uint8[labels] or uint8[1], in units of 1/256.
        point: one of `manifest.OPERATING_POINTS`.
    """
    probabilities = calibrate(quantised, manifest.temperature, manifest.task)
    label = int(choose(probabilities, manifest, point))
    name, p, limit = manifest.labels[label], float(probabilities[label]), manifest.uncertain_below
    confidence, values = float(probabilities.max()), tuple(float(p) for p in probabilities)
    if p < limit:
        best = manifest.labels[int(probabilities.argmax())]
        sentence = f"most likely {best}, but {confidence:.1%} is below the {limit:.1%} that make a reliable verdict"
        if best != name:
            sentence = f"most likely {best}, but not surely enough to rule out {name} at the operating point {point}"
        return Judgement(UNCERTAIN, confidence, values, Reason.LOW_CONFIDENCE, sentence)
    return Judgement(name, confidence, values)


def affected_pct(activation: NDArray[np.uint8], mask: NDArray[np.uint8], manifest: Manifest) -> float | None:
    """Share of the lung that is affected, percent (0 to 100), or None where there is no lung.

    Args:
        activation: uint8[h, w, labels], or uint8[h, w, 1] of a sigmoid, in units of 1/256.
        mask: uint8[H, W], probability of lung in units of 1/256.
        manifest: of a model with `affected`, whose `definition` says what counts.
    """
    lung, affected = affected_lung(activation, mask, manifest)
    return 100 * float(affected.sum() / lung.sum()) if lung.any() else None


def affected_lung(
    activation: NDArray[np.uint8], mask: NDArray[np.uint8], manifest: Manifest
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The lung, and what of it is affected, each bool[H, W] on the mask's grid; arguments as `affected_pct`'s."""
    if manifest.affected is None:
        raise ValueError("the model has no activation output")
    lung = mask >= manifest.mask_threshold * 256
    return lung, lung & (heat(activation, mask, manifest) >= manifest.affected.threshold)


def heat(activation: NDArray[np.uint8], mask: NDArray[np.uint8], manifest: Manifest) -> NDArray[np.float32]:
    """Probability of any finding by what lies in each cell, brought to the mask's grid, float32[H, W] in [0, 1].

    Arguments as `affected_pct`'s, of the mask its size only.
    """
    scores = activation.astype(np.float32) / np.float32(256)
    if manifest.task == "sigmoid":
        cells = scores[..., 0] if manifest.labels[0] == manifest.negative else 1 - scores[..., 0]
    else:
        cells = 1 - scores[..., manifest.labels.index(manifest.negative)]
    wide = Image.fromarray(cells).resize((mask.shape[1], mask.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(wide)
