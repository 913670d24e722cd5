"""The rows that are sound: chosen, under our names, with every picture and mask opened."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_edge.errors import UsageError
from cxr_train import layouts, leaks, pictures
from cxr_train.layouts import SPLITS, Source


@dataclass(frozen=True)
class Checked:
    """`rows` that are sound, with the columns of `pictures.Opened`, and their hashes, uint8[rows, 32].

    `problems` are (label, sentence) for each row that is not; `notes` what holds for many.
    """

    rows: pd.DataFrame
    hashes: NDArray[np.uint8]
    problems: list[tuple[str, str]]
    notes: list[str]


def choose(raw: pd.DataFrame, source: Source, where: str, external: str, name: Path) -> pd.DataFrame:
    """Choose rows of a source by two pandas queries (empty: all, none) and give their columns our names.

    Returns:
        str columns `COLUMNS`, inside before external rows; the index is that of `raw`.

    Raises:
        UsageError: a query fails, or a column is not there.
    """
    inside = query(raw, where, name) if where else raw
    outside = query(raw, external, name) if external else raw.iloc[:0]
    chosen = pd.concat([inside[~inside.index.isin(outside.index)], outside])
    rows = pd.DataFrame(index=chosen.index)
    for meaning, column in asdict(source).items():
        columns = [part.strip() for part in column.split(",")] if meaning == "opacity" else [column]
        for each in filter(None, columns):
            if each not in raw:
                raise UsageError(f"{name}: there is no column {each!r}", f"it has: {', '.join(raw.columns)}")
        rows[meaning] = (_joined(chosen[columns]) if len(columns) > 1 else chosen[column]) if column else ""
        if meaning != "label":  # two labels may differ by blanks alone, and must be told so
            rows[meaning] = rows[meaning].str.strip()
    rows["origin"] = rows["origin"].replace("", "unknown")
    # Without a group every picture is its own.
    rows["group"] = rows["group"].where(rows["group"] != "", rows["path"])
    rows["split"] = [layouts.SPLIT_NAMES.get(split.lower(), split) for split in rows["split"]]
    rows.loc[outside.index, "split"] = "external"
    return rows


def query(table: pd.DataFrame, expression: str, path: Path) -> pd.DataFrame:
    """Rows of a table that a pandas query chooses; `path` is for messages. Raises UsageError."""
    try:
        return table.query(expression)
    except Exception as error:  # pandas raises whatever the expression provokes
        raise UsageError(
            f"{path}: cannot choose rows by {expression!r} ({error})", "write it like: set == 'pool' and primary == '1'"
        ) from error


def verify(rows: pd.DataFrame, listing: layouts.Listing, source: Source, resplit: bool) -> Checked:
    """Open every picture and mask of `rows`, whose index is that of the listing, and take out what is not sound."""
    problems = _empty_cells(rows, resplit)
    left = rows.drop(index=list(problems))
    opened = pictures.open_all(left, listing.folder)
    problems |= {index: (one.column, one.problem) for index, one in zip(left.index, opened, strict=True) if one.problem}
    left = left.join(pd.DataFrame([asdict(one) for one in opened], index=left.index, columns=pictures.COLUMNS))
    left = left[left["problem"] == ""]
    if listing.own:
        left = left.join(listing.rows[[name for name in listing.rows if name not in left]])
    wrong, notes = listing.judge(left)
    wrong |= {index: ("path", sentence) for index, sentence in leaks.contradictions(left).items() if index not in wrong}
    problems |= wrong
    left = left.drop(index=list(wrong))
    columns = asdict(source)
    told = [
        (str(rows.at[index, "label"]), f"{listing.at(index, columns.get(column, column))}{sentence}")
        for index, (column, sentence) in sorted(problems.items())
    ]
    hashes = np.frombuffer(b"".join(left["fingerprint"]), np.uint8).reshape(len(left), leaks.BYTES)
    return Checked(left, hashes, told, notes)


def _empty_cells(rows: pd.DataFrame, resplit: bool) -> layouts.Complaints:
    problems: layouts.Complaints = {}
    given = not resplit and rows["split"].isin(["train", "validation", "test"]).any()
    for row in rows.itertuples():
        if not row.path:
            problems[row.Index] = ("path", "the path is empty")
        elif not row.label:
            problems[row.Index] = ("label", f"{row.path}: the label is empty")
        elif given and not row.split:
            problems[row.Index] = ("split", f"{row.path}: the split is empty")
        elif row.split and row.split not in SPLITS and not resplit:
            problems[row.Index] = ("split", f"{row.path}: unknown split {row.split!r}")
    return problems


def _joined(cells: pd.DataFrame) -> pd.Series:
    """What is in the cells of each row, by semicolons."""
    return cells.agg(lambda row: ";".join(filter(None, (cell.strip() for cell in row))), axis=1)
