"""What arrives in a folder, as it arrives: by inotify where the kernel sees it, by looking again and again elsewhere.

A file that was written to its end or renamed in is told by its name, a new directory by its own; whenever something
may have been missed (and once an hour in any case) everything is told. So nothing depends on an event coming through:
at worst a file is judged an hour late.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cxr_edge import machine

POLL_SECONDS = 30.0
"""Between two looks at a folder of which the kernel tells nothing."""
WALK_SECONDS = 3600.0
"""Between two looks at everything where the kernel does."""
REMOTE = ("nfs", "cifs", "smb", "9p", "ceph", "gluster", "lustre", "afs", "ncpfs", "fuse", "virtiofs", "vboxsf")
"""File systems whose files others change: inotify sees only what this machine does. Beginnings of their names."""

_CLOSE_WRITE, _MOVED_TO, _CREATE, _IGNORED = 0x8, 0x80, 0x100, 0x8000
_OVERFLOW, _ONLY_DIRECTORIES, _IS_DIRECTORY = 0x4000, 0x01000000, 0x40000000
_EVENT = struct.Struct("iIII")
"""linux/inotify.h: watch descriptor, mask, cookie, length of the name that follows."""


class Watch:
    """What changes in a folder and its subfolders. Use as a context manager, from one thread."""

    def __init__(self, folder: Path, leave_out: Path) -> None:
        """Begin to watch. What changes from here on is told by `changes`.

        Args:
            leave_out: a directory that is not watched: the sweep's own output.
        """
        self._folder, self._left_out = folder.resolve(), leave_out.resolve()
        self._directories: dict[int, Path] = {}
        self._descriptor = -1
        if machine.filesystem(self._folder).startswith(REMOTE):
            return
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
            self._add_watch = libc.inotify_add_watch
        except (OSError, AttributeError):  # not Linux
            return
        if self._descriptor >= 0 and not self._add(self._folder):
            self._close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def polls(self) -> bool:
        """Whether the kernel tells nothing of this folder."""
        return self._descriptor < 0

    def changes(self, stop: Callable[[], object]) -> Iterator[Path]:
        """Wait until something arrives; yield files and directories, or the folder itself: anything may be new.

        Yields nothing once `stop` is true.
        """
        deadline = time.monotonic() + (POLL_SECONDS if self.polls else WALK_SECONDS)
        while not stop():
            rest = deadline - time.monotonic()
            if rest <= 0:
                yield self._folder
                return
            if self.polls:
                time.sleep(min(rest, 0.5))
            elif select.select([self._descriptor], [], [], min(rest, 0.5))[0]:
                yield from dict.fromkeys(self._events())
                return

    def _events(self) -> Iterator[Path]:
        data = os.read(self._descriptor, 65536)
        position = 0
        while position < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size + length
            name = os.fsdecode(data[position - length : position].rstrip(b"\0"))
            if mask & _OVERFLOW:
                yield self._folder
            elif mask & _IGNORED:
                self._directories.pop(watch, None)
            elif watch in self._directories and not name.startswith("."):
                path = self._directories[watch] / name
                if not mask & _IS_DIRECTORY:
                    if mask & (_CLOSE_WRITE | _MOVED_TO):
                        yield path
                elif path != self._left_out:
                    # Watched first, told then: what arrives in between is seen by one of the two.
                    if not self._add(path):
                        self._close()
                    yield path

    def _add(self, top: Path) -> bool:
        """Watch a directory and all below; False where there are more than the system allows to be watched."""
        mask = _CLOSE_WRITE | _MOVED_TO | _CREATE | _ONLY_DIRECTORIES
        for directory, below, _ in os.walk(top):
            path = Path(directory)
            below[:] = [name for name in below if not name.startswith(".") and path / name != self._left_out]
            watch = self._add_watch(self._descriptor, os.fsencode(directory), mask)
            if watch >= 0:
                self._directories[watch] = path
            elif path == self._folder or os.path.lexists(directory):
                return False
        return True

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
