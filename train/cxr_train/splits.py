"""Train, validation and test: kept where the source has them, otherwise made by whole groups."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from cxr_edge.errors import UsageError
from cxr_train import leaks

FOLDS = 20
_REMEDY = "add pictures, or make the split yourself and name it with --split-column"
_GIVEN = "leave --split-column out, or use --resplit, to have the split made by group"
_BY_PICTURE = "figures flatter; leave --split-by-picture out to keep them together"


def settle(
    rows: pd.DataFrame, sets: NDArray[np.int64], seed: int, resplit: bool, by_picture: bool
) -> tuple[pd.DataFrame, bool, list[str]]:
    """Give every row its final group and split, and look for leaks.

    A split is made where no row but external ones has one, or `resplit` says so: then groups are merged with `sets`,
    int64[rows], the near-duplicates. A given split stays as it is, and so do its groups. `by_picture` makes every
    picture its own group in both.

    Returns:
        The rows, whether the split was made here, and lines on leaks.

    Raises:
        UsageError: a group lies in two given splits or is external and not, or there are too few groups.
    """
    rows = rows.copy()
    patients = rows["group"].copy()
    if by_picture:
        rows["group"] = rows["path"]
    inside = rows["split"] != "external"
    count, example = leaks.torn_groups(rows.assign(split=inside.map({True: "train or test", False: "external"})))
    if count:
        raise UsageError(
            f"{count} groups are external and not, e.g. {example}", "leave one side out by --where or --external"
        )
    if resplit:
        rows.loc[inside, "split"] = ""
    made = bool((rows.loc[inside, "split"] == "").all())
    if made and inside.any():
        if not by_picture:
            rows.loc[inside, "group"] = leaks.merged(list(rows.loc[inside, "group"]), list(sets[inside.to_numpy()]))
        rows.loc[inside, "split"] = split_by_group(rows[inside], seed)
    count, example = leaks.torn_groups(rows)
    if count:
        raise UsageError(
            f"{count} groups (patients) lie in two of the given splits, so test figures would be false, e.g. {example}",
            "use --resplit to have a split made by group, or --split-by-picture to reproduce figures made so",
        )
    lines = list(leaks.report(rows, sets, _BY_PICTURE if by_picture and made else _GIVEN))
    count, example = leaks.torn_groups(rows.assign(group=patients))
    if count:
        lines.append(f"LEAK: {count} groups (patients) lie in two splits, e.g. {example}: figures will flatter")
    return rows, made, lines


def split_by_group(rows: pd.DataFrame, seed: int) -> list[str]:
    """Split rows into 70 % train, 15 % validation, 15 % test: whole groups, stratified by label and origin, seeded.

    Raises:
        UsageError: there are too few groups or pictures to split.
    """
    cells = rows["label"] + "|" + rows["origin"]
    if cells.value_counts().max() < FOLDS:
        cells = rows["label"]  # origins this small cannot be stratified by
    if min(cells.value_counts().max(), rows["group"].nunique()) < FOLDS:
        raise UsageError(f"too few pictures or groups to split: at least {FOLDS} of a label are needed", _REMEDY)
    folds = StratifiedGroupKFold(n_splits=FOLDS, shuffle=True, random_state=seed)
    splits = ["train"] * len(rows)
    with warnings.catch_warnings():
        # A label with fewer pictures than folds is spread as evenly as it can be; nothing a user could mend.
        warnings.simplefilter("ignore", UserWarning)
        parts = [members for _, members in folds.split(rows, cells, rows["group"])]
    for number, members in enumerate(parts[:6]):
        for member in members:
            splits[member] = "test" if number < 3 else "validation"
    return splits
