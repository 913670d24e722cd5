"""What arrives is told, by inotify and by polling, and nothing else is."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cxr_edge import machine, watch
from cxr_edge.watch import Watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "ward").mkdir(parents=True)
    (tmp_path / "in" / "out").mkdir()
    return tmp_path / "in"


@pytest.fixture
def watching(folder: Path) -> Iterator[Watch]:
    with Watch(folder, folder / "out") as running:
        assert not running.polls
        yield running


def told(watching: Watch, seconds: float = 5.0) -> set[Path]:
    """What is told next, within so many seconds."""
    end = time.monotonic() + seconds
    return set(watching.changes(lambda: time.monotonic() > end))


def test_a_file_is_told_when_it_is_written_to_its_end(watching: Watch, folder: Path) -> None:
    with (folder / "ward" / "a.png").open("wb") as file:
        file.write(b"half")
        file.flush()
        assert told(watching, 0.3) == set()
    assert told(watching) == {folder / "ward" / "a.png"}


def test_a_file_renamed_into_the_folder_is_told(watching: Watch, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "a.png").rename(folder / "a.png")
    assert told(watching) == {folder / "a.png"}


def test_a_new_folder_is_told_and_watched(watching: Watch, folder: Path) -> None:
    (folder / "new" / "below").mkdir(parents=True)
    assert folder / "new" in told(watching)
    (folder / "new" / "below" / "a.png").write_bytes(b"x")
    assert folder / "new" / "below" / "a.png" in told(watching)


def test_the_output_hidden_files_and_deleted_ones_are_not_told(watching: Watch, folder: Path) -> None:
    (folder / "out" / "verdicts.csv").write_bytes(b"x")
    (folder / ".a.png.part").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    assert told(watching, 0.3) == set()
    (folder / "a.png").write_bytes(b"x")
    told(watching)
    (folder / "a.png").unlink()
    assert told(watching, 0.3) == set()


def test_many_events_at_once_lose_no_file(watching: Watch, folder: Path) -> None:
    for i in range(3000):
        (folder / f"{i}.png").touch()
    seen: set[Path] = set()
    while new := told(watching, 0.5):
        seen |= new
    assert len(seen) == 3000


def test_an_overflow_tells_the_whole_folder(watching: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = watch._EVENT.pack(-1, watch._OVERFLOW, 0, 0)
    monkeypatch.setattr(os, "read", lambda *_: event)
    (folder / "a.png").touch()
    assert told(watching) == {folder}


def test_once_in_a_while_everything_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WALK_SECONDS", 0.2)
    with Watch(folder, folder / "out") as watching:
        assert told(watching) == {folder}


def no_system(*_: object, **__: object) -> Any:
    raise OSError


REASONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a network share": lambda patch: patch.setattr(machine, "filesystem", lambda _: "nfs4"),
    "no inotify": lambda patch: patch.setattr(ctypes, "CDLL", no_system),
    "no watches left": lambda patch: patch.setattr(Watch, "_add", lambda *_: False),
}


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS.keys())
def test_where_the_kernel_tells_nothing_the_folder_is_polled(
    folder: Path, monkeypatch: pytest.MonkeyPatch, reason: Callable[[pytest.MonkeyPatch], None]
) -> None:
    reason(monkeypatch)
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.2)
    with Watch(folder, folder / "out") as watching:
        assert watching.polls
        assert told(watching) == {folder}


def test_it_stops_when_asked(watching: Watch) -> None:
    asked = threading.Event()
    threading.Timer(0.2, asked.set).start()
    assert list(watching.changes(asked.is_set)) == []
