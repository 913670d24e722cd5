"""A process from outside: how long it took, and the most memory that it and its children had. Linux."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two looks at the memory. The kernel keeps each process's peak: only its last moments are missed."""

LIMIT = 3600
"""Seconds after which a process is taken to hang, and killed."""


@dataclass(frozen=True)
class Run:
    """`seconds` from start to end; `peak` MiB, the sum of VmHWM over all processes; `status` as subprocess has it."""

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
        peaks: dict[int, int] = {}
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
        watch.start()
        try:
            status = process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        seconds = time.perf_counter() - start
        ended.set()
        watch.join()
    return Run(seconds, sum(peaks.values()) / 1024, status)


def _watch(root: int, peaks: dict[int, int], ended: threading.Event) -> None:
    while not ended.is_set():
        _look(root, peaks)
        ended.wait(INTERVAL)


def _look(pid: int, peaks: dict[int, int]) -> None:
    """Note the peak of a process and of all its children, KiB, while they are there."""
    try:
        peaks[pid] = max(peaks.get(pid, 0), high_water(Path(f"/proc/{pid}/status").read_text()))
        children = [task.read_text().split() for task in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:  # it has just ended
        return
    for child in (int(each) for some in children for each in some):
        _look(child, peaks)


def high_water(status: str) -> int:
    """VmHWM of a /proc/PID/status, KiB; 0 where there is none (a process that has ended, but was not waited for)."""
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
