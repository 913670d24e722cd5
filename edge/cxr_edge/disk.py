"""What the disk under an output folder does: what a sweep asks of it, tried on files that are gone afterwards."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

VOLATILE = ("tmpfs", "ramfs")
REMOTE = ("nfs", "cifs", "smb", "9p", "fuse.sshfs", "ceph", "glusterfs", "afs")
"""How the names of file systems begin that another machine keeps."""
BYTES_PER_FILE = 16 * 1024
"""What a judged file leaves, with room for large pictures: one of a megapixel left 6 KiB (docs/sizing.md)."""


@dataclass(frozen=True)
class Probe:
    """What was found: free bytes, milliseconds of one fsync, and what the file system does not do."""

    free_bytes: int
    fsync_ms: float
    broken: tuple[str, ...]


def nearest(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    place = folder.absolute()
    return next((each for each in (place, *place.parents) if each.is_dir()), place)


def probe(folder: Path) -> Probe:
    """Write, sync, rename over, lock and open a database, as a sweep does.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=".cxr-edge-doctor-", dir=folder) as temp:
        work = Path(temp)
        old, new = work / "old", work / "new"
        old.write_bytes(b"old")
        with new.open("wb") as file:
            file.write(b"new" * 1000)
            file.flush()
            start = time.perf_counter()
            os.fsync(file.fileno())
            fsync_ms = 1000 * (time.perf_counter() - start)
        broken = [
            name for name, works in (("rename", _renames), ("locks", _locks), ("SQLite", _databases)) if not works(work)
        ]
        return Probe(shutil.disk_usage(folder).free, fsync_ms, tuple(broken))


def _renames(work: Path) -> bool:
    """A rename over an existing file, and a folder that can be synced, which makes it durable."""
    try:
        (work / "new").replace(work / "old")
        descriptor = os.open(work, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return (work / "old").read_bytes() == b"new" * 1000 and not (work / "new").exists()
    except OSError:
        return False


def _locks(work: Path) -> bool:
    """A lock that keeps a second one out. Some network shares let both in, or none."""
    with (work / "lock").open("wb") as first, (work / "lock").open("wb") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


def _databases(work: Path) -> bool:
    """The ledger's database, with the locks of its own."""
    try:
        database = sqlite3.connect(work / "ledger.sqlite")
        try:
            database.execute("PRAGMA synchronous = FULL")
            with database:
                database.execute("CREATE TABLE kept (value)")
                database.execute("INSERT INTO kept VALUES (1)")
            return bool(database.execute("SELECT value FROM kept").fetchone() == (1,))
        finally:
            database.close()
    except sqlite3.Error:
        return False
