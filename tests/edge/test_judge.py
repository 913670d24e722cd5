"""Outputs become verdicts: calibration is a distribution that keeps its order, and doubt is said, not hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.imaging import Radiograph
from cxr_edge.judge import BLANK_CONTRAST, UNCERTAIN, calibrate, check_contrast, judge
from cxr_edge.model_file import Manifest
from cxr_edge.phantom import draw
from cxr_edge.preprocess import InputSpec

LABELS = ("normal", "pneumonia", "covid19")
OUTPUTS = arrays.arrays(np.uint8, st.integers(2, 6)).filter(lambda quantised: bool(quantised.any()))


def manifest(**fields: Any) -> Manifest:
    about: dict[str, Any] = {"task": "softmax", "labels": LABELS, "temperature": 1.0, "uncertain_below": 0.6, **fields}
    outputs = {"probabilities": "a"}
    return Manifest(name="m", input=InputSpec(), outputs=outputs, mask_threshold=0.5, tflite_sha256="", **about)


@given(OUTPUTS, st.floats(0.05, 20))
def test_calibrated_probabilities_sum_to_1_and_keep_their_order(
    quantised: NDArray[np.uint8], temperature: float
) -> None:
    p = calibrate(quantised, temperature)
    assert p.sum() == pytest.approx(1)
    assert ((p >= 0) & (p <= 1)).all()
    assert (np.diff(p[np.argsort(quantised)]) >= 0).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(any))
def test_temperature_1_changes_nothing_but_half_a_quantum(weights: list[float]) -> None:
    """Outputs that sum to 1 come back but for rounding, and for the zeros that count as half a quantum."""
    p = np.array(weights) / sum(weights)
    quantised = np.minimum(np.rint(p * 256), 255).astype(np.uint8)
    # Each of n outputs is off by up to half a quantum (the largest by one), and so is the sum that divides them.
    assert np.abs(calibrate(quantised, 1.0) - p).max() <= (1 + len(p) / 2) / 256


@given(OUTPUTS, st.floats(1, 10), st.floats(1.01, 3))
def test_a_higher_temperature_flattens(quantised: NDArray[np.uint8], temperature: float, factor: float) -> None:
    sharp, flat = calibrate(quantised, temperature), calibrate(quantised, temperature * factor)
    assert flat.max() <= sharp.max() + 1e-12
    assert flat.min() >= sharp.min() - 1e-12
    assert int(flat.argmax()) == int(sharp.argmax())


@pytest.mark.parametrize("temperature", [1e-3, 1e300])
def test_extreme_temperatures_that_a_manifest_may_hold_give_no_nan(temperature: float) -> None:
    assert calibrate(np.array([250, 3, 3], np.uint8), temperature).sum() == pytest.approx(1)


def test_many_pictures_are_calibrated_at_once() -> None:
    quantised = np.array([[200, 50, 6], [0, 128, 128]], np.uint8)
    assert np.array_equal(calibrate(quantised, 2.0), np.stack([calibrate(row, 2.0) for row in quantised]))


def test_a_clear_output_gets_its_label() -> None:
    judgement = judge(np.array([10, 230, 16], np.uint8), manifest())
    assert judgement.verdict == "pneumonia"
    assert judgement.confidence == max(judgement.probabilities) == pytest.approx(230 / 256)
    assert (judgement.reason, judgement.sentence) == (None, "")


def test_an_unclear_output_is_uncertain_and_says_why() -> None:
    judgement = judge(np.array([100, 28, 128], np.uint8), manifest())
    assert (judgement.verdict, judgement.reason) == (UNCERTAIN, Reason.LOW_CONFIDENCE)
    assert judgement.confidence == pytest.approx(0.5)
    assert "covid19" in judgement.sentence
    assert "50" in judgement.sentence
    assert "60" in judgement.sentence


@given(arrays.arrays(np.uint8, 3).filter(lambda q: bool(q.any())), st.floats(0, 1), st.floats(0.2, 5))
def test_the_uncertain_band_ends_exactly_at_its_threshold(
    quantised: NDArray[np.uint8], uncertain_below: float, temperature: float
) -> None:
    judgement = judge(quantised, manifest(uncertain_below=uncertain_below, temperature=temperature))
    assert (judgement.verdict == UNCERTAIN) == (judgement.confidence < uncertain_below)
    assert (judgement.reason is Reason.LOW_CONFIDENCE) == (judgement.verdict == UNCERTAIN)
    if judgement.verdict != UNCERTAIN:
        assert judgement.verdict == LABELS[int(np.argmax(quantised))]


def test_a_confidence_at_the_threshold_is_enough() -> None:
    quantised = np.array([64, 128, 64], np.uint8)
    assert judge(quantised, manifest(uncertain_below=0.5)).verdict == "pneumonia"
    assert judge(quantised, manifest(uncertain_below=0.5001)).verdict == UNCERTAIN


def test_confidence_is_judged_after_calibration() -> None:
    quantised = np.array([200, 28, 28], np.uint8)
    assert judge(quantised, manifest(temperature=1.0)).verdict == "normal"
    assert judge(quantised, manifest(temperature=4.0)).verdict == UNCERTAIN


UNITS = np.arange(256, dtype=np.uint8)[:, np.newaxis]
"""Every output that a sigmoid can have."""


@given(st.floats(0.05, 20))
def test_a_calibrated_sigmoid_is_a_distribution_that_grows_with_its_output(temperature: float) -> None:
    p = calibrate(UNITS, temperature, "sigmoid")
    assert p.shape == (256, 2)
    assert np.isfinite(p).all()
    assert ((p >= 0) & (p <= 1)).all()
    assert p.sum(axis=1) == pytest.approx(1)
    assert (np.diff(p[:, 1]) >= 0).all()
    assert (np.diff(p[:, 1])[40:-40] > 0).all()
    assert p[128] == pytest.approx([0.5, 0.5])


@given(st.floats(0, 1))
def test_a_sigmoid_at_temperature_1_changes_nothing_but_a_quantum(p: float) -> None:
    quantised = np.array([min(round(p * 256), 255)], np.uint8)
    assert np.abs(calibrate(quantised, 1.0, "sigmoid") - [1 - p, p]).max() <= 1 / 256


@given(st.integers(1, 254), st.floats(0.1, 10))
def test_a_sigmoid_is_scaled_in_its_logit(quantised: int, temperature: float) -> None:
    logit = np.log(quantised / (256 - quantised))
    p = calibrate(np.array([quantised], np.uint8), temperature, "sigmoid")
    assert p[1] == pytest.approx(1 / (1 + np.exp(-logit / temperature)))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_both_ends_of_a_sigmoid_are_equally_sure(temperature: float) -> None:
    negative, positive = calibrate(UNITS[[0, 255]], temperature, "sigmoid")
    assert negative[0] == pytest.approx(positive[1], abs=1e-3)
    assert 0 < negative[1] < 0.2
    assert 0 < positive[0] < 0.2


@given(st.integers(0, 255), st.floats(0.2, 5))
def test_a_sigmoid_over_half_gives_the_second_label(quantised: int, temperature: float) -> None:
    model = manifest(task="sigmoid", labels=LABELS[:2], temperature=temperature, uncertain_below=0.0)
    judgement = judge(np.array([quantised], np.uint8), model)
    assert judgement.verdict == LABELS[int(quantised > 128)]
    assert judgement.confidence == max(judgement.probabilities) >= 0.5


def test_an_unclear_sigmoid_is_uncertain_on_both_sides_of_half() -> None:
    model = manifest(task="sigmoid", labels=LABELS[:2], uncertain_below=0.9)
    verdicts = [judge(np.array([units], np.uint8), model).verdict for units in (10, 60, 128, 196, 250)]
    assert verdicts == ["normal", UNCERTAIN, UNCERTAIN, UNCERTAIN, "pneumonia"]


def radiograph(gray: NDArray[np.uint8]) -> Radiograph:
    return Radiograph(gray, 2 * gray.shape[1], 2 * gray.shape[0])


@pytest.mark.parametrize("level", [0, 100, 255])
def test_one_gray_is_blank_whatever_the_gray(level: int) -> None:
    noise = np.random.default_rng(0).integers(0, BLANK_CONTRAST // 2, (300, 200))
    blank = np.clip(level + noise, 0, 255).astype(np.uint8)
    blank[:3, :3] = 255 - level  # dust
    with pytest.raises(ImageProblem) as caught:
        check_contrast(radiograph(blank))
    assert (caught.value.status, caught.value.reason) == (Status.REJECTED, Reason.BLANK)
    assert (caught.value.width, caught.value.height) == (400, 600)


@pytest.mark.parametrize("seed", range(6))
def test_a_radiograph_is_not_blank_even_underexposed(seed: int) -> None:
    gray = draw(seed, height=300, width=700).image
    check_contrast(radiograph(gray))
    check_contrast(radiograph((gray // 8).astype(np.uint8)))


def test_the_blank_gate_at_its_edge() -> None:
    for contrast, blank in ((BLANK_CONTRAST - 1, True), (BLANK_CONTRAST, False)):
        gray = np.repeat(np.array([[50], [50 + contrast]], np.uint8), 100, axis=0).repeat(100, axis=1)
        if blank:
            with pytest.raises(ImageProblem):
                check_contrast(radiograph(gray))
        else:
            check_contrast(radiograph(gray))
