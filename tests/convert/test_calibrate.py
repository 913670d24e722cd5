from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_convert import calibrate
from cxr_edge.judge import calibrate as apply_temperature


def overconfident(sharpness: float, pictures: int = 6000) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Outputs whose logits are `sharpness` times what they should be, and truths drawn from what they should be."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 0.8, (pictures, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    sharp = np.exp(sharpness * logits) / np.exp(sharpness * logits).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(3, p=p) for p in honest])
    return np.clip(np.rint(sharp * 256), 0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("sharpness", [0.7, 1.0, 2.0])
def test_the_temperature_is_found(sharpness: float) -> None:
    quantised, truth = overconfident(sharpness)
    assert calibrate.temperature(quantised, truth) == pytest.approx(sharpness, rel=0.1)


def test_the_temperature_lowers_the_calibration_error() -> None:
    quantised, truth = overconfident(2.0)
    before = calibrate.expected_calibration_error(apply_temperature(quantised, 1.0), truth)
    temperature = calibrate.temperature(quantised, truth)
    after = calibrate.expected_calibration_error(apply_temperature(quantised, temperature), truth)
    assert before > 0.1
    assert after < 0.03


@pytest.mark.parametrize("sharpness", [0.7, 2.0])
def test_the_temperature_of_a_sigmoid_is_found(sharpness: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.2, 6000)
    truth = (rng.random(6000) < 1 / (1 + np.exp(-logits))).astype(int)
    sharp = 1 / (1 + np.exp(-sharpness * logits))
    quantised = np.clip(np.rint(sharp * 256), 0, 255).astype(np.uint8)[:, np.newaxis]
    assert calibrate.temperature(quantised, truth, "sigmoid") == pytest.approx(sharpness, rel=0.1)


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    # Two at 0.9, half of them right; two at 0.6, all right: (2 * 0.4 + 2 * 0.4) / 4.
    assert calibrate.expected_calibration_error(probabilities, np.array([0, 1, 0, 1])) == pytest.approx(0.4)


def test_the_threshold_keeps_what_is_reliable() -> None:
    confidence = np.linspace(0.99, 0.51, 100)
    right = np.arange(100) < 50  # the less confident half is wrong
    threshold = calibrate.uncertain_below(confidence, right)
    kept = confidence >= threshold
    assert right[kept].mean() >= calibrate.RELIABLE
    assert kept.sum() >= 50


def test_without_any_reliable_verdict_everything_is_uncertain() -> None:
    assert calibrate.uncertain_below(np.array([0.9, 0.8]), np.array([False, False])) == 1.0


def test_pictures_of_one_confidence_are_kept_together_or_not_at_all() -> None:
    """Int8 outputs have few values, so ties are the rule: the first of them being right says nothing of the rest."""
    confidence = np.repeat([0.9876, 0.7], 100)
    right = np.arange(200) < 120  # of those at 0.7, the first 20 alone are right
    assert calibrate.uncertain_below(confidence, right) == 0.9876
    assert calibrate.uncertain_below(confidence[100:], right[100:]) == 1.0


@given(
    st.lists(
        st.tuples(st.one_of(st.floats(0, 1), st.sampled_from([0.5, 0.98765, 0.98766, 1.0])), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
def test_rounding_cuts_nothing_off_and_lets_nothing_in(rows: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    threshold = calibrate.uncertain_below(confidence, right)
    assert 0 <= threshold <= 1
    # What the threshold should have been, unrounded.
    enough = [value for value in confidence if right[confidence >= value].mean() >= calibrate.RELIABLE]
    exact = min(enough, default=1.0)
    np.testing.assert_array_equal(confidence >= threshold, confidence >= exact)
