"""The rules for `uncertain` that bands.py compares, on scores whose outcome can be counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.bands import rules

ROWS = pd.DataFrame({"split": ["validation"] * 100 + ["external"] * 2})
CONFIDENCE = np.append(np.linspace(0.5, 0.995, 100), [0.99, 0.99])
AWAY = np.append(np.linspace(0.3, 0.6, 100)[::-1], [0.3, 3.0])
"""The surest validation pictures lie nearest to the training pictures; of the two left out one is near, one is far."""


def certain(wrong: int) -> dict[str, np.ndarray]:
    """Which rows each rule calls certain where the `wrong` least sure validation verdicts are wrong."""
    right = np.arange(102) >= wrong
    return {name: score >= 0 for name, score in rules(CONFIDENCE, right, AWAY, ROWS)}


def test_where_all_is_right_confidence_alone_keeps_all() -> None:
    assert certain(0)["98% of the certain right"].all()


def test_a_stated_share_of_the_certain_is_right() -> None:
    kept = certain(20)["98% of the certain right"][:100]
    assert (np.arange(100) >= 20)[kept].mean() >= 0.98
    # One more would be below it: 80 right and 2 wrong are 97.6 %.
    assert kept.sum() == 81


def test_distance_makes_the_far_one_uncertain_and_keeps_the_near_one() -> None:
    for name, kept in certain(20).items():
        if "nearest" in name or "rises" in name:
            assert kept[100], name
            assert not kept[101], name
    assert certain(20)["99% of the certain right"][100:].all()
