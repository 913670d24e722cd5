"""What SOURCE is: recognised by itself, and listed picture by picture. Nothing is opened here.

class folders      normal/a.png, pneumonia/ward-b/b.png: the folder's name is the label
split folders      train/, val/ and test/, each with class folders (Chest X-Ray Images)
radiography        class folders with images/ and masks/, CLASS.metadata.xlsx beside them (`radiography.py`)
table              CSV or Excel (`sheets.py`)
arrays             X.npy and y.npy (`arrays.py`)
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxr_edge.errors import UsageError

COLUMNS = ("path", "label", "mask", "origin", "group", "split", "licence")
SPLITS = ("train", "validation", "test", "external")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
    "external": "external",
}
"""How people name the splits, in lower case, and what the table calls them."""

KNOWN = (
    "class folders, train/val/test with class folders, class folders with images/ and masks/, "
    "a folder with X.npy and y.npy, or a CSV or .xlsx table"
)
_KERMANY = re.compile(
    r"(person\d+_(?:bacteria|virus))_\d+\.jpe?g|((?:NORMAL2-)?IM-\d{4})-\d{4}(?:-\d{4})?\.jpe?g", re.I
)


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
    age: str = ""
    opacity: str = ""


Complaints = dict[int, tuple[str, str]]
"""By row: the column that is at fault, and what is wrong with it."""


def other_size(rows: pd.DataFrame) -> tuple[Complaints, list[str]]:
    """Masks that are not of their picture's size, by `width`, `height`, `mask_width`, `mask_height` (0: no mask)."""
    wrong = (rows["mask_width"] > 0) & ((rows["mask_width"] != rows["width"]) | (rows["mask_height"] != rows["height"]))
    return {int(row.Index): ("mask", mask_sentence(row)) for row in rows[wrong].itertuples()}, []


def mask_sentence(row: object) -> str:
    """What is wrong with a mask of another size; `row` has the columns of `other_size` and `mask`."""
    mask, *sizes = (getattr(row, name) for name in ("mask", "mask_width", "mask_height", "width", "height"))
    return "{}: is {} x {}, its picture {} x {}".format(mask, *sizes)


@dataclass(frozen=True)
class Listing:
    """What a source holds, before anything is opened.

    `rows`: str columns, index 0..n-1; `path` and `mask` are relative to `folder`. `own` says that the columns bear
    our names; otherwise options name them. `at` begins a sentence about a row's column; `judge` says which of the
    opened pictures and masks are not of the size they must be, and what else is worth a note. `classes` must each
    keep a picture. `complaints` name what was left out already, `notes` what is worth knowing.
    """

    kind: str
    rows: pd.DataFrame
    folder: Path
    own: bool = True
    at: Callable[[int, str], str] = lambda index, column: ""  # noqa: ARG005
    judge: Callable[[pd.DataFrame], tuple[Complaints, list[str]]] = other_size
    classes: frozenset[str] = frozenset()
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def recognise(source: Path, pictures: Path) -> Listing:
    """Find out which layout `source`, a file or a folder, has, and list what it holds.

    Args:
        pictures: folder for the pictures of arrays, which have no files of their own; only they write there.

    Raises:
        UsageError: it has no known layout, or lacks what its layout must have.
        OutputUnwritable: `pictures` cannot be written.
    """
    if source.is_file():
        return _table(source)
    folders, files = visible(source)
    names = {folder.name.lower() for folder in folders}
    if arrays := {file.name for file in files} & {"X.npy", "y.npy"}:
        if len(arrays) == 1:
            raise UsageError(f"{source} holds {arrays.pop()}, but not both X.npy and y.npy", "add the other one")
        from cxr_train import arrays as layout

        return layout.listing(source, pictures)
    splits = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    if "train" in (meant := {SPLIT_NAMES[folder.name.lower()] for folder in splits}) and len(meant) > 1:
        return _split_folders(source, splits, [folder.name for folder in folders if folder not in splits])
    if any((folder / "images").is_dir() for folder in folders):
        from cxr_train import radiography

        return radiography.listing(source, folders, files)
    if not folders or names & {"images", "masks"}:
        tables = [file.name for file in files if file.suffix.lower() in (".csv", ".xlsx")]
        raise UsageError(
            f"{source} holds {_some([f'{folder.name}/' for folder in folders] + [file.name for file in files])}, "
            f"which is no known layout: {KNOWN}",
            f"give the table itself: {source / tables[0]}" if tables else "arrange the pictures in one of these ways",
        )
    return _class_folders(source, folders)


def visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """Sub-folders and files of a folder, by name, without hidden ones and what a Mac leaves in a ZIP.

    Raises:
        UsageError: the folder cannot be listed.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not _hidden(entry.name))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be listed ({error.strerror})", "check its permissions") from error
    return [entry for entry in entries if entry.is_dir()], [entry for entry in entries if entry.is_file()]


def patient(name: str) -> str:
    """The child that one of Kermany's file names tells, or "".

    Bacterial and viral pneumonia are numbered separately there: `person1_bacteria_1` and `person1_virus_6` are two
    children. Measured on 3,943 of these pictures by perceptual hash (mean distance, 256 bits): the same number and
    kind 113, neighbouring numbers of one kind 117, the same number of the other kind 118, any two 119.
    """
    found = _KERMANY.fullmatch(name)
    return (found[1] or found[2]).lower() if found else ""


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _table(source: Path) -> Listing:
    if source.suffix.lower() == ".npy":
        raise UsageError(f"{source} is one array", f"give the folder that holds X.npy and y.npy: {source.parent}")
    from cxr_train import sheets

    sheet = sheets.read(source)
    return Listing(f"table {source.name}", sheet.rows, source.parent, own=False, at=sheet.at)


def _class_folders(source: Path, folders: list[Path]) -> Listing:
    rows = [row for folder in folders for row in _class(source, folder)]
    classes = frozenset(folder.name for folder in folders)
    return Listing("class folders", pd.DataFrame(rows, dtype=str), source, classes=classes)


def _split_folders(source: Path, splits: list[Path], others: list[str]) -> Listing:
    rows: list[dict[str, str]] = []
    classes = set()
    for split in splits:
        folders, files = visible(split)
        if not folders:
            raise UsageError(f"{split} holds {_some([file.name for file in files])}, no class folder", f"see: {KNOWN}")
        classes |= {folder.name for folder in folders}
        for folder in folders:
            rows += (row | {"split": SPLIT_NAMES[split.name.lower()]} for row in _class(source, folder))
    notes = [f"{source.name}/{name}/ is none of train, val, test: left alone" for name in others]
    return Listing("split folders", pd.DataFrame(rows, dtype=str), source, classes=frozenset(classes), notes=notes)


def _class(source: Path, folder: Path) -> list[dict[str, str]]:
    """A row for each file below a class folder."""
    files = list(_below(folder))
    if not files:
        raise UsageError(f"class {folder.name!r} is empty: {folder} holds no picture", "fill the folder or remove it")
    return [
        {"path": file.relative_to(source).as_posix(), "label": folder.name, "group": patient(file.name)}
        for file in files
    ]


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield from (Path(place, name) for name in sorted(files) if not _hidden(name))


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "nothing"
