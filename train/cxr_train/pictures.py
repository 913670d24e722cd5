"""Every picture and mask of a table, opened once: what is wrong with it, its size, and two fingerprints."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import track

from cxr_edge.errors import ImageProblem
from cxr_edge.imaging import Radiograph, decode, read_bytes
from cxr_train.leaks import perceptual_hash

_WHOLE = (10**6, 10**6)
"""Wanted of the decoder, pixels: more than any picture has, so JPEG is decoded at full scale."""
_SIDES = ["width", "height"]
_SHOWN = 3


@dataclass(frozen=True)
class Opened:
    """One row's files: `problem`, if there is one, names a file, `column` says which; sizes in pixels, 0 without mask.

    `pixels` is the SHA-256 of the gray pixels and their size, 64 hex digits; `fingerprint` the perceptual hash.
    """

    problem: str = ""
    column: str = "path"
    width: int = 0
    height: int = 0
    mask_width: int = 0
    mask_height: int = 0
    pixels: str = ""
    fingerprint: bytes = b""


COLUMNS = [field.name for field in fields(Opened)]


def open_all(rows: pd.DataFrame, folder: Path) -> list[Opened]:
    """Open the pictures and masks of `rows`, whose paths are relative to `folder`; in the order of the rows."""
    # Decoders release the GIL. Few threads, since each may hold a picture of 50 megapixels.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        opened = pool.map(lambda pair: _open(folder, *pair), zip(rows["path"], rows["mask"], strict=True))
        console = Console(stderr=True)
        return list(
            track(opened, "opening", len(rows), console=console, transient=True, disable=not console.is_terminal)
        )


def summary(rows: pd.DataFrame) -> Iterator[str]:
    """Lines on the `width` and `height` of the pictures, pixels: range and median, and the sizes most often met."""
    sides = [f"{name} {rows[name].min()} to {rows[name].max()}, median {rows[name].median():.0f}" for name in _SIDES]
    yield f"pictures: {len(rows)}; {'; '.join(sides)} pixels"
    sizes = rows.groupby(_SIDES).size().sort_values(ascending=False, kind="stable")
    most = [f"{width} x {height} ({count})" for (width, height), count in sizes.head(_SHOWN).items()]
    yield f"sizes: {len(sizes)} different; most often {', '.join(most)}"


def _open(folder: Path, path: str, mask: str) -> Opened:
    opened: list[Radiograph] = []
    for column, name in (("path", path), ("mask", mask)):
        if problem := _open_one(folder / name, opened) if name else "":
            return Opened(f"{ascii(name)[1:-1] if not _is_text(name) else name}{problem}", column)
    picture, drawn = opened[0], opened[-1] if mask else None
    height, width = picture.gray.shape
    return Opened(
        width=picture.width,
        height=picture.height,
        mask_width=drawn.width if drawn else 0,
        mask_height=drawn.height if drawn else 0,
        pixels=hashlib.sha256(b"%d,%d:" % (width, height) + picture.gray.tobytes()).hexdigest(),
        fingerprint=perceptual_hash(picture.gray).tobytes(),
    )


def _open_one(file: Path, opened: list[Radiograph]) -> str:
    """Decode a whole file and add it to `opened`, or say what is wrong, to go on where its name ends."""
    if not _is_text(str(file)):
        return ": the name is not UTF-8 text, so no table can hold it"
    if not file.exists():
        return " is missing"
    try:
        opened.append(decode(read_bytes(file), _WHOLE))
    except ImageProblem as problem:
        return f": {problem.sentence}"
    return ""


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
