"""The data table: one row for each radiograph, read by every step of training and conversion.

Columns (CSV, UTF-8): `path` and `mask` relative to the table's folder (mask may be empty), `label`, `origin` (where
the picture comes from), `group` (rows that must stay in one split: a patient, near-duplicates), `split`
(train, validation, test, external), `licence`; and where the source's columns were named `age`, and `opacity`: paths of
masks (255 opacity) by semicolons, which no model learns from, but which tell how well it shows what is affected.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import labels, layouts, leaks, pictures, sound, splits
from cxr_train.layouts import COLUMNS as COLUMNS
from cxr_train.layouts import SPLITS as SPLITS
from cxr_train.layouts import Source as Source

OPTIONAL = ("age", "opacity")


@dataclass(frozen=True)
class Built:
    """What `build` did: rows written, a sentence for each row left out, and lines for a person on all the rest."""

    rows: int
    left_out: list[str]
    notes: list[str]
    sizes: list[str]
    leaks: list[str]


def build(
    source_path: Path,
    out: Path,
    source: Source,
    where: str,
    external: str,
    seed: int,
    *,
    doubtful: str = "",
    resplit: bool = False,
    by_picture: bool = False,
) -> Built:
    """Read a folder or a table of any known layout, verify every picture and mask, split, and write our table to `out`.

    Where the source has a split, it is kept. Otherwise one is made, by groups that hold whatever is one patient,
    identical or a near-duplicate together.

    Args:
        source_path: a folder, or a CSV or Excel file whose paths are relative to its own folder.
        source: the names of a table's columns.
        where: pandas query that chooses rows for train, validation and test; empty for all.
        external: pandas query that chooses rows which training must never see; empty for none.
        seed: of the split, where one is made.
        doubtful: pandas query for rows whose label is doubtful: left out of train, kept in the other splits.
        resplit: make a split although the source has one; its external rows stay external.
        by_picture: every picture is its own group, whatever else shows the same patient.

    Raises:
        UsageError: the source cannot be read, lacks a column or a class, has two spellings of a label, or its split
            tears a group or lacks a label.
        OutputUnwritable: the table, or the pictures of arrays, cannot be written.
    """
    folder = _make_folder(source_path, out)
    listing = layouts.recognise(source_path, folder / f"{out.stem}_pictures")
    if listing.own:
        if source != Source():
            raise UsageError(f"{source_path}: is no table ({listing.kind})", "leave the --...-column options out")
        source = Source(**{name: name for name in COLUMNS if name in listing.rows})
    rows = sound.choose(listing.rows, source, where, external, source_path)
    labels.check_spelling(label for label in rows["label"] if label.strip())
    rows["label"] = rows["label"].str.strip()
    expected = {*rows["label"], *(() if where or external else listing.classes)} - {""}
    checked = sound.verify(rows, listing, source, resplit)
    labels.check_classes(expected, checked.rows, checked.problems, str(source_path))

    sets = leaks.linked(len(checked.rows), leaks.near_pairs(checked.hashes))
    rows, made, found = splits.settle(checked.rows, sets, seed, resplit, by_picture)
    doubted = rows.index.isin(sound.query(listing.rows, doubtful, source_path).index) if doubtful else False
    untaught = doubted & (rows["split"] == "train")
    rows = rows[~untaught].copy()
    labels.check_splits(rows, made)
    for name in ("path", "mask"):
        rows[name] = [
            os.path.relpath(listing.folder.resolve() / value, folder) if value else "" for value in rows[name]
        ]
    lost: list[str] = []
    if source.opacity:
        rows["opacity"] = [_opacities(cell, listing.folder.resolve(), folder, lost) for cell in rows["opacity"]]
    _write(rows[[*COLUMNS, *(name for name in OPTIONAL if getattr(source, name))]], out)
    notes = [f"{source_path} read as: {listing.kind}", *listing.notes, *checked.notes]
    if doubtful:
        notes.append(f"{untaught.sum()} training pictures are left out because their label is doubtful: {doubtful}")
    if absent := [name for name in ("train", "validation") if name not in set(rows["split"])]:
        notes.append(f"no picture is in {' or '.join(absent)}, which cxr-train fit needs; --resplit makes a split")
    left_out = [*listing.complaints, *(sentence for _, sentence in checked.problems), *lost]
    return Built(len(rows), left_out, notes, list(pictures.summary(rows)), found)


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
    """Lines on class balance: rows of each label in each split and their share of it; then by origin, with masks."""
    table = table.assign(split=pd.Categorical(table["split"], [*SPLITS]))
    balance = table.groupby(["split", "label"], observed=True).size().rename("rows").to_frame()
    balance["share"] = [
        f"{share:.1%}" for share in balance["rows"] / balance.groupby("split", observed=True)["rows"].transform("sum")
    ]
    yield from balance.to_string().splitlines()
    yield ""
    masks = table.assign(mask=table["mask"] != "")
    counts = masks.groupby(["origin", "label", "split"], observed=True).agg(
        rows=("path", "size"), groups=("group", "nunique"), masks=("mask", "sum")
    )
    yield from counts.to_string().splitlines()


def _opacities(cell: str, source: Path, folder: Path, lost: list[str]) -> str:
    """A cell of opacity masks, relative to the table's folder; those that are not there are told in `lost`."""
    paths = [source / part for part in cell.split(";") if part]
    lost += [f"{path}: the opacity mask is not there; the picture stays" for path in paths if not path.is_file()]
    return ";".join(os.path.relpath(path, folder) for path in paths if path.is_file())


def _make_folder(source: Path, out: Path) -> Path:
    if out.resolve() == source.resolve():
        raise UsageError(f"{out} is the source itself", "choose another file for --out")
    if source.resolve() in out.resolve().parent.parents:
        raise UsageError(
            f"{out} lies in a folder of {source}, whose folders are read as classes", "choose another --out"
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"{out.parent} cannot be made ({error.strerror})", "choose another --out") from error
    return out.parent.resolve()


def _write(rows: pd.DataFrame, out: Path) -> None:
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        rows.to_csv(unfinished, index=False)
        unfinished.replace(out)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputUnwritable(f"{out} cannot be written ({error.strerror or error})", "free some space") from error


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV table ({error})", "give a CSV file, UTF-8") from error
