"""Outputs become verdicts: calibration is a distribution that keeps its order, and doubt is said, not hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cxr_edge import judge as judging
from cxr_edge.errors import Reason
from cxr_edge.judge import UNCERTAIN, calibrate, choose
from cxr_edge.manifest import OPERATING_POINTS, Affected, Manifest
from cxr_edge.preprocess import InputSpec


def judge(quantised: NDArray[np.uint8], model: Manifest, point: str = "balanced") -> judging.Judgement:
    return judging.judge(quantised, model, point)


LABELS = ("normal", "pneumonia", "covid19")
OUTPUTS = arrays.arrays(np.uint8, st.integers(2, 6)).filter(lambda quantised: bool(quantised.any()))


def manifest(**fields: Any) -> Manifest:
    """A manifest whose operating points all lie in the middle."""
    about: dict[str, Any] = {
        "name": "m",
        "task": "softmax",
        "labels": LABELS,
        "negative": "normal",
        "input": InputSpec(),
        "outputs": {"probabilities": "a"},
        "temperature": 1.0,
        "uncertain_below": 0.6,
        "operating_points": dict.fromkeys(OPERATING_POINTS, 0.5),
        "mask_threshold": 0.5,
        "lung_area_pct": None,
        "familiar": None,
        "affected": None,
        "tflite_sha256": "",
    }
    return Manifest(**about | fields)


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


@given(arrays.arrays(np.uint8, 3).filter(lambda q: bool(q.any())), st.floats(0, 1), st.floats(0.2, 5), st.floats(0, 1))
def test_the_uncertain_band_ends_exactly_at_its_threshold(
    quantised: NDArray[np.uint8], uncertain_below: float, temperature: float, border: float
) -> None:
    points = dict.fromkeys(OPERATING_POINTS, border)
    model = manifest(uncertain_below=uncertain_below, temperature=temperature, operating_points=points)
    judgement = judge(quantised, model)
    label = LABELS[int(choose(calibrate(quantised, temperature), model, "balanced"))]
    p = judgement.probabilities[LABELS.index(label)]
    assert judgement.verdict == (UNCERTAIN if p < uncertain_below else label)
    assert (judgement.reason is Reason.LOW_CONFIDENCE) == (judgement.verdict == UNCERTAIN)
    assert judgement.confidence == max(judgement.probabilities)


def test_an_operating_point_moves_the_border_between_the_negative_label_and_the_others() -> None:
    points = {"screening": 0.2, "balanced": 0.5, "rule-in": 0.9}
    model = manifest(operating_points=points, uncertain_below=0.0)
    outputs = np.array([[230, 10, 16], [180, 50, 26], [40, 70, 146]], np.uint8)
    verdicts = {point: [judge(units, model, point).verdict for units in outputs] for point in points}
    assert verdicts["screening"] == ["normal", "pneumonia", "covid19"]
    assert verdicts["balanced"] == ["normal", "normal", "covid19"]
    assert verdicts["rule-in"] == ["normal", "normal", "normal"]


def test_findings_together_outweigh_the_negative_label() -> None:
    """0.45 normal against 0.3 and 0.25: more likely than not, something was found."""
    assert judge(np.array([115, 77, 64], np.uint8), manifest(uncertain_below=0.0)).verdict == "pneumonia"


def test_what_a_point_rules_out_too_weakly_is_uncertain_and_says_so() -> None:
    model = manifest(operating_points={"screening": 0.1, "balanced": 0.5, "rule-in": 0.9})
    judgement = judge(np.array([210, 40, 6], np.uint8), model, "screening")
    assert (judgement.verdict, judgement.reason) == (UNCERTAIN, Reason.LOW_CONFIDENCE)
    assert "most likely normal" in judgement.sentence
    assert "rule out pneumonia at the operating point screening" in judgement.sentence


@given(arrays.arrays(np.uint8, (5, 3)), st.sampled_from(OPERATING_POINTS))
def test_many_verdicts_are_chosen_at_once(quantised: NDArray[np.uint8], point: str) -> None:
    model = manifest(operating_points={"screening": 0.1, "balanced": 0.5, "rule-in": 0.9})
    p = calibrate(quantised, 1.0)
    assert choose(p, model, point).tolist() == [int(choose(row, model, point)) for row in p]


def with_activation(**fields: Any) -> Manifest:
    outputs = {"probabilities": "a", "mask": "b", "activation": "c"}
    return manifest(outputs=outputs, affected=Affected(0.5, "half"), **fields)


def test_the_affected_area_is_a_share_of_the_lung_only() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6] = 200  # half of the frame, 32 cells
    activation = np.full((8, 8, 3), [255, 0, 0], np.uint8)
    activation[:4] = [20, 200, 36]  # 16 cells of the lung, and as many outside it
    assert judging.affected_pct(activation, mask, with_activation()) == pytest.approx(50)
    lung, affected = judging.affected_lung(activation, mask, with_activation())
    assert (lung.sum(), affected.sum(), (affected & ~lung).sum()) == (32, 16, 0)


def test_a_coarse_activation_is_brought_to_the_mask() -> None:
    activation = np.array([[[0, 255, 0], [255, 0, 0]]], np.uint8)
    mask = np.full((20, 20), 255, np.uint8)
    _, affected = judging.affected_lung(activation, mask, with_activation())
    assert affected[:, :10].all()
    assert not affected[:, 10:].any()


def test_without_lung_there_is_no_share_of_it() -> None:
    assert judging.affected_pct(np.zeros((2, 2, 3), np.uint8), np.zeros((4, 4), np.uint8), with_activation()) is None


@pytest.mark.parametrize(("negative", "expected"), [("normal", 0.75), ("pneumonia", 0.25)])
def test_a_sigmoid_speaks_of_the_second_label(negative: str, expected: float) -> None:
    model = with_activation(task="sigmoid", labels=LABELS[:2], negative=negative)
    heat = judging.heat(np.full((1, 1, 1), 192, np.uint8), np.zeros((3, 2), np.uint8), model)
    assert heat.shape == (3, 2)
    assert heat == pytest.approx(expected)


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
    assert judgement.verdict == LABELS[int(quantised >= 128)]
    assert judgement.confidence == max(judgement.probabilities) >= 0.5


def test_an_unclear_sigmoid_is_uncertain_on_both_sides_of_half() -> None:
    model = manifest(task="sigmoid", labels=LABELS[:2], uncertain_below=0.9)
    verdicts = [judge(np.array([units], np.uint8), model).verdict for units in (10, 60, 128, 196, 250)]
    assert verdicts == ["normal", UNCERTAIN, UNCERTAIN, UNCERTAIN, "pneumonia"]
