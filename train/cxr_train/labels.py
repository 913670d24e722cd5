"""Labels that cannot be trained on: spelled in two ways, `uncertain`, or absent where they are needed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import pandas as pd

from cxr_edge.errors import UsageError

UNCERTAIN = "uncertain"


def fold(label: str) -> str:
    """A label without case, accents and surrounding or doubled blanks: what two spellings of one have in common."""
    bare = "".join(sign for sign in unicodedata.normalize("NFKD", label) if unicodedata.category(sign)[0] != "M")
    return " ".join(unicodedata.normalize("NFKD", bare.casefold()).split())


def check_spelling(labels: Iterable[str]) -> None:
    """Refuse labels that are one to a reader and two to a computer.

    Raises:
        UsageError: two labels differ only by case, accent or blanks, or one is `uncertain`.
    """
    counts = pd.Series(list(labels), dtype=str).value_counts(sort=False)
    spellings: dict[str, str] = {}
    for label in counts.index:
        other = spellings.setdefault(fold(label), label)
        if other != label:
            raise UsageError(
                f"labels {other!r} ({counts[other]} rows) and {label!r} ({counts[label]} rows) differ only by case, "
                "accent or blanks",
                "make them one",
            )
        if fold(label) == UNCERTAIN:
            raise UsageError(
                f"the label {label!r} ({counts[label]} rows) is a verdict of its own, for where a model is not sure",
                "give these rows another label or leave them out",
            )


def check_classes(expected: set[str], rows: pd.DataFrame, problems: list[tuple[str, str]], source: str) -> None:
    """Refuse a table in which a class has lost all its pictures, or that has one class only.

    Args:
        expected: labels that must each have a row.
        rows: those left.
        problems: (label, sentence) for rows left out.

    Raises:
        UsageError: naming the class.
    """
    left = set(rows["label"])
    if empty := sorted(expected - left):
        first = next((f" (the first: {sentence})" for label, sentence in problems if label == empty[0]), "")
        raise UsageError(
            f"{source}: class {empty[0]!r} is empty: none of its pictures can be used{first}",
            "mend or remove the class",
        )
    if len(left) < 2:
        only = f": only {left.pop()!r}" if left else ""
        raise UsageError(
            f"{source}: fewer than two labels are left{only}", "check --where and the labels, or add the other class"
        )


def check_splits(rows: pd.DataFrame, made: bool) -> None:
    """Refuse a split in which a label that another split has stands nowhere; `external` need not have them all.

    Raises:
        UsageError: naming the split and the label.
    """
    inside = rows[rows["split"] != "external"]
    for split, part in inside.groupby("split"):
        if absent := sorted(set(inside["label"]) - set(part["label"])):
            groups = inside.loc[inside["label"] == absent[0], "group"].nunique()
            raise UsageError(
                f"the split {split!r} has no picture of {absent[0]!r}, of which there are {groups} groups in all",
                "add pictures of it, or leave the label out" if made else "use --resplit to make a split by group",
            )
