"""CSV rows and mask PNGs, written so that a power cut leaves nothing torn.

OUT/verdicts.csv         one header line, one line for each verdict, only ever appended to
OUT/masks/<path>.png     mirrors the scanned folder
OUT/.tmp/                where masks are written before they are renamed into place; emptied at each start
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import shutil
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cxr_edge.errors import OutputUnwritable, Reason, Status

BEFORE = ("path", "status", "verdict", "confidence")
AFTER = (
    "reason_code",
    "reason",
    "lung_area_pct",
    "affected_pct",
    "mask",
    "width",
    "height",
    "sha256",
    "model",
    "scanned_at",
    "ms",
)
NAME_LIMIT = 255
"""Bytes in one path component, on every common file system."""
PATH_LIMIT = 2048
"""Bytes in a path relative to the scanned folder; Linux refuses 4096, of which the output folder takes its share."""


@dataclass(frozen=True)
class Row:
    """One verdict, as DESIGN.md's columns; None is an empty cell. `probabilities` are in the model's label order."""

    path: str
    status: Status
    sha256: str
    model: str
    scanned_at: str
    ms: float
    verdict: str = ""
    confidence: float | None = None
    probabilities: tuple[float, ...] = ()
    reason_code: Reason | None = None
    reason: str = ""
    lung_area_pct: float | None = None
    affected_pct: float | None = None
    mask: str = ""
    width: int = 0
    height: int = 0


def header(labels: tuple[str, ...]) -> str:
    """The CSV's first line for a model with these labels."""
    return _line([*BEFORE, *(f"p_{label}" for label in labels), *AFTER])


def render(row: Row, labels: tuple[str, ...]) -> str:
    """One row as an RFC 4180 line."""
    probabilities = row.probabilities or (None,) * len(labels)
    return _line(
        [
            row.path,
            row.status.value,
            row.verdict,
            _decimals(row.confidence, 3),
            *(_decimals(p, 3) for p in probabilities),
            row.reason_code.value if row.reason_code else "",
            row.reason,
            _decimals(row.lung_area_pct, 1),
            _decimals(row.affected_pct, 1),
            row.mask,
            str(row.width or ""),
            str(row.height or ""),
            row.sha256,
            row.model,
            row.scanned_at,
            _decimals(row.ms, 1),
        ]
    )


def _decimals(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    # A decoder's message may quote bytes that UTF-8 cannot hold.
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def mask_name(name: str) -> str:
    """Path of the mask, relative to the output folder: `masks/<name>.png`, cut where a file system would refuse it."""
    if len(name.encode()) > PATH_LIMIT:
        return f"masks/~{hashlib.sha256(name.encode()).hexdigest()}.png"
    *parents, last = name.split("/")
    # A folder that ends in .png would stand where a mask must lie, so it gets a tilde (and one more, if it has some).
    folders = [re.sub(r"\.png~*$", r"\g<0>~", part) for part in parents]
    return "/".join(["masks", *(_fitting(part, "") for part in folders), _fitting(last, ".png")])


def _fitting(part: str, suffix: str) -> str:
    if len(f"{part}{suffix}".encode()) <= NAME_LIMIT:
        return part + suffix
    digest = hashlib.sha256(part.encode()).hexdigest()[:16]
    return part.encode()[: NAME_LIMIT - 24].decode("utf-8", "ignore") + "~" + digest + suffix


class MaskWriter:
    """Writes mask PNGs atomically: temp file, fsync, rename. Threads may share it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.temp = out / ".tmp"
        try:
            shutil.rmtree(self.temp, ignore_errors=True)
            self.temp.mkdir()
        except OSError as error:
            raise unwritable(out, error) from error

    def write(self, name: str, mask: Image.Image) -> None:
        """Write `mask` (mode "1") to the relative path `name`. Raises OutputUnwritable."""
        target = self.out / name
        temp = self.temp / f"{threading.get_ident()}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temp.open("wb") as file:
                # Run lengths are all that a bilevel mask has: smaller and faster than the default strategy.
                mask.save(file, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(target)
        except OSError as error:
            raise unwritable(target, error) from error

    def close(self) -> None:
        """Remove the folder of temp files."""
        shutil.rmtree(self.temp, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames into `folder` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unwritable(path: Path, error: OSError) -> OutputUnwritable:
    """The error that ends a sweep whose output cannot be written."""
    message = f"{path} cannot be written: {error.strerror or error}"
    return OutputUnwritable(message, "free some space or choose another output folder with -o, then run again")
