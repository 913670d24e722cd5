"""Real processes, measured from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import measure

HUNGRY = "import time; kept = b'x' * ({mib} * 2**20); time.sleep(0.5)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_the_peak_is_that_of_the_process_and_not_of_its_end(tmp_path: Path) -> None:
    code = f"{HUNGRY.format(mib=100)}; del kept; time.sleep(0.3)"
    small, large = (measure.run(python(each), tmp_path, tmp_path / "log") for each in (HUNGRY.format(mib=0), code))
    assert large.peak - small.peak == pytest.approx(100, abs=5)  # the kernel counts in batches of pages
    assert large.seconds >= 0.8


def test_the_memory_of_children_counts(tmp_path: Path) -> None:
    child = HUNGRY.format(mib=100)
    run = measure.run(
        python(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"), tmp_path, tmp_path / "log"
    )
    assert run.peak > 100


def test_status_and_words_of_the_process_are_kept(tmp_path: Path) -> None:
    run = measure.run(python("import os; print(os.getcwd()); raise SystemExit(7)"), tmp_path, tmp_path / "log")
    assert run.status == 7
    assert (tmp_path / "log").read_text().strip() == str(tmp_path)


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LIMIT", 0.5)
    assert measure.run(python("import time; time.sleep(600)"), tmp_path, tmp_path / "log").status == -9


def test_packages_of_the_caller_stay_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "mine"))
    measure.run(
        python("import os; print(os.environ.get('PYTHONPATH'), os.environ['MORE'])"),
        tmp_path,
        tmp_path / "log",
        {"MORE": "x"},
    )
    assert (tmp_path / "log").read_text().strip() == "None x"
