"""The current verdict of every path, as CSV, JSON Lines and Parquet."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cxr_edge.cli import main
from cxr_edge.discover import FoundFile
from cxr_edge.errors import ExitCode, Reason, Status
from cxr_edge.ledger import Ledger
from cxr_edge.outputs import Row

LABELS = ("normal", "pneumonia")


def found(name: str) -> FoundFile:
    return FoundFile(Path("/incoming") / name, name, 100, 1)


def row(name: str, content: str, verdict: str = "normal", when: str = "2026-01-02", **fields: Any) -> Row:
    digest = hashlib.sha256(content.encode()).hexdigest() if content else ""
    judged: dict[str, Any] = {"status": Status.OK, "verdict": verdict, "confidence": 0.9, "probabilities": (0.9, 0.1)}
    judged |= {"width": 30, "height": 20, "lung_area_pct": 0.0}
    return Row(name, sha256=digest, model="m", scanned_at=f"{when}T03:04:05Z", ms=7.0, **(judged | fields))


def failed(name: str, content: str, reason: Reason, when: str = "2026-01-02") -> Row:
    nothing: dict[str, Any] = {"verdict": "", "confidence": None, "probabilities": (), "lung_area_pct": None}
    return row(name, content, when=when, status=Status.FAILED, reason_code=reason, width=0, height=0, **nothing)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A ledger with a changed file, one that got its old content back, one never read, and names for spreadsheets."""
    with Ledger(tmp_path, LABELS, "m") as ledger:
        for judged in (
            row("b.png", "b"),
            row("changed.png", "old"),
            row("changed.png", "new", "pneumonia", "2026-01-03"),
            row("back.png", "first"),
            row("back.png", "second", "pneumonia", "2026-01-03"),
            row("back.png", "first", when="2026-01-04"),
            row("=cmd|' /C calc'!A1;,\n.png", "e", "uncertain", "2026-01-05"),
            failed("unread.png", "", Reason.UNREADABLE),
            failed("a.png", "a", Reason.DAMAGED, "2026-01-06"),
        ):
            ledger.record([(found(judged.path), judged)])
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def paths(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [line["path"] for line in csv.DictReader(result.stdout_bytes.decode().splitlines(keepends=True))]


def test_each_path_has_one_row_that_says_what_it_holds_now(out: Path) -> None:
    result = run(out)
    current = {line["path"]: line for line in csv.DictReader(result.stdout_bytes.decode().splitlines(keepends=True))}
    names = {"./=cmd|' /C calc'!A1;,\n.png", "a.png", "b.png", "back.png", "changed.png", "unread.png"}
    assert set(current) == names
    assert len(paths(result)) == len(names)
    assert current["changed.png"]["verdict"] == "pneumonia"
    assert current["back.png"]["verdict"] == "normal"
    assert current["unread.png"]["reason_code"] == "unreadable"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--status", "failed"], ["a.png", "unread.png"]),
        (["--verdict", "pneumonia"], ["changed.png"]),
        (["--verdict", "pneumonia", "--verdict", "normal"], ["b.png", "back.png", "changed.png"]),
        (["--since", "2026-01-03"], ["./=cmd|' /C calc'!A1;,\n.png", "a.png", "changed.png"]),
        (["--since", "2026-01-03", "--until", "2026-01-05"], ["changed.png"]),
        (["--until", "2026-01-02T03:04:05"], []),
        (["--status", "ok", "--verdict", "uncertain", "--since", "2027-01-01"], []),
    ],
    ids=str,
)
def test_filters(out: Path, options: list[str], expected: list[str]) -> None:
    assert paths(run(out, *options)) == expected


def test_json_lines_have_numbers_and_nulls(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "current.jsonl"
    assert run(out, "-o", target).exit_code == 0
    lines = {line["path"]: line for line in map(json.loads, target.read_text().splitlines())}
    assert (lines["b.png"]["confidence"], lines["b.png"]["width"], lines["b.png"]["lung_area_pct"]) == (0.9, 30, 0.0)
    assert lines["a.png"]["confidence"] is lines["a.png"]["width"] is lines["a.png"]["verdict"] is None
    assert "=cmd|' /C calc'!A1;,\n.png" in lines  # no spreadsheet reads these


def test_parquet_has_types(out: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    target = tmp_path / "current.parquet"
    assert run(out, "-o", target).exit_code == 0
    table = parquet.read_table(target)
    assert table.num_rows == 6
    assert {name: str(table.schema.field(name).type) for name in ("path", "p_normal", "width", "ms")} == {
        "path": "string",
        "p_normal": "double",
        "width": "int32",
        "ms": "double",
    }
    assert table.column("verdict").null_count == 2


def test_parquet_without_its_extra_says_what_to_install(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = run(out, "--format", "parquet")
    assert result.exit_code == ExitCode.USAGE
    assert "cxr-edge[parquet]" in result.stderr


def test_a_file_is_replaced_as_a_whole_or_not_at_all(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "current.csv"
    target.write_text("old")
    (out / "ledger.sqlite").rename(out / "aside")
    assert run(out, "-o", target).exit_code == ExitCode.NOTHING_FOUND
    assert target.read_text() == "old"
    (out / "ledger.sqlite").write_bytes(b"no database" * 1000)
    result = run(out, "-o", target)
    assert result.exit_code == ExitCode.BUG
    assert "Traceback" not in result.output
    assert target.read_text() == "old"
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_name_that_tells_no_format_is_refused(out: Path, tmp_path: Path) -> None:
    result = run(out, "-o", tmp_path / "current.xlsx")
    assert result.exit_code == ExitCode.USAGE
    assert "--format" in result.stderr


def test_a_target_that_cannot_be_written(out: Path) -> None:
    assert run(out, "-o", "/proc/current.csv").exit_code == ExitCode.OUTPUT_UNWRITABLE


def test_it_reads_beside_a_running_sweep(out: Path) -> None:
    with Ledger(out, LABELS, "m"):
        script = Path(sys.executable).with_name("cxr-edge")
        done = subprocess.run([script, "export", out], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\r\n") == 7
