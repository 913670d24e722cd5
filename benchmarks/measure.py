"""A process from outside: how long it took, and the most memory that it and its children had together. Linux.

Memory is the sum of their proportional set sizes (proc(5), smaps_rollup): pages that they share count once.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_edge import machine

INTERVAL = 0.2
"""Seconds between two looks at the memory. A look costs a process with many libraries some milliseconds."""

LIMIT = 3600
"""Seconds after which a process is taken to hang, and killed."""


@dataclass(frozen=True)
class Run:
    """`seconds` from start to end; `peak` MiB, of all processes together; `status` as subprocess has it."""

    seconds: float
    peak: float
    status: int


def run(command: Sequence[str], folder: Path, log: Path, extra: Mapping[str, str] | None = None) -> Run:
    """Run a command to its end in `folder`; what it says goes to `log`."""
    # A PYTHONPATH of the caller's would put his packages before those of the command's own environment.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | dict(extra or {})
    with log.open("wb") as said:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        looks: list[float] = []
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, looks, ended))
        watch.start()
        late = threading.Timer(LIMIT, process.kill)
        late.start()
        status = process.wait()  # with a limit of its own it would look only every 50 ms
        seconds = time.perf_counter() - start
        late.cancel()
        ended.set()
        watch.join()
    return Run(seconds, max(looks, default=0.0), status)


def _watch(root: int, looks: list[float], ended: threading.Event) -> None:
    while not ended.is_set():
        looks.append(machine.memory_of_family(root))
        ended.wait(INTERVAL)
