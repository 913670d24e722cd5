"""The rows of a data table that conversion needs: calibration pictures, and held-out pictures to compare on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_edge.errors import UsageError

COLUMNS = ("path", "label", "mask", "origin", "split")


def read(path: Path, splits: tuple[str, ...] = ("train", "validation", "test")) -> pd.DataFrame:
    """Read a table that `cxr-train table` wrote, with absolute paths.

    Raises:
        UsageError: it cannot be read, lacks a column, or one of the splits is empty.
    """
    remedy = "make the table with: cxr-train table"
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV table ({error})", remedy) from error
    if absent := [name for name in COLUMNS if name not in rows]:
        raise UsageError(f"{path}: columns {', '.join(absent)} are missing", remedy)
    for split in splits:
        if not (rows["split"] == split).any():
            raise UsageError(f"{path}: the split {split!r} is empty", remedy)
    for name in ("path", "mask"):
        rows[name] = [_absolute(path.parent, value) for value in rows[name]]
    # A table without outlines of opacities is none the worse.
    outlines = rows["opacity"] if "opacity" in rows else [""] * len(rows)
    rows["opacity"] = [";".join(_absolute(path.parent, part) for part in cell.split(";")) for cell in outlines]
    return rows


def _absolute(folder: Path, name: str) -> str:
    return str((folder / name).resolve()) if name else ""


def representative(rows: pd.DataFrame, count: int, seed: int) -> pd.DataFrame:
    """Choose calibration pictures: training rows only, as many of each label and origin as there are, seeded."""
    training = rows[rows["split"] == "train"].sample(frac=1, random_state=seed)
    turn = training.groupby(["label", "origin"]).cumcount()
    order = np.argsort(turn.to_numpy(), kind="stable")
    return training.iloc[order[:count]]


def digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
