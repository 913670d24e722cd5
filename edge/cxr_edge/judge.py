"""Model outputs -> verdict: calibration, the uncertain band, and the gates before them. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.imaging import Radiograph
from cxr_edge.model_file import Manifest
from cxr_edge.preprocess import percentile_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNCERTAIN = "uncertain"
BLANK_CONTRAST = 8
"""Gray levels between the 1st and 99th percentile below which a picture shows nothing. A radiograph has over 100."""


@dataclass(frozen=True)
class Judgement:
    """`verdict` is a label or 'uncertain'; `confidence` and `probabilities` are calibrated, in [0, 1]."""

    verdict: str
    confidence: float
    probabilities: tuple[float, ...]
    reason: Reason | None = None
    sentence: str = ""


def check_contrast(picture: Radiograph) -> None:
    """Refuse a picture that is one gray, whatever the gray.

    Raises:
        ImageProblem: rejected, `blank`.
    """
    step = max(1, min(picture.gray.shape) // 256)
    low, high = percentile_levels(picture.gray[::step, ::step], 1, 99)
    if high - low < BLANK_CONTRAST:
        sentence = "the picture is blank: almost all of it is one gray"
        raise ImageProblem(Status.REJECTED, Reason.BLANK, sentence, picture.width, picture.height)


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


def judge(quantised: NDArray[np.uint8], manifest: Manifest) -> Judgement:
    """Judge one picture by the model's `probabilities` output, uint8[labels] or uint8[1], in units of 1/256."""
    probabilities = calibrate(quantised, manifest.temperature, manifest.task)
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    values = tuple(float(p) for p in probabilities)
    if confidence < manifest.uncertain_below:
        likely, limit = manifest.labels[best], manifest.uncertain_below
        sentence = f"most likely {likely}, but {confidence:.1%} is below the {limit:.1%} that make a reliable verdict"
        return Judgement(UNCERTAIN, confidence, values, Reason.LOW_CONFIDENCE, sentence)
    return Judgement(manifest.labels[best], confidence, values)
