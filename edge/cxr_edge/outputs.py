"""CSV rows and mask PNGs, written so that a power cut leaves nothing torn.

OUT/verdicts.csv         one header line, one line for each verdict, only ever appended to
OUT/masks/<path>.png     mirrors the scanned folder
OUT/runs/<time>.json     what each run did (see `record.py`)
OUT/.tmp/                where files are written before they are renamed into place; emptied at each start
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

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
QUOTED = re.compile(r'[,;"\t\r\n]')
FORMULA, HARMLESS = ("=", "+", "-", "@", "\t", "\r"), "./"
"""What a path begins with that a spreadsheet would compute (OWASP, "CSV Injection"), and what is put before it: the
same path still."""
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
    mask_sha256: str = ""
    """Of the mask's file; no column."""
    brightness: float | None = None
    """Mean gray level of the picture, 0 to 255; no column."""


def header(labels: tuple[str, ...]) -> str:
    """The CSV's first line for a model with these labels."""
    return _line([*BEFORE, *(f"p_{label}" for label in labels), *AFTER])


def render(row: Row, labels: tuple[str, ...]) -> str:
    """One row as an RFC 4180 line."""
    probabilities = row.probabilities or (None,) * len(labels)
    return _line(
        [
            # A path stays a path: nothing else in a row can begin so.
            HARMLESS + row.path if row.path.startswith(FORMULA) else row.path,
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


def parse(line: str, labels: tuple[str, ...]) -> Row:
    """The row that `render` made a line of, but for what no column holds."""
    (cells,) = csv.reader([line], strict=True)
    path, status, verdict, confidence = cells[: len(BEFORE)]
    probabilities = cells[len(BEFORE) : len(BEFORE) + len(labels)]
    after = dict(zip(AFTER, cells[len(BEFORE) + len(labels) :], strict=True))
    return Row(
        path=path.removeprefix(HARMLESS) if path.startswith(tuple(HARMLESS + sign for sign in FORMULA)) else path,
        status=Status(status),
        verdict=verdict,
        confidence=_number(confidence),
        probabilities=tuple(float(p) for p in probabilities if p),
        reason_code=Reason(after["reason_code"]) if after["reason_code"] else None,
        reason=after["reason"],
        lung_area_pct=_number(after["lung_area_pct"]),
        affected_pct=_number(after["affected_pct"]),
        mask=after["mask"],
        width=int(after["width"] or 0),
        height=int(after["height"] or 0),
        sha256=after["sha256"],
        model=after["model"],
        scanned_at=after["scanned_at"],
        ms=float(after["ms"]),
    )


def _number(cell: str) -> float | None:
    return float(cell) if cell else None


def _decimals(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:.{places}f}"


def _line(cells: list[str]) -> str:
    # A decoder's message may quote bytes that UTF-8 cannot hold.
    return ",".join(map(_quoted, cells)).encode("utf-8", "backslashreplace").decode() + "\r\n"


def _quoted(cell: str) -> str:
    # Python's own writer leaves alone what is no separator to it; to the spreadsheets of half of the world ';' is one,
    # and the rest of the cell might be a formula.
    return '"' + cell.replace('"', '""') + '"' if QUOTED.search(cell) else cell


def mask_name(name: str, suffix: str = ".png") -> str:
    """Path of the mask, relative to the output folder: `masks/<name>.png`, cut where a file system would refuse it."""
    if len(name.encode()) > PATH_LIMIT:
        return f"masks/~{hashlib.sha256(name.encode()).hexdigest()}{suffix}"
    *parents, last = name.split("/")
    # A folder that ends so would stand where a mask must lie, so it gets a tilde (and one more, if it has some).
    folders = [re.sub(r"\.(png|seg\.dcm)~*$", r"\g<0>~", part) for part in parents]
    return "/".join(["masks", *(_fitting(part, "") for part in folders), _fitting(last, suffix)])


def _fitting(part: str, suffix: str) -> str:
    if len(f"{part}{suffix}".encode()) <= NAME_LIMIT:
        return part + suffix
    digest = hashlib.sha256(part.encode()).hexdigest()[:16]
    return part.encode()[: NAME_LIMIT - 24].decode("utf-8", "ignore") + "~" + digest + suffix


class FileWriter:
    """Writes files atomically: temp file, fsync, rename. Threads may share it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.temp = out / ".tmp"
        try:
            shutil.rmtree(self.temp, ignore_errors=True)
            self.temp.mkdir()
        except OSError as error:
            raise unwritable(out, error) from error

    def read(self, name: str, sha256: str) -> bytes | None:
        """What was written to the relative path `name`, if it is still the content of that SHA-256."""
        try:
            content = (self.out / name).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == sha256 else None

    def write(self, name: str, content: bytes) -> None:
        """Write a file to the relative path `name`. Raises OutputUnwritable."""
        target, temp = self.out / name, self.temp / f"{threading.get_ident()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with temp.open("wb") as file:
                file.write(content)
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
