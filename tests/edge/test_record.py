"""The record of a run, and when it says that the verdicts drift."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cxr_edge import model_file, record
from cxr_edge.decoder import Left
from cxr_edge.errors import Reason, Status
from cxr_edge.outputs import FileWriter
from cxr_edge.sweep import Settings
from cxr_edge.tally import Stop, Tally

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


def run(
    normal: int = 80, covid19: int = 20, rejected: int = 0, brightness: float = 120.0, **more: Any
) -> dict[str, Any]:
    """A record of so many verdicts."""
    tally = Tally(found=normal + covid19 + rejected, seconds=10, brightness=brightness * (normal + covid19))
    tally.statuses = Counter({Status.OK: normal + covid19, Status.REJECTED: rejected})
    tally.verdicts = Counter({"normal": normal, "covid19": covid19})
    return record.content(tally, model_file.read(model_file.SHIPPED), Settings(), STARTED, more.pop("before", []))


def test_it_says_what_was_done_and_how() -> None:
    tally = Tally(found=5, known=1, seconds=2.0, brightness=240, stopped=Stop.OUT_OF_TIME, runtime="a runtime 1.0")
    tally.statuses = Counter({Status.OK: 2, Status.FAILED: 1})
    tally.verdicts, tally.problems = Counter(normal=2), Counter({Reason.DAMAGED: 1})
    tally.left[Left.CHANGING] = 1
    model = model_file.read(model_file.SHIPPED)
    settings = Settings(operating_point="screening", again=frozenset({Status.FAILED}))
    written = json.loads(json.dumps(record.content(tally, model, settings, STARTED, [])))
    assert written["started_at"] == "2026-01-02T03:04:05Z"
    assert written["files"] == {"found": 5, "judged": 3, "known": 1, "unseen": 0, "still changing": 1}
    assert written["statuses"] == {"ok": 2, "failed": 1}
    assert (written["verdicts"], written["problems"]) == ({"normal": 2}, {"damaged": 1})
    assert (written["images_per_second"], written["brightness"]) == (1.5, 120.0)
    assert (written["settings"]["operating_point"], written["settings"]["again"]) == ("screening", ["failed"])
    assert written["model"]["sha256"] == model.sha256
    assert written["stopped"] == "its time was over"
    assert written["peak_memory_mib"] > 10
    assert written["drift"] == []


@pytest.mark.parametrize("nights", [1, 30])
def test_like_nights_do_not_drift(nights: int) -> None:
    assert run(before=[run(80 + i % 5, 20 - i % 5) for i in range(nights)])["drift"] == []


@pytest.mark.parametrize(
    ("now", "word"),
    [
        ({"normal": 50, "covid19": 50}, "covid19: 50% of the files, 20% in the runs before"),
        ({"normal": 50, "covid19": 50}, "normal: 50% of the files, 80%"),
        ({"rejected": 60}, "rejected: 38% of the files, 0%"),
        ({"brightness": 90.0}, "mean brightness: 90 of 255, 120"),
    ],
)
def test_what_moves_is_told(now: dict[str, Any], word: str) -> None:
    assert any(word in sentence for sentence in run(**now, before=[run() for _ in range(6)])["drift"])


def test_small_numbers_say_nothing() -> None:
    assert run(normal=0, covid19=15, before=[run() for _ in range(6)])["drift"] == []
    assert run(normal=0, covid19=100, before=[run(normal=60, covid19=10)])["drift"] == []


def test_another_model_is_no_drift() -> None:
    before = [run() | {"model": {"name": "other", "sha256": "f"}} for _ in range(6)]
    assert run(normal=0, covid19=100, before=before)["drift"] == []


def test_records_lie_side_by_side_whatever_the_clock_does(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    for _ in range(3):
        record.write(writer, run())
    names = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert names == ["20260102T030405Z-2.json", "20260102T030405Z-3.json", "20260102T030405Z.json"]
    assert len(record.read_last(tmp_path)) == 3
    assert len(record.read_last(tmp_path, most=2)) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": 1}'])
def test_a_record_that_is_none_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "20250101T000000Z.json").write_text(content)
    assert record.read_last(tmp_path) == []
