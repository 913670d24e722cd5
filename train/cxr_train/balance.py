"""Which training rows an epoch draws, and how much each counts: answers to a label, or a hospital, with few pictures.

`class-weights` draws every row once and weighs its loss; `oversample` draws the rarer labels again until all are as
many; `undersample` keeps as many rows of each label as the rarest has, the same in each epoch; `origin` draws every
(label, origin) cell by the square root of its size. All of it touches training rows only.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_edge.errors import UsageError


def under_sample(rows: pd.DataFrame, per_class: int, seed: int) -> pd.DataFrame:
    """Keep `per_class` rows of each label (0: as many as the rarest has), chosen by `seed`, in the table's order.

    Raises:
        UsageError: a label has fewer.
    """
    counts = rows["label"].value_counts()
    if per_class and counts.min() < per_class:
        raise UsageError(
            f"only {counts.min()} training pictures have the label {counts.idxmin()!r}, {per_class} are asked for",
            f"set --per-class to {counts.min()} or less",
        )
    return rows.groupby("label").sample(per_class or counts.min(), random_state=seed).sort_index()


def draw(rows: pd.DataFrame, balance: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of the rows that one epoch shows, in order, int64[drawn]; at least as many as there are rows."""
    count = len(rows)
    if balance == "origin":
        return rng.choice(count, count, p=cell_probabilities(rows))
    positions = np.arange(count)
    if balance == "oversample":
        labels = rows["label"].to_numpy()
        own = [positions[labels == label] for label in sorted(set(labels))]
        most = max(map(len, own))
        positions = np.concatenate([*own, *(rng.choice(members, most - len(members)) for members in own)])
    return rng.permutation(positions)


def cell_probabilities(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of each row to be drawn, float64[rows], sums to 1.

    Every (label, origin) cell is drawn in proportion to the square root of its size: a hospital with thirty times the
    pictures counts five times as much, and thirty pictures are not repeated until they are known by heart.
    """
    sizes = rows.groupby(["label", "origin"], dropna=False)["path"].transform("size").to_numpy(np.float64)
    weights = 1 / np.sqrt(sizes)
    return np.asarray(weights / weights.sum())


def class_weights(rows: pd.DataFrame) -> dict[str, float]:
    """Weight of each label's loss: rows / (labels x rows of the label), as scikit-learn's "balanced"."""
    counts = rows["label"].value_counts()
    return {str(label): len(rows) / (len(counts) * count) for label, count in counts.items()}
