"""The ledger and the CSV stay in step, wherever a night is cut off and whatever was done to the CSV by day."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_edge.discover import FoundFile
from cxr_edge.errors import OutputUnwritable, Reason, Status, UsageError
from cxr_edge.ledger import Known, Ledger
from cxr_edge.outputs import Row, header, render

LABELS = ("normal", "pneumonia")
MODEL = "0123456789ab"


def found(name: str, *, size: int = 100, mtime_ns: int = 1) -> FoundFile:
    return FoundFile(Path("/incoming") / name, name, size, mtime_ns)


def row(name: str, content: str = "a", *, model: str = MODEL, **fields: Any) -> Row:
    digest = hashlib.sha256(content.encode()).hexdigest()
    judged: dict[str, Any] = {"status": Status.OK, "verdict": "normal", "confidence": 0.9, "probabilities": (0.9, 0.1)}
    return Row(name, sha256=digest, model=model, scanned_at="2026-01-02T03:04:05Z", ms=7.0, **(judged | fields))


def pair(name: str, content: str = "a") -> tuple[FoundFile, Row]:
    return found(name), row(name, content)


def unreadable(name: str) -> Row:
    no_verdict: dict[str, Any] = {"verdict": "", "confidence": None, "probabilities": ()}
    return row(name, status=Status.FAILED, reason_code=Reason.UNREADABLE, **no_verdict)


def lines_of(out: Path) -> list[str]:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as database:
        return [line for (line,) in database.execute("SELECT line FROM verdicts ORDER BY id")]


def csv_bytes(out: Path) -> bytes:
    return (out / "verdicts.csv").read_bytes()


def paths(out: Path) -> list[str]:
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        return [record["path"] for record in csv.DictReader(file)]


def assert_in_step(out: Path) -> None:
    assert csv_bytes(out) == (header(LABELS) + "".join(lines_of(out))).encode()


@contextmanager
def opened(out: Path, model: str = MODEL) -> Iterator[Ledger]:
    with Ledger(out, LABELS, model) as ledger:
        yield ledger


def reopen(out: Path) -> None:
    with opened(out):
        pass


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder that holds two rows."""
    with opened(tmp_path) as ledger:
        ledger.record([pair("a.png"), pair("b.png")])
    return tmp_path


def test_a_new_folder_gets_a_csv_with_a_header(tmp_path: Path) -> None:
    reopen(tmp_path)
    assert csv_bytes(tmp_path) == header(LABELS).encode()


def test_knows_what_it_recorded_and_sees_changes(out: Path) -> None:
    digest = row("a.png").sha256
    with opened(out) as ledger:
        assert ledger.known(found("a.png")) == Known(digest, True, Status.OK, "")
        assert ledger.known(found("a.png", size=101)) == Known(digest, False, Status.OK, "")
        assert ledger.known(found("a.png", mtime_ns=2)) == Known(digest, False, Status.OK, "")
        assert ledger.known(found("new.png")) is None


def test_knows_nothing_under_another_model(out: Path) -> None:
    with opened(out, "another model") as ledger:
        assert ledger.known(found("a.png")) is None


def test_a_touched_file_is_known_by_its_new_time(out: Path) -> None:
    touched = found("a.png", mtime_ns=2)
    with opened(out) as ledger:
        ledger.record([(touched, None)])
        known = ledger.known(touched)
    assert known
    assert known.untouched
    assert len(lines_of(out)) == 2


def test_new_content_gets_a_new_row_and_old_content_none(out: Path) -> None:
    with opened(out) as ledger:
        for content in ("b", "a", "b"):
            ledger.record([pair("a.png", content)])
            known = ledger.known(found("a.png"))
            assert known
            assert known.sha256 == row("a.png", content).sha256
    assert paths(out) == ["a.png", "b.png", "a.png"]


def test_each_model_gets_its_row(out: Path) -> None:
    with opened(out, "another model") as ledger:
        ledger.record([(found("a.png"), row("a.png", model="another model"))])
    assert paths(out) == ["a.png", "b.png", "a.png"]
    assert_in_step(out)


