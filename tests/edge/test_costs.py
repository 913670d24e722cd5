"""What a sweep costs, counted and not timed: calls, opened files, syncs, renames, statements, memory of Python's own.

The bands are a little above what was counted when they were set; a change that crosses one does more work for each
file than before, and either mends that or moves the band and says why.
"""

from __future__ import annotations

import io
import itertools
import os
import sqlite3
import sys
import threading
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from PIL import Image

from cxr_edge import model_file
from cxr_edge.phantom import draw
from cxr_edge.sweep import Settings, Sweep

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
    """Of one sweep: function calls in all of its threads, events, syncs, SQL statements, and the peak of Python's own
    memory, bytes."""

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
    syncs, calls, statements = itertools.count(), itertools.count(), itertools.count()  # which threads may share
    fsync, connect = os.fsync, sqlite3.connect

    def counted_sync(descriptor: int) -> None:
        next(syncs)
        fsync(descriptor)

    def counted_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database: sqlite3.Connection = connect(*arguments, **options)
        database.set_trace_callback(lambda _: next(statements))
        return database

    def counted_call(_frame: FrameType, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            next(calls)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", counted_sync)
        patch.setattr(sqlite3, "connect", counted_connect)
        EVENTS.clear()
        model = model_file.read(model_file.SHIPPED)
        with Sweep(folder, out, model, Settings(workers=1, isolate=False)) as sweep:
            tracemalloc.start()
            _watching.set()
            threading.setprofile(counted_call)
            sys.setprofile(counted_call)
            tally = sweep.run()
            sys.setprofile(None)
            threading.setprofile(None)
            _watching.clear()
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert tally.found == tally.judged + tally.known
    return Cost(next(calls), Counter(EVENTS), next(syncs), next(statements), peak)


def test_a_judged_file_costs_no_more_than_it_did(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cost(folder, tmp_path / "warm", monkeypatch)  # imports are no part of it
    taken = cost(folder, tmp_path / "out", monkeypatch)
    assert taken.events["os.rename"] == FILES  # each mask
    assert taken.events["open"] <= 3 * FILES + 30  # the file, its mask, folders to be synced; the model's engine
    assert taken.syncs <= FILES + 12  # each mask, and a batch's CSV and folders
    assert taken.statements <= 6 * FILES + 12  # known, twin, verdict, file; and what makes a transaction
    assert taken.calls <= 1900 * FILES  # 1,466 to 1,732, by the version of Python
    assert taken.peak < 2 * 2**20


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
    assert taken.peak < 6 * 2**20
