from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_edge.errors import UsageError
from cxr_train import balance

tables = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=60)


def frame(cells: list[tuple[str, str]]) -> pd.DataFrame:
    rows = pd.DataFrame(cells, columns=["label", "origin"])
    return rows.assign(path=[f"{number}.png" for number in range(len(rows))])


@given(tables, st.integers(0, 2**31))
def test_every_row_is_shown_once_where_nothing_is_balanced(cells: list[tuple[str, str]], seed: int) -> None:
    rows = frame(cells)
    for name in ("none", "class-weights", "undersample"):
        assert sorted(balance.draw(rows, name, np.random.default_rng(seed))) == list(range(len(rows)))


@given(tables, st.integers(0, 2**31))
def test_over_sampling_shows_every_row_and_every_label_alike(cells: list[tuple[str, str]], seed: int) -> None:
    rows = frame(cells)
    drawn = balance.draw(rows, "oversample", np.random.default_rng(seed))
    assert set(drawn) == set(range(len(rows)))
    assert rows["label"].iloc[drawn].value_counts().nunique() == 1
    # The most frequent label is never repeated.
    assert rows["label"].iloc[drawn].value_counts().max() == rows["label"].value_counts().max()


@given(tables)
def test_class_weights_even_the_labels_out(cells: list[tuple[str, str]]) -> None:
    rows = frame(cells)
    weights = balance.class_weights(rows)
    sums = [weights[label] * count for label, count in rows["label"].value_counts().items()]
    assert np.allclose(sums, len(rows) / len(sums))


def test_under_sampling_keeps_as_many_of_each_and_the_same_ones() -> None:
    rows = frame([("a", "x")] * 30 + [("b", "x")] * 12)
    for per_class, kept in ((0, 12), (5, 5)):
        some = balance.under_sample(rows, per_class, seed=3)
        assert dict(some["label"].value_counts()) == {"a": kept, "b": kept}
        assert list(some.index) == list(balance.under_sample(rows, per_class, seed=3).index)
    with pytest.raises(UsageError, match="only 12 training pictures have the label 'b', 13"):
        balance.under_sample(rows, 13, seed=3)


def test_small_cells_count_more_but_not_as_much_as_large_ones() -> None:
    weights = balance.cell_probabilities(frame([("a", "x")] * 100 + [("b", "x")] * 4))
    assert weights.sum() == pytest.approx(1)
    assert weights[100:].sum() == pytest.approx(2 / 12)