def test_the_same_content_twice_in_one_batch_gets_one_row(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record([pair("a.png"), pair("a.png")])
    assert paths(tmp_path) == ["a.png"]
    assert_in_step(tmp_path)


def test_an_unreadable_file_gets_one_row_and_is_tried_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        for _ in range(2):
            ledger.record([(found("a.png"), unreadable("a.png"))])
            assert ledger.known(found("a.png")) is None
    assert paths(tmp_path) == ["a.png"]


def test_the_reason_is_known(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.record([(found("a"), row("a", status=Status.FAILED, reason_code=Reason.NOT_AN_IMAGE))])
        known = ledger.known(found("a"))
    assert known
    assert known.reason_code == "not_an_image"


def test_refuses_other_labels(out: Path) -> None:
    before = csv_bytes(out)
    with pytest.raises(UsageError, match="other labels") as caught:
        Ledger(out, ("normal", "tuberculosis"), MODEL)
    assert "-o" in caught.value.remedy
    assert csv_bytes(out) == before
    reopen(out)
    assert_in_step(out)


@pytest.mark.parametrize("damage", [b"", b"no database" * 1000], ids=["empty", "garbage"])
def test_a_lost_or_ruined_ledger_never_costs_the_verdicts(out: Path, damage: bytes) -> None:
    before = csv_bytes(out)
    (out / "ledger.sqlite").write_bytes(damage)
    with suppress(OutputUnwritable):
        reopen(out)
    assert before in [path.read_bytes() for path in out.glob("*.csv")]


def test_a_lost_ledger_and_a_crash_before_the_repair_cost_no_verdicts(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = csv_bytes(out)
    (out / "ledger.sqlite").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_repair", crash)
        with pytest.raises(KeyboardInterrupt):
            Ledger(out, LABELS, MODEL)
    reopen(out)
    assert before in [path.read_bytes() for path in out.glob("*.csv")]


# Repair


def test_cuts_a_tail_that_nobody_committed(out: Path) -> None:
    before = csv_bytes(out)
    with (out / "verdicts.csv").open("ab") as file:
        file.write(render(row("c.png"), LABELS).encode() + b"d.png,ok,nor")
    reopen(out)
    assert csv_bytes(out) == before
    assert not list(out.glob("verdicts.edited-*"))


def test_a_deleted_csv_comes_back(out: Path) -> None:
    before = csv_bytes(out)
    (out / "verdicts.csv").unlink()
    reopen(out)
    assert csv_bytes(out) == before


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "last line gone": lambda text: text[: text.rindex(b"b.png")],
    "first line gone": lambda text: text.replace(render(row("a.png"), LABELS).encode(), b""),
    "header gone": lambda text: text[text.index(b"a.png") :],
    "line ends changed": lambda text: text.replace(b"\r\n", b"\n"),
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "semicolons": lambda text: text.replace(b",", b";"),
    "last verdict": lambda text: text[:-200] + text[-200:].replace(b"normal", b"NORMAL"),
    "first verdict": lambda text: text.replace(b"ok,normal,0.900", b"ok,normal,0.100", 1),
    "name in the header": lambda text: text.replace(b"verdict,", b"VERDICT,", 1),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edited_csv_is_kept_aside_and_written_anew(out: Path, edit: Callable[[bytes], bytes]) -> None:
    before = csv_bytes(out)
    edited = edit(before)
    assert edited != before
    (out / "verdicts.csv").write_bytes(edited)
    with opened(out) as ledger:
        ledger.record([pair("c.png")])
    assert csv_bytes(out) == before + render(row("c.png"), LABELS).encode()
    assert [path.read_bytes() for path in out.glob("verdicts.edited-*.csv")] == [edited]


def test_leaves_no_temp_file(out: Path) -> None:
    (out / "verdicts.csv").unlink()
    reopen(out)
    assert sorted(path.name for path in out.iterdir()) == ["ledger.sqlite", "verdicts.csv"]


# Crashes: a child process dies at one point of `record`, as with kill -9.


class HalfWritten:
    """A CSV file of which one write gets only the first bytes to the disk; then `end` is called."""

    def __init__(self, ledger: Ledger, end: Callable[[], None]) -> None:
        self.file, self.end = ledger._csv, end
        self.close = self.file.close

    def write(self, data: bytes) -> int:
        self.file.write(data[: len(data) // 2])
        self.end()
        return 0


def die() -> None:
    os._exit(9)


def before_the_csv(ledger: Ledger) -> None:
    ledger._append = lambda data: die()  # type: ignore[method-assign]  # noqa: ARG005


def within_the_csv(ledger: Ledger) -> None:
    ledger._csv = HalfWritten(ledger, die)  # type: ignore[assignment]


def between_csv_and_commit(ledger: Ledger) -> None:
    append = ledger._append
    ledger._append = lambda data: (append(data), die())[0]  # type: ignore[method-assign,func-returns-value]


@pytest.mark.parametrize("crash", [before_the_csv, within_the_csv, between_csv_and_commit], ids=lambda f: f.__name__)
def test_a_crash_costs_the_batch_in_hand_and_nothing_else(out: Path, crash: Callable[[Ledger], None]) -> None:
    before = csv_bytes(out)
    # A process of its own, not a fork: pytest's has threads of the runtimes by now.
    child = subprocess.run([sys.executable, __file__, out, crash.__name__], check=False, timeout=60)
    assert child.returncode == 9
    with opened(out) as ledger:
        assert csv_bytes(out) == before
        assert ledger.known(found("c.png")) is None
        ledger.record([pair("c.png"), pair("d.png")])
    assert paths(out) == ["a.png", "b.png", "c.png", "d.png"]
    assert_in_step(out)


def test_a_full_disk_records_nothing_of_the_batch(out: Path) -> None:
    before = csv_bytes(out)

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with opened(out) as ledger:
        ledger._csv = HalfWritten(ledger, full)  # type: ignore[assignment]
        with pytest.raises(OutputUnwritable, match="No space left") as caught:
            ledger.record([pair("c.png")])
        assert ledger.known(found("c.png")) is None
    assert "free some space" in caught.value.remedy
    reopen(out)
    assert csv_bytes(out) == before
    assert_in_step(out)


Damage = tuple[int, bytes]
DAMAGE = st.tuples(st.integers(-400, 0), st.binary(max_size=40))
"""How many committed bytes a power cut loses (0: none), and what lies behind the rest then."""


@settings(max_examples=30)
@given(nights=st.lists(st.tuples(st.integers(0, 3), DAMAGE), min_size=1, max_size=4))
def test_any_sequence_of_nights_and_power_cuts_stays_in_step(nights: list[tuple[int, Damage]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        names: list[str] = []
        for rows, (lost, junk) in nights:
            with opened(out) as ledger:
                assert_in_step(out)
                batch = [pair(f"{len(names) + i}.png") for i in range(rows)]
                ledger.record(batch)
                names += [row.path for _, row in batch]
            assert_in_step(out)
            content = csv_bytes(out)
            (out / "verdicts.csv").write_bytes(content[: len(content) + lost] + junk)
        reopen(out)
        assert_in_step(out)
        assert paths(out) == names


if __name__ == "__main__":
    with opened(Path(sys.argv[1])) as the_ledger:
        globals()[sys.argv[2]](the_ledger)
        the_ledger.record([pair("c.png"), pair("d.png")])
