"""What this process may use: cores, and memory.

Pictures in hand share one number of bytes, so that large ones wait for their turn.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_BYTES = 192 * 2**20
"""With the 60 to 80 MiB of the program, its model and its decoders this leaves half of a 512 MB box to others."""
LEAST_BYTES = 16 * 2**20


class Budget:
    """`total` bytes, of which threads hold shares. First come, first served: a large picture is not passed for ever."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, need: int) -> Iterator[None]:
        """Wait for `need` bytes, at most `total`, and hold them while the context lasts.

        Raises:
            ValueError: they are more than there will ever be.
        """
        if need > self.total:
            raise ValueError(f"{need} bytes are over the budget of {self.total}")
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._free >= need)
            self._free -= need
        try:
            yield
        finally:
            with self._changed:
                self._free += need
                self._changed.notify_all()


def default_budget(root: Path = Path("/")) -> int:
    """Bytes for pictures in hand where nobody says: `DEFAULT_BYTES`, or half of what this process may use if less."""
    return max(LEAST_BYTES, min(DEFAULT_BYTES, memory_limit(root) // 2))


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's memory, or its memory cgroup's limit (v1 and v2) if less.

    Args:
        root: where `proc` and `sys` are found.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not on macOS
        return limits[0]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = root / "sys/fs/cgroup" / controllers
        file = "memory.limit_in_bytes" if controllers else "memory.max"
        group = base / path.lstrip("/")
        # A container sees its own group as the mount's root, whatever the path says. Every ancestor limits as well.
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(base)), base):
            try:
                limits.append(int((folder / file).read_text()))
            except (OSError, ValueError):  # "max", or not there
                continue
    return min(limits)


def cores() -> int:
    """Cores that this process may use, which a container or taskset can make fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
