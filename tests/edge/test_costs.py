"""What a sweep costs, counted and not timed: calls, opened files, syncs, renames, statements, memory of Python's own.

The bands are a little above what was counted when they were set; a change that crosses one does more work for each
file than before, and either mends that or moves the band and says why.
"""

from __future__ import annotations

import cProfile
import io
import os
import pstats
import sqlite3
import sys
import threading
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cxr_edge import model_file
from cxr_edge.phantom import draw
from cxr_edge.sweep import Settings, Sweep
from cxr_edge.worker import Worker

FILES = 40
KNOWN = 3000
EVENTS: Counter[str] = Counter()
_watching = threading.Event()


def _count(event: str, _: tuple[Any, ...]) -> None:
    if _watching.is_set() and event in ("open", "os.rename", "os.scandir", "os.mkdir"):
        EVENTS[event] += 1


sys.addaudithook(_count)


@dataclass(frozen=True)
class Cost:
    """Of one sweep: function calls in the calling thread and in the worker's, events, syncs, SQL statements, and the
    peak of Python's own memory, bytes."""

    calls: int
    events: Counter[str]
    syncs: int
    statements: int
    peak: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """So many radiographs, all different."""
    base = draw(1, width=300, height=300).image
    (tmp_path / "in").mkdir()
    for number in range(FILES):
        content = io.BytesIO()
        changed = base.copy()
        changed[0, number] ^= 1
        Image.fromarray(changed).save(content, "PNG")
        (tmp_path / "in" / f"{number:03d}.png").write_bytes(content.getvalue())
    return tmp_path / "in"


def cost(folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> Cost:
    """Sweep with one worker that decodes in this process, and count."""
    syncs, statements = 0, 0
    fsync, work, connect = os.fsync, Worker.work, sqlite3.connect
    worker, caller = cProfile.Profile(), cProfile.Profile()

    def counted_sync(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        fsync(descriptor)

    def counted_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        def executed(_: str) -> None:
            nonlocal statements
            statements += 1

        database: sqlite3.Connection = connect(*arguments, **options)
        database.set_trace_callback(executed)
        return database

    def profiled(self: Worker, *arguments: Any, **options: Any) -> Any:
        worker.enable()
        try:
            return work(self, *arguments, **options)
        finally:
            worker.disable()

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted_sync)
        patch.setattr(sqlite3, "connect", counted_connect)
        patch.setattr(Worker, "work", profiled)
        EVENTS.clear()
        model = model_file.read(model_file.SHIPPED)
        with Sweep(folder, out, model, Settings(workers=1, isolate=False)) as sweep:
            tracemalloc.start()
            _watching.set()
            caller.enable()
            tally = sweep.run()
            caller.disable()
            _watching.clear()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert tally.found == tally.judged + tally.known
    calls = sum(pstats.Stats(profile).total_calls for profile in (worker, caller) if profile.getstats())  # type: ignore[attr-defined]
    return Cost(calls, Counter(EVENTS), syncs, statements, peak)


def test_a_judged_file_costs_no_more_than_it_did(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost(folder, tmp_path / "warm", monkeypatch)  # imports are no part of it
    taken = cost(folder, tmp_path / "out", monkeypatch)
    assert taken.events["os.rename"] == FILES  # each mask
    assert taken.events["open"] <= 4 * FILES + 40  # the file, its mask, folders to be synced; the model's engine
    assert taken.syncs <= FILES + 12  # each mask, and a batch's CSV and folders
    assert taken.statements <= 6 * FILES + 12  # known, twin, verdict, file; and what makes a transaction
    assert taken.calls <= 2200 * FILES
    assert taken.peak < 6 * 2**20


def test_a_known_file_costs_no_more_than_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(KNOWN):
        (folder / f"{number:04d}.txt").write_bytes(b"%d" % number)
    cost(folder, tmp_path / "out", monkeypatch)
    taken = cost(folder, tmp_path / "out", monkeypatch)
    assert taken.events == {"os.scandir": 1}
    assert taken.syncs <= 2
    assert taken.statements <= KNOWN + 20
    assert taken.calls <= 70 * KNOWN
    assert taken.peak < 8 * 2**20  # the profiler's own included
