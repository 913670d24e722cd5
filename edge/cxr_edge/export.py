"""The current verdict of every path, out of the ledger: CSV, JSON Lines or Parquet, row by row, beside a running sweep.

`verdicts.csv` is a log: a file that changed, or was judged by two models, has several rows there. Here it has one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from cxr_edge.errors import CxrEdgeError, NothingFound, UsageError
from cxr_edge.ledger import VERSION
from cxr_edge.outputs import AFTER, BEFORE, Row, header, parse, render, unwritable

_CURRENT = """
SELECT v.line FROM verdicts v LEFT JOIN files f ON f.path = v.path
WHERE NOT v.replaced AND (
    v.sha256 = f.sha256 AND v.model = f.model
    OR f.path IS NULL AND v.id = (SELECT max(w.id) FROM verdicts w WHERE w.path = v.path AND NOT w.replaced))
ORDER BY v.path
"""
"""What a path holds now, as last seen; of one that never could be read, its last row."""
PARQUET_ROWS = 10_000


@dataclass(frozen=True)
class Filter:
    """Which verdicts to export: of times `since` <= scanned_at < `until` (UTC, ISO 8601), statuses, verdicts; "" or ()
    for all."""

    since: str = ""
    until: str = ""
    statuses: tuple[str, ...] = ()
    verdicts: tuple[str, ...] = ()

    def takes(self, row: Row) -> bool:
        """Whether a row is among them."""
        return (
            self.since <= row.scanned_at
            and (not self.until or row.scanned_at < self.until)
            and (not self.statuses or row.status.value in self.statuses)
            and (not self.verdicts or row.verdict in self.verdicts)
        )


def export(out: Path, to: Path | None, kind: str, wanted: Filter) -> int:
    """Write the current verdicts of an output folder.

    Args:
        out: a sweep's output folder.
        to: a file, which is replaced at the end, or None for stdout.
        kind: 'csv', 'jsonl' or 'parquet'.

    Returns:
        How many rows were written.

    Raises:
        CxrEdgeError: the folder holds no ledger, the file cannot be written, or 'parquet' needs pyarrow.
    """
    write = {"csv": _write_csv, "jsonl": _write_json_lines, "parquet": _write_parquet}[kind]
    with _opened(out) as (database, labels):
        rows = (parse(line, labels) for (line,) in database.execute(_CURRENT))
        with _target(to) as file:
            return write(file, labels, filter(wanted.takes, rows))


@contextmanager
def _opened(out: Path) -> Iterator[tuple[sqlite3.Connection, tuple[str, ...]]]:
    ledger = out / "ledger.sqlite"
    if not ledger.is_file():
        raise NothingFound(f"{out} holds no ledger", "name the output folder of a scan")
    try:
        with closing(sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            row = database.execute("SELECT value FROM meta WHERE key = 'header'").fetchone()
            if version != VERSION or not row:
                raise UsageError(f"{ledger} is of another version of cxr-edge", "run a scan into a new output folder")
            columns = row[0].strip().split(",")
            yield database, tuple(name.removeprefix("p_") for name in columns[len(BEFORE) : -len(AFTER)])
    except sqlite3.Error as error:
        raise CxrEdgeError(f"{ledger} cannot be read: {error}", "wait for the sweep to end, then try again") from error


@contextmanager
def _target(to: Path | None) -> Iterator[BinaryIO]:
    if to is None:
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    temp = to.with_name(f".{to.name}.tmp")
    try:
        with temp.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(to)
    except OSError as error:
        temp.unlink(missing_ok=True)
        raise unwritable(to, error) from error
    except BaseException:
        temp.unlink(missing_ok=True)
        raise


def _write_csv(file: BinaryIO, labels: tuple[str, ...], rows: Iterator[Row]) -> int:
    file.write(header(labels).encode())
    return _count(rows, lambda row: file.write(render(row, labels).encode()))


def _write_json_lines(file: BinaryIO, labels: tuple[str, ...], rows: Iterator[Row]) -> int:
    return _count(rows, lambda row: file.write(json.dumps(_cells(row, labels)).encode() + b"\n"))


def _write_parquet(file: BinaryIO, labels: tuple[str, ...], rows: Iterator[Row]) -> int:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("Parquet needs an extra", "pip install 'cxr-edge[parquet]'") from error
    numbers = {"confidence", "lung_area_pct", "affected_pct", "ms", *(f"p_{label}" for label in labels)}
    kinds = dict.fromkeys(numbers, pyarrow.float64()) | dict.fromkeys(("width", "height"), pyarrow.int32())
    columns = [*BEFORE, *(f"p_{label}" for label in labels), *AFTER]
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in columns])
    count = 0
    with parquet.ParquetWriter(file, schema) as writer:
        while piece := [_cells(row, labels) for row in islice(rows, PARQUET_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(piece, schema))
            count += len(piece)
    return count


def _count(rows: Iterator[Row], write: Callable[[Row], object]) -> int:
    count = 0
    for row in rows:
        write(row)
        count += 1
    return count


def _cells(row: Row, labels: tuple[str, ...]) -> dict[str, Any]:
    """A row by column; numbers as numbers, None for an empty cell."""
    probabilities = row.probabilities or (None,) * len(labels)
    cells: dict[str, Any] = {name: getattr(row, name) for name in BEFORE}
    cells |= {f"p_{label}": p for label, p in zip(labels, probabilities, strict=True)}
    cells |= {name: getattr(row, name) for name in AFTER}
    cells["status"] = row.status.value
    cells["reason_code"] = row.reason_code.value if row.reason_code else None
    # A picture that was never opened has no size; any other number may well be nought.
    empty = {"width": 0, "height": 0}
    return {name: None if cell == empty.get(name, "") else cell for name, cell in cells.items()}
