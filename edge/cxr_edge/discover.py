"""What is in the folder: a stream of regular files, in a stable order.

Links, sockets and pipes are not followed. Hidden files are left alone: a name with a leading dot is how rsync and
scp clients mark a file that is still being copied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FoundFile:
    """One file: where it is, its name in rows (relative, '/' separated, printable), size in bytes, time in ns."""

    path: Path
    name: str
    size: int
    mtime_ns: int


def discover(folder: Path, *, leave_out: Path, warn: Callable[[str], None]) -> Iterator[FoundFile]:
    """Walk `folder`, each directory's entries by name, subdirectories in their place.

    Args:
        leave_out: a directory that is not entered: the sweep's own output.
        warn: told of each directory that cannot be read, and why.
    """
    yield from _walk(folder, folder, leave_out.resolve(), warn)


def _walk(directory: Path, root: Path, leave_out: Path, warn: Callable[[str], None]) -> Iterator[FoundFile]:
    try:
        with os.scandir(directory) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        warn(f"{directory}: cannot be listed: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                if path.resolve() != leave_out:
                    yield from _walk(path, root, leave_out, warn)
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                yield FoundFile(path, printable(path.relative_to(root)), stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            continue  # it vanished between the listing and the look


def printable(path: Path) -> str:
    """A path as text that UTF-8 can hold: '/' separated, bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")
