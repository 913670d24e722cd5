"""What has been judged, across nights and crashes.

    OUT/ledger.sqlite   table `verdicts`: each CSV line, by (path, sha256, model);
                        table `files`: each path as last seen; table `meta`: the CSV's header line
    OUT/verdicts.csv    the header and the same lines, in the order of their ids

Invariant: verdicts.csv begins with the header and the lines of `verdicts`, byte for byte. A batch is appended to the
CSV and synced first, then committed. A crash in between leaves a tail that nobody committed; the next start cuts it
off, and those files are judged again. A CSV that somebody edited, or whose ledger is lost, is kept aside and written
anew. One thread, one process (see `lock.py`).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from cxr_edge.discover import FoundFile
from cxr_edge.errors import OutputUnwritable, Reason, UsageError
from cxr_edge.outputs import Row, header, render, sync_folder, unwritable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    id INTEGER PRIMARY KEY, path TEXT, sha256 TEXT, model TEXT, reason_code TEXT, line TEXT,
    UNIQUE (path, sha256, model));
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT, model TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Known:
    """What the ledger knows of a path under this model: its content, whether the file looks untouched, its reason."""

    sha256: str
    untouched: bool
    reason_code: str


class Ledger:
    """The ledger and the CSV of one output folder, which it keeps in step. Use as a context manager."""

    def __init__(self, out: Path, labels: tuple[str, ...], model: str) -> None:
        """Open or make both, and repair the CSV after a crash.

        Raises:
            OutputUnwritable: they cannot be opened or written.
            UsageError: the folder holds verdicts of a model with other labels.
        """
        self._labels, self._model = labels, model
        self._out, self._csv_path = out, out / "verdicts.csv"
        try:
            self._database = sqlite3.connect(out / "ledger.sqlite")
            self._database.execute("PRAGMA synchronous = FULL")
            with self._database:
                self._database.executescript(_SCHEMA)
            self._check_labels()
            self._repair()
            # Unbuffered: what a full disk refuses must not be tried again when the file is closed.
            self._csv = self._csv_path.open("ab", buffering=0)
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(out, error) from error

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._csv.close()
        self._database.close()

    def known(self, found: FoundFile) -> Known | None:
        """What is known of a found file under this model; None for one never judged, or that could not be read."""
        row = self._database.execute(
            "SELECT f.sha256, f.size = ? AND f.mtime_ns = ?, v.reason_code FROM files f"
            " JOIN verdicts v ON v.path = f.path AND v.sha256 = f.sha256 AND v.model = f.model"
            " WHERE f.path = ? AND f.model = ?",
            (found.size, found.mtime_ns, found.name, self._model),
        ).fetchone()
        return Known(row[0], bool(row[1]), row[2]) if row else None

    def record(self, batch: Iterable[tuple[FoundFile, Row | None]]) -> None:
        """Commit a batch: rows to the CSV and the ledger, at once or not at all.

        A row of None says that the file was touched, but its content is as known. A file that could not be read is
        not remembered as seen, so it is tried again; a row for the same content is not written twice.

        Raises:
            OutputUnwritable: the disk is full or gone; nothing of the batch is recorded then.
        """
        try:
            with self._database:
                lines: list[str] = []
                folders: set[Path] = set()
                for found, row in batch:
                    if row is None:
                        self._see(found)
                        continue
                    line = render(row, self._labels)
                    code = row.reason_code.value if row.reason_code else ""
                    added = self._database.execute(
                        "INSERT OR IGNORE INTO verdicts VALUES (NULL, ?, ?, ?, ?, ?)",
                        (row.path, row.sha256, row.model, code, line),
                    ).rowcount
                    if added:
                        lines.append(line)
                    if row.mask:
                        # Up to the output folder: a new folder's own name must be durable as well.
                        folders.update(self._out / folder for folder in Path(row.mask).parents)
                    if row.reason_code is not Reason.UNREADABLE:
                        self._remember(found, row.sha256)
                for folder in folders:
                    sync_folder(folder)
                self._append("".join(lines).encode())
        except (OSError, sqlite3.Error) as error:
            raise _unwritable(self._out, error) from error

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._csv.write(rest) :]
        os.fsync(self._csv.fileno())

    def _see(self, found: FoundFile) -> None:
        self._database.execute(
            "UPDATE files SET size = ?, mtime_ns = ? WHERE path = ?", (found.size, found.mtime_ns, found.name)
        )

    def _remember(self, found: FoundFile, sha256: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)",
            (found.name, found.size, found.mtime_ns, sha256, self._model),
        )

    def _check_labels(self) -> None:
        if self._stored_header() not in (None, header(self._labels)):
            raise UsageError(
                f"{self._out} holds verdicts of a model with other labels", "choose another output folder with -o"
            )

    def _stored_header(self) -> str | None:
        row = self._database.execute("SELECT value FROM meta WHERE key = 'header'").fetchone()
        return str(row[0]) if row else None

    def _repair(self) -> None:
        """Make the CSV what the ledger says: cut an uncommitted tail, or write a CSV anew that is not ours any more.

        A ledger without a header is new: whatever CSV lies there is not its own.
        """
        if self._stored_header() and (committed := self._committed_length()) is not None:
            os.truncate(self._csv_path, committed)
            return
        if self._csv_path.exists():
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            self._csv_path.replace(self._csv_path.with_name(f"verdicts.edited-{stamp}.csv"))
        temp = self._csv_path.with_name(".verdicts.csv.tmp")
        with temp.open("wb") as file:
            for line in self._lines():
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(self._csv_path)
        sync_folder(self._out)
        with self._database:
            self._database.execute("INSERT OR IGNORE INTO meta VALUES ('header', ?)", (header(self._labels),))

    def _committed_length(self) -> int | None:
        """Bytes of the CSV that the ledger knows, if it begins with them; None if it does not."""
        try:
            with self._csv_path.open("rb") as file:
                for line in self._lines():
                    if file.read(len(line)) != line:
                        return None
                return file.tell()
        except FileNotFoundError:
            return None

    def _lines(self) -> Iterator[bytes]:
        yield header(self._labels).encode()
        for (line,) in self._database.execute("SELECT line FROM verdicts ORDER BY id"):
            yield line.encode()


def _unwritable(out: Path, error: Exception) -> OutputUnwritable:
    return unwritable(out, error if isinstance(error, OSError) else OSError(str(error)))
