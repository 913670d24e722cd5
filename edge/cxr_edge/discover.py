"""What is in the folder: a stream of regular files, in a stable order, without those that somebody is still writing.

Links, sockets and pipes are not followed. Hidden files are left alone: a name with a leading dot is how rsync and
scp clients mark a file that is still being copied.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from stat import S_ISREG

SORTED_AT_ONCE = 10_000
"""Entries of one folder that are sorted together: some megabytes. A larger folder comes in sorted pieces."""
WAITING_AT_MOST = 10_000


@dataclass(frozen=True)
class FoundFile:
    """One file: where it is, its name in rows (relative, '/' separated, printable), size in bytes, time in ns."""

    path: Path
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Notice:
    """What a person should know of a directory or file, and no row says."""

    path: str
    text: str


def discover(
    folder: Path, *, leave_out: Path, warn: Callable[[Notice], None], start: Path | None = None
) -> Iterator[FoundFile]:
    """Walk `folder`, each directory's entries by name, subdirectories in their place.

    Args:
        leave_out: a directory that is not entered: the sweep's own output.
        warn: told of each directory that cannot be read, and why.
        start: a directory inside of `folder` that alone is walked.
    """
    folder, left_out = folder.resolve(), str(leave_out.resolve())
    skipped = len(str(folder).rstrip("/")) + 1
    # A stack of listings, not recursion: a path may have more levels than Python's stack.
    levels = [_listing(str(folder / (start or "")), warn)]
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        try:
            if entry.is_dir(follow_symlinks=False):
                if entry.path != left_out:
                    levels.append(_listing(entry.path, warn))
            elif entry.is_file(follow_symlinks=False):
                stat = entry.stat(follow_symlinks=False)
                yield FoundFile(Path(entry.path), printable(entry.path[skipped:]), stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            continue  # it vanished between the listing and the look
        except OSError as error:
            warn(Notice(printable(entry.path), f"cannot be looked at: {error.strerror}"))


def find(folder: Path, path: Path) -> FoundFile | None:
    """One file of `folder`, below which `path` lies, as `discover` would find it; None for what it would pass over."""
    try:
        stat = path.lstat()
    except OSError:
        return None
    if not S_ISREG(stat.st_mode):
        return None
    return FoundFile(path, printable(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns)


def _listing(directory: str, warn: Callable[[Notice], None]) -> Iterator[os.DirEntry[str]]:
    piece: list[os.DirEntry[str]] = []
    try:
        with os.scandir(directory) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            # The directory stays open only while there is more of it: a path may have more levels than open files.
            while len(piece := _sorted_piece(visible)) == SORTED_AT_ONCE:
                yield from piece
    except OSError as error:
        warn(Notice(printable(directory), f"cannot be listed: {error.strerror}"))
    yield from piece


def _sorted_piece(entries: Iterator[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    return sorted(islice(entries, SORTED_AT_ONCE), key=lambda entry: entry.name)


def settled(
    files: Iterable[FoundFile], seconds: float, left: Callable[[], None], stop: Callable[[], bool]
) -> Iterator[FoundFile]:
    """Pass on files that nobody has written to for so many seconds; wait for younger ones, to look at them once more.

    Args:
        seconds: by the file's own time, or, where the clocks disagree, between two looks at the same size and time.
        left: called for each file that was not the same at the second look.
        stop: asked while waiting; once true, nothing more is passed on of those that wait.
    """
    waiting: deque[tuple[float, FoundFile]] = deque()

    def ripe(most: int) -> Iterator[FoundFile]:
        while waiting and (len(waiting) > most or waiting[0][0] <= time.monotonic()):
            due, found = waiting.popleft()
            while (rest := due - time.monotonic()) > 0 and not stop():
                time.sleep(min(rest, 0.1))
            if stop():
                return
            if _same(found):
                yield found
            else:
                left()

    for found in files:
        yield from ripe(WAITING_AT_MOST)
        # A time in the future tells nothing: a clock was set, here or where the file was made.
        if 0 <= time.time_ns() - found.mtime_ns < seconds * 1e9:
            waiting.append((time.monotonic() + seconds, found))
        else:
            yield found
    yield from ripe(0)


def _same(found: FoundFile) -> bool:
    try:
        now = found.path.lstat()
    except OSError:
        return False
    return (now.st_size, now.st_mtime_ns) == (found.size, found.mtime_ns)


def printable(path: Path | str) -> str:
    """A path as text that UTF-8 can hold: '/' separated, bytes that are no UTF-8 as backslash escapes."""
    text = path if isinstance(path, str) else path.as_posix()
    return os.fsencode(text).replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
