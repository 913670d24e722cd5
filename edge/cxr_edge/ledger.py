"""What has been judged, across nights and crashes.

    OUT/ledger.sqlite   table `verdicts`: each CSV line, by (path, sha256, model);
                        table `files`: each path as last seen; table `meta`: the CSV's header line
    OUT/verdicts.csv    the header and the same lines, in the order of their ids

Invariant: verdicts.csv begins with the header and the lines of `verdicts`, byte for byte. A batch is appended to the
CSV and synced first, then committed. A crash in between leaves a tail that nobody committed; the next start cuts it
off, and those files are judged again. A CSV that somebody edited, or whose ledger is lost, is kept aside and written
anew. One process at a time (see `lock.py`), of which any thread may ask.

A verdict that another one replaces (`scan --again`) is first marked, so that the invariant stands. When the sweep ends,
or the next one starts, the CSV is written anew without the marked lines and renamed into place; then they are deleted.
A crash in between leaves a CSV that lacks just them, which the next start recognises.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from cxr_edge.discover import FoundFile
from cxr_edge.errors import OutputUnwritable, Reason, Status, UsageError
from cxr_edge.outputs import Row, header, parse, render, sync_folder, unwritable

VERSION = 2
_SCHEMA = f"""
BEGIN;
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (
    id INTEGER PRIMARY KEY, path TEXT, sha256 TEXT, model TEXT, status TEXT, reason_code TEXT, line TEXT,
    mask_sha256 TEXT, replaced INTEGER DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS one_verdict ON verdicts (path, sha256, model) WHERE NOT replaced;
CREATE INDEX IF NOT EXISTS by_content ON verdicts (sha256, model) WHERE NOT replaced AND status != 'failed';
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT, model TEXT) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Known:
    """What the ledger knows of a path under this model: its content, whether the file looks untouched, its outcome."""

    sha256: str
    untouched: bool
    status: Status
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
        self._turn = threading.Lock()
        try:
            self._database = sqlite3.connect(out / "ledger.sqlite", check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA cache_size = -512")  # KiB: a long ledger takes no more than a short one
            self._check_version()
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
        try:
            if kind is None:
                self._drop_replaced()
        except (OSError, sqlite3.Error) as problem:
            raise _unwritable(self._out, problem) from problem
        finally:
            self._csv.close()
            self._database.close()

    def known(self, found: FoundFile) -> Known | None:
        """What is known of a found file under this model; None for one never judged, or that could not be read."""
        with self._turn:
            row = self._database.execute(
                "SELECT f.sha256, f.size = ? AND f.mtime_ns = ?, v.status, v.reason_code FROM files f"
                " JOIN verdicts v ON v.path = f.path AND v.sha256 = f.sha256 AND v.model = f.model AND NOT v.replaced"
                " WHERE f.path = ? AND f.model = ?",
                (found.size, found.mtime_ns, found.name, self._model),
            ).fetchone()
        return Known(row[0], bool(row[1]), Status(row[2]), row[3]) if row else None

    def twin(self, sha256: str) -> tuple[Row, str] | None:
        """A verdict on the same content under this model, of whatever path, and the SHA-256 of its mask ("" for none).

        None where there is none, or only failures, which may have had other causes than the content.
        """
        with self._turn:
            found = self._database.execute(
                "SELECT line, mask_sha256 FROM verdicts"
                " WHERE sha256 = ? AND model = ? AND NOT replaced AND status != 'failed' LIMIT 1",
                (sha256, self._model),
            ).fetchone()
        return (parse(found[0], self._labels), found[1]) if found else None

    def record(self, batch: Iterable[tuple[FoundFile, Row | None]], again: frozenset[Status] = frozenset()) -> None:
        """Commit a batch: rows to the CSV and the ledger, at once or not at all.

        A row of None says that the file was touched, but its content is as known. A file that could not be read is
        not remembered as seen, so it is tried again.

        Args:
            again: a row for the same path, content and model replaces one of these statuses, as it does one whose
                content could not be read; any other it leaves alone.

        Raises:
            OutputUnwritable: the disk is full or gone; nothing of the batch is recorded then.
        """
        try:
            with self._turn, self._database:
                lines: list[str] = []
                folders: set[Path] = set()
                for found, row in batch:
                    if row is None:
                        self._see(found)
                        continue
                    if line := self._add(row, again):
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

    def _add(self, row: Row, again: frozenset[Status]) -> str:
        """Add a verdict; return its line, or "" where one stands already."""
        line, code = render(row, self._labels), row.reason_code.value if row.reason_code else ""
        key = (row.path, row.sha256, row.model)
        for status in again:
            self._database.execute(
                "UPDATE verdicts SET replaced = 1 WHERE path = ? AND sha256 IN (?, '') AND model = ? AND status = ?",
                (*key, status.value),
            )
        added = self._database.execute(
            "INSERT OR IGNORE INTO verdicts (path, sha256, model, status, reason_code, line, mask_sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*key, row.status.value, code, line, row.mask_sha256),
        ).rowcount
        return line if added else ""

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

    def _check_version(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        tables = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and version != VERSION:
            raise UsageError(
                f"{self._out} holds the ledger of another version of cxr-edge", "choose another output folder with -o"
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
        if self._stored_header():
            for with_replaced in (True, False):
                if (committed := self._committed_length(with_replaced=with_replaced)) is not None:
                    os.truncate(self._csv_path, committed)
                    self._drop_replaced()
                    return
        if self._csv_path.exists():
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            self._csv_path.replace(self._csv_path.with_name(f"verdicts.edited-{stamp}.csv"))
        self._write_anew()

    def _drop_replaced(self) -> None:
        """Remove the verdicts that others have replaced, from the CSV first."""
        if self._database.execute("SELECT 1 FROM verdicts WHERE replaced LIMIT 1").fetchone():
            self._write_anew()

    def _write_anew(self) -> None:
        temp = self._csv_path.with_name(".verdicts.csv.tmp")
        with temp.open("wb") as file:
            for line in self._lines(with_replaced=False):
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(self._csv_path)
        sync_folder(self._out)
        with self._database:
            self._database.execute("DELETE FROM verdicts WHERE replaced")
            self._database.execute("INSERT OR IGNORE INTO meta VALUES ('header', ?)", (header(self._labels),))

    def _committed_length(self, *, with_replaced: bool) -> int | None:
        """Bytes of the CSV that the ledger knows, if it begins with them; None if it does not."""
        try:
            with self._csv_path.open("rb") as file:
                for line in self._lines(with_replaced=with_replaced):
                    if file.read(len(line)) != line:
                        return None
                return file.tell()
        except FileNotFoundError:
            return None

    def _lines(self, *, with_replaced: bool) -> Iterator[bytes]:
        yield header(self._labels).encode()
        query = "SELECT line FROM verdicts WHERE ? OR NOT replaced ORDER BY id"
        for (line,) in self._database.execute(query, (with_replaced,)):
            yield line.encode()


def _unwritable(out: Path, error: Exception) -> OutputUnwritable:
    return unwritable(out, error if isinstance(error, OSError) else OSError(str(error)))
