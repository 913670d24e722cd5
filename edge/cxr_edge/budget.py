"""Memory for pictures in hand: one number of bytes that all workers share, so that large ones wait for their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cxr_edge import machine

DEFAULT_BYTES = 192 * 2**20
"""With the 90 MiB of the program, its model and its decoders this leaves two fifths of a 512 MB box to others."""
LEAST_BYTES = 16 * 2**20
ISOLATE_FROM_BYTES = 96 * 2**20
"""Processes for decoders take 23 MiB. With 96 MiB a sweep is as fast as with any more, with 64 they are killed."""


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


def default_budget() -> int:
    """Bytes for pictures in hand where nobody says: `DEFAULT_BYTES`, or half of what this process may use if less."""
    return max(LEAST_BYTES, min(DEFAULT_BYTES, usable_memory() // 2))


def isolates_by_default() -> bool:
    """Whether decoders run in processes of their own where nobody says: where there is memory for them."""
    return usable_memory() >= ISOLATE_FROM_BYTES


def usable_memory() -> int:
    """Bytes that this process may use: the machine's memory, or its cgroup's limit if less; much where nobody tells."""
    limits = [machine.memory().get("MemTotal"), machine.memory_limit()]
    return min((limit for limit in limits if limit is not None), default=2**40)
