from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_convert import operating

VALUES = st.one_of(st.floats(0, 1), st.integers(0, 256).map(lambda units: units / 256), st.floats(0, 1e-300))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Probabilities of a finding, ties and all, and which are one: some are, some are not."""
    found = draw(st.lists(VALUES, min_size=1, max_size=40))
    spared = draw(st.lists(VALUES, min_size=1, max_size=40))
    return np.array(found + spared), np.arange(len(found) + len(spared)) < len(found)


def shares(finding: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:  # type: ignore[type-arg]
    return float((finding[truth] >= threshold).mean()), float((finding[~truth] < threshold).mean())


@given(cases())
def test_each_point_keeps_its_promise_and_gives_away_nothing(case: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[type-arg]
    finding, truth = case
    points = operating.choose(finding, truth)
    assert 0 <= points["screening"] <= points["balanced"] <= points["rule-in"] <= 1
    assert shares(finding, truth, points["screening"])[0] >= 0.95
    assert shares(finding, truth, points["rule-in"])[1] >= 0.95 or (finding[~truth] == 1).mean() > 0.05
    for value in finding:  # every threshold that a value could be
        sensitivity, specificity = shares(finding, truth, value)
        if sensitivity >= 0.95 and value <= points["balanced"]:
            assert shares(finding, truth, points["screening"])[1] >= specificity
        if specificity >= 0.95 and value >= points["balanced"]:
            assert shares(finding, truth, points["rule-in"])[0] >= sensitivity
        assert sum(shares(finding, truth, points["balanced"])) >= sensitivity + specificity - 1e-9


@given(cases())
def test_no_point_depends_on_the_last_bit(case: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Between values that are far enough apart for a number to lie between them."""
    finding = np.round(case[0], 3)
    for threshold in operating.choose(finding, case[1]).values():
        assert threshold in (0.0, 1.0) or np.abs(finding - threshold).min() > 1e-9


def test_points_by_hand() -> None:
    truth = np.arange(40) >= 20
    finding = np.concatenate([np.linspace(0.0, 0.57, 20), np.linspace(0.4, 0.97, 20)])
    points = operating.choose(finding, truth)
    # One finding of twenty may be missed (0.40), one without may be called (0.57; not 0.54).
    assert points["screening"] == pytest.approx(0.425, abs=0.006)
    assert points["rule-in"] == pytest.approx(0.545, abs=0.004)
    assert operating.figures(finding, truth, points["screening"]) == {"sensitivity": 0.95, "specificity": 0.75}
    assert operating.figures(finding, truth, points["rule-in"])["specificity"] == 0.95


def test_points_of_a_model_that_is_good_enough_for_both_at_once_do_not_cross() -> None:
    """One finding in forty lies below all others: left to itself, screening would be above rule-in."""
    truth = np.arange(80) >= 40
    finding = np.concatenate([np.linspace(0.0, 0.39, 40), [0.2], np.linspace(0.6, 0.99, 39)])
    assert len(set(operating.choose(finding, truth).values())) == 1


def test_of_equally_good_points_the_one_nearest_a_half_is_balanced() -> None:
    finding, truth = np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, True, False, True])
    # 0.15 finds both and spares one of two; 0.6 finds one of two and spares both.
    assert operating.choose(finding, truth)["balanced"] == 0.6


def test_there_is_nothing_to_count_without_findings() -> None:
    assert operating.figures(np.array([0.2]), np.array([False]), 0.5) == {"sensitivity": None, "specificity": 1.0}
