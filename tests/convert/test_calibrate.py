from __future__ import annotations

import numpy as np
import pytest

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
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    truth = np.zeros(100, int)
    truth[50:] = 1  # the less confident half is wrong
    threshold = calibrate.uncertain_below(probabilities, truth)
    kept = confidence >= threshold
    assert (truth[kept] == 0).mean() >= calibrate.RELIABLE
    assert kept.sum() >= 50


def test_without_any_reliable_verdict_everything_is_uncertain() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert calibrate.uncertain_below(probabilities, np.array([1, 1])) == 1.0


def test_pictures_of_one_confidence_are_kept_together_or_not_at_all() -> None:
    """Int8 outputs have few values, so ties are the rule: the first of them being right says nothing of the rest."""
    probabilities = np.repeat([[0.9876, 0.0124], [0.7, 0.3]], 100, axis=0)
    truth = np.zeros(200, int)
    truth[120:] = 1  # of those at 0.7, the first 20 alone are right
    assert calibrate.uncertain_below(probabilities, truth) == 0.9876
    assert calibrate.uncertain_below(probabilities[100:], truth[100:]) == 1.0
