"""The data table: one row for each radiograph, read by every step of training and conversion.

Columns (CSV, UTF-8): `path` and `mask` relative to the table's folder (mask may be empty), `label`, `origin` (where
the picture comes from), `group` (rows that must stay in one split: a patient, near-duplicates), `split`
(train, validation, test, external), `licence`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from cxr_edge.errors import ImageProblem, UsageError
from cxr_edge.imaging import decode, read_bytes

COLUMNS = ("path", "label", "mask", "origin", "group", "split", "licence")
FOLDS = 20
_SPLIT_REMEDY = "add pictures, or make the split yourself and name it with --split-column"
SPLITS = ("train", "validation", "test", "external")


@dataclass(frozen=True)
class Source:
    """Which columns of somebody's table mean what; an empty name means that it has no such column."""

    path: str = "path"
    label: str = "label"
    mask: str = ""
    origin: str = ""
    group: str = ""
    split: str = ""
    licence: str = ""


def build(source_file: Path, out: Path, source: Source, where: str, external: str, seed: int) -> tuple[int, list[str]]:
    """Read somebody's CSV table, verify every picture and mask, split by group, and write our table to `out`.

    Args:
        source_file: CSV whose paths are relative to its own folder.
        source: the names of its columns.
        where: pandas query that chooses rows for train, validation and test; empty for all.
        external: pandas query that chooses rows which training must never see; empty for none.
        seed: of the split, where the source has none.

    Returns:
        The number of rows written, and a sentence for each row left out.

    Raises:
        UsageError: the table cannot be read, lacks a column, or leaves fewer than two labels.
    """
    raw = _read_csv(source_file).reset_index(names="line")
    raw["line"] += 2  # as a spreadsheet counts: from 1, after the header
    inside = _choose(raw, where, source_file) if where else raw
    outside = _choose(raw, external, source_file) if external else raw.iloc[:0]
    inside = inside[~inside["line"].isin(outside["line"])]
    rows = pd.concat([_rename(inside, source, source_file), _rename(outside, source, source_file)])
    rows["external"] = rows["line"].isin(outside["line"])

    folder = source_file.parent.resolve()
    target = out.parent.resolve()
    complaints = {row.line: problem for row in rows.itertuples() if (problem := _problem(row, folder))}
    rows = rows[~rows["line"].isin(complaints.keys())].copy()
    if rows["label"].nunique() < 2:
        raise UsageError(f"{source_file}: fewer than two labels are left", "check --where and the label column")
    for name in ("path", "mask"):
        rows[name] = [os.path.relpath(folder / value, target) if value else "" for value in rows[name]]
    rows.loc[rows["external"], "split"] = "external"
    missing = (rows["split"] == "") & ~rows["external"]
    if missing.any():
        rows.loc[missing, "split"] = split_by_group(rows[missing], seed)
    target.mkdir(parents=True, exist_ok=True)
    rows[list(COLUMNS)].to_csv(out, index=False)
    return len(rows), [f"{source_file.name} line {line}: {problem}" for line, problem in complaints.items()]


def split_by_group(rows: pd.DataFrame, seed: int) -> list[str]:
    """Split rows into 70 % train, 15 % validation, 15 % test: whole groups, stratified by label and origin, seeded.

    Raises:
        UsageError: there are too few groups or pictures to split.
    """
    cells = rows["label"] + "|" + rows["origin"]
    if cells.value_counts().max() < FOLDS:
        cells = rows["label"]  # origins this small cannot be stratified by
    if min(cells.value_counts().max(), rows["group"].nunique()) < FOLDS:
        raise UsageError(f"too few pictures or groups to split: at least {FOLDS} of a label are needed", _SPLIT_REMEDY)
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


def read(path: Path) -> pd.DataFrame:
    """Read a table that `build` wrote; `path` and `mask` become absolute, empty cells stay "".

    Raises:
        UsageError: it is missing, lacks a column, or a group lies in two splits.
    """
    table = _read_csv(path)
    if absent := [name for name in COLUMNS if name not in table]:
        raise UsageError(f"{path}: columns {', '.join(absent)} are missing", "make the table with: cxr-train table")
    torn = table.groupby("group")["split"].nunique()
    if (torn > 1).any():
        raise UsageError(
            f"{path}: group {torn.idxmax()!r} lies in two splits, so the test figures would be false",
            "make the table again with: cxr-train table",
        )
    for name in ("path", "mask"):
        table[name] = [str((path.parent / value).resolve()) if value else "" for value in table[name]]
    return table


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def summary(table: pd.DataFrame) -> Iterator[str]:
    """Lines that count rows, groups and masks by split, label and origin."""
    masks = table.assign(mask=table["mask"] != "")
    counts = masks.groupby(["split", "label", "origin"]).agg(
        rows=("path", "size"), groups=("group", "nunique"), masks=("mask", "sum")
    )
    yield from counts.to_string().splitlines()


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV table ({error})", "give a CSV file, UTF-8") from error


def _choose(table: pd.DataFrame, query: str, path: Path) -> pd.DataFrame:
    try:
        return table.query(query)
    except Exception as error:  # pandas raises whatever the expression provokes
        raise UsageError(
            f"{path}: cannot choose rows by {query!r} ({error})", "write it like: set == 'pool' and primary == '1'"
        ) from error


def _rename(table: pd.DataFrame, source: Source, path: Path) -> pd.DataFrame:
    renamed = pd.DataFrame({"line": table["line"]})
    for name in COLUMNS:
        column = getattr(source, name)
        if column and column not in table:
            raise UsageError(f"{path}: there is no column {column!r}", f"it has: {', '.join(table.columns[1:])}")
        renamed[name] = table[column].str.strip() if column else ""
    renamed["origin"] = renamed["origin"].replace("", "unknown")
    # Without a group every picture is its own.
    renamed["group"] = renamed["group"].where(renamed["group"] != "", renamed["path"])
    return renamed


def _problem(row: object, folder: Path) -> str:
    """Say what is wrong with one row, or return ""."""
    path, mask, split = (str(getattr(row, name)) for name in ("path", "mask", "split"))
    if not getattr(row, "label"):  # noqa: B009
        return f"{path}: the label is empty"
    if split and split not in SPLITS:
        return f"{path}: unknown split {split!r}"
    try:
        picture = decode(read_bytes(folder / path), (10**6, 10**6))
        if mask:
            with Image.open(folder / mask) as image:
                size = image.size
            if size != (picture.width, picture.height):
                return f"{mask}: is {size[0]} x {size[1]}, its picture {picture.width} x {picture.height}"
    except ImageProblem as problem:
        return f"{path}: {problem.sentence}"
    except OSError as error:
        return f"{mask}: {error}"
    return ""
