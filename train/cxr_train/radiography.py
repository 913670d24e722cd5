"""The layout of the COVID-19 Radiography Database: a folder for each class, and an Excel file beside it.

    COVID/images/COVID-1.png    COVID/masks/COVID-1.png    COVID.metadata.xlsx: FILE NAME, FORMAT, SIZE, URL

The Excel rows are the list. In the original (21,165 pictures) the Excel says NORMAL-1 where the file is Normal-1.png,
its SIZE says 256*256 although every picture is 299 x 299, and every mask is 256 x 256.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from cxr_edge.errors import UsageError
from cxr_train import sheets
from cxr_train.layouts import Complaints, Listing, mask_sentence, visible

_SIZE = re.compile(r"\s*(\d+)\s*[*xX\u00d7]\s*(\d+)\s*")


@dataclass
class _Found:
    """What has been listed so far; `cells` says for each row where its FILE NAME and its SIZE stand."""

    rows: list[dict[str, str]] = field(default_factory=list)
    cells: list[dict[str, str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def listing(source: Path, folders: list[Path], files: list[Path]) -> Listing:
    """List the pictures that the Excel files name, or, for a class without one, all in its `images/`.

    Raises:
        UsageError: an Excel file cannot be read or has no column FILE NAME.
    """
    found = _Found()
    books = {file.name.lower(): file for file in files}
    classes = set()
    for folder in folders:
        book = books.get(f"{folder.name}.metadata.xlsx".lower())
        if not book and not (folder / "images").is_dir():
            found.notes.append(f"{folder.name}/ has no images/: left alone")
            continue
        classes.add(folder.name)
        pictures, masks = (_by_name(folder / name) for name in ("images", "masks"))
        if not masks:
            found.notes.append(f"class {folder.name!r} has no masks/: its rows have no mask")
        if book:
            _by_excel(found, source, folder, book, pictures, masks)
        else:
            found.notes.append(
                f"{folder.name}.metadata.xlsx is not there: every picture of {folder.name}/images/ is taken"
            )
            for picture in pictures.values():
                _add(found, source, picture, masks, {}, f"images/{picture.name}")

    def at(index: int, column: str) -> str:
        return found.cells[index].get(column, "")

    columns = ["path", "label", "mask", "origin", "claimed", "sheet"]
    return Listing(
        "radiography layout",
        pd.DataFrame(found.rows, columns=columns, dtype=str),
        source,
        at=at,
        judge=sizes,
        classes=frozenset(classes),
        complaints=found.complaints,
        notes=found.notes,
    )


def sizes(rows: pd.DataFrame) -> tuple[Complaints, list[str]]:
    """Pictures that are not of the size their Excel row claims, and masks of another size than their picture.

    What holds for every row of a file, or every mask of a class, is the data set's way: said once, and kept.
    """
    complaints: Complaints = {}
    notes = []
    for sheet, part in rows[rows["claimed"] != ""].groupby("sheet"):
        wrong = part[[not _agrees(row) for row in part.itertuples()]]
        if len(wrong) == len(part):
            first = part.iloc[0]
            notes.append(
                f"{sheet}: its SIZE ({first['claimed']}) is no picture's size (the first is {first['width']} x "
                f"{first['height']}); the pictures are taken as they are"
            )
            continue
        for row in wrong.itertuples():
            sentence = f"{row.path}: is {row.width} x {row.height}, its row says {row.claimed}"
            complaints[int(row.Index)] = ("claimed", sentence)
    for label, part in rows[rows["mask_width"] > 0].groupby("label"):
        other = (part["mask_width"] != part["width"]) | (part["mask_height"] != part["height"])
        across, down = part["mask_width"] * part["height"], part["mask_height"] * part["width"]
        # To one per cent: a side rounded to whole pixels.
        alike = (across - down).abs() <= 0.01 * down
        if other[alike].all() and alike.any():
            first = part[alike].iloc[0]
            notes.append(
                f"class {label!r}: every mask is of another size than its picture (the first {first['mask_width']} x "
                f"{first['mask_height']} for {first['width']} x {first['height']}); training resizes them"
            )
            other &= ~alike
        for row in part[other].itertuples():
            complaints.setdefault(int(row.Index), ("mask", mask_sentence(row)))
    return complaints, notes


def origin(url: str) -> str:
    """Where a picture comes from: the URL's host, for kaggle.com and github.com with two parts of the path."""
    url = url.strip()
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        host = (parts.hostname or "").removeprefix("www.")
    except ValueError:
        return "unknown"
    if host in ("kaggle.com", "github.com"):
        host = "/".join([host, *[part for part in parts.path.split("/") if part][:2]])
    return host or "unknown"


def _by_excel(
    found: _Found, source: Path, folder: Path, book: Path, pictures: dict[str, Path], masks: dict[str, Path]
) -> None:
    sheet = sheets.read(book)
    columns = {" ".join(name.upper().split()): name for name in sheet.rows}
    if "FILE NAME" not in columns:
        raise UsageError(
            f"{book}: there is no column FILE NAME; it has: {', '.join(sheet.rows)}", "name the columns as the original"
        )
    left = dict(pictures)
    for index, cells in enumerate(sheet.rows.to_dict("records")):
        row = {meaning: str(cells[name]).strip() for meaning, name in columns.items()}
        suffix = "." + (row.get("FORMAT") or "png").lower().removeprefix(".")
        name = row["FILE NAME"] if row["FILE NAME"].lower().endswith(suffix) else row["FILE NAME"] + suffix
        place = sheet.at(index, columns["FILE NAME"])
        if not row["FILE NAME"]:
            found.complaints.append(f"{place}the FILE NAME is empty")
        elif name.lower() not in pictures:
            found.complaints.append(f"{place}images/{name} is missing")
        elif not (picture := left.pop(name.lower(), None)):
            found.complaints.append(f"{place}images/{name} is named by an earlier row already")
        else:
            cell = {"path": place, "mask": place, "claimed": sheet.at(index, columns.get("SIZE", ""))}
            about = {"origin": origin(row.get("URL", "")), "claimed": row.get("SIZE", ""), "sheet": book.name}
            _add(found, source, picture, masks, about, f"images/{picture.name}", cell)
    found.complaints += (f"{folder.name}/images/{file.name}: no row of {book.name} names it" for file in left.values())


def _add(
    found: _Found,
    source: Path,
    picture: Path,
    masks: dict[str, Path],
    about: dict[str, str],
    name: str,
    cell: dict[str, str] | None = None,
) -> None:
    folder = picture.parent.parent
    mask = masks.get(picture.name.lower())
    if masks and not mask:
        place = cell["path"] if cell else f"{folder.name}/"
        found.complaints.append(f"{place}masks/{picture.name} is missing, the mask of {name}")
        return
    row = {"path": picture.relative_to(source).as_posix(), "label": folder.name, "origin": "unknown"}
    row |= {"mask": mask.relative_to(source).as_posix() if mask else "", "claimed": "", "sheet": ""}
    found.rows.append(row | about)
    found.cells.append(cell or {})


def _agrees(row: object) -> bool:
    told = _SIZE.fullmatch(str(getattr(row, "claimed")))  # noqa: B009
    size = (int(getattr(row, "width")), int(getattr(row, "height")))  # noqa: B009
    # Nobody says whether width or height comes first.
    return not told or sorted(size) == sorted((int(told[1]), int(told[2])))


def _by_name(folder: Path) -> dict[str, Path]:
    return {file.name.lower(): file for file in visible(folder)[1]} if folder.is_dir() else {}
