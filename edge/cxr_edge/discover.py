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
    folder, left_out = folder.resolve(), leave_out.resolve()
    # A stack of listings, not recursion: a path may have more levels than Python's stack.
    levels = [_listing(folder, warn)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        path = Path(entry.path)
        try:
            if entry.is_dir(follow_symlinks=False):
                if path != left_out:
                    levels.append(_listing(path, warn))
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                yield FoundFile(path, printable(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            continue  # it vanished between the listing and the look
        except OSError as error:
            warn(f"{path}: cannot be looked at: {error.strerror}")


def _listing(directory: Path, warn: Callable[[str], None]) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as listing:
            return iter(sorted((e for e in listing if not e.name.startswith(".")), key=lambda entry: entry.name))
    except OSError as error:
        warn(f"{directory}: cannot be listed: {error.strerror}")
        return iter(())


def printable(path: Path) -> str:
    """A path as text that UTF-8 can hold: '/' separated, bytes that are no UTF-8 as backslash escapes."""
    return os.fsencode(path.as_posix()).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
