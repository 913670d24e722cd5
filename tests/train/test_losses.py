from __future__ import annotations

import numpy as np
import pytest

from cxr_train.losses import JudgedDice, JudgedMaskLoss

RNG = np.random.default_rng(0)


def truth(judged: float) -> np.ndarray:  # type: ignore[type-arg]
    lung = (RNG.random((2, 8, 8, 1)) > 0.5).astype(np.float32)
    return np.concatenate([lung, np.full_like(lung, judged)], axis=-1)


def test_a_picture_without_a_mask_costs_nothing() -> None:
    predicted = RNG.random((2, 8, 8, 1)).astype(np.float32)
    assert float(JudgedMaskLoss()(truth(0.0), predicted)) == 0


def test_unjudged_pixels_cost_nothing() -> None:
    known = truth(1.0)
    known[:, :4, :, 1] = 0
    predicted = RNG.random((2, 8, 8, 1)).astype(np.float32)
    changed = predicted.copy()
    changed[:, :4] = 1 - changed[:, :4]
    assert float(JudgedMaskLoss()(known, predicted)) == pytest.approx(float(JudgedMaskLoss()(known, changed)))
    changed[:, 4:] = 1 - changed[:, 4:]
    assert float(JudgedMaskLoss()(known, predicted)) != pytest.approx(float(JudgedMaskLoss()(known, changed)))


def test_the_right_mask_costs_least() -> None:
    known = truth(1.0)
    right, wrong = known[..., :1], 1 - known[..., :1]
    assert float(JudgedMaskLoss()(known, right)) < 0.01
    assert float(JudgedMaskLoss()(known, wrong)) > 5


def test_dice_counts_judged_pixels_over_batches() -> None:
    dice = JudgedDice()
    known = truth(1.0)
    dice.update_state(known, known[..., :1])
    assert float(dice.result()) == pytest.approx(1)
    dice.update_state(truth(0.0), np.zeros((2, 8, 8, 1), np.float32))
    assert float(dice.result()) == pytest.approx(1)
    dice.update_state(known, 1 - known[..., :1])
    assert 0.3 < float(dice.result()) < 0.7
