"""Contrasts inside one origin, printed by a process of its own from predictions whose AUC can be counted by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

COMMAND = Path(__file__).parents[2] / "benchmarks" / "contrasts.py"


def predictions() -> pd.DataFrame:
    """Ten of NIH's pictures in `test`, of which the first pneumonia looks like none; and one of `validation`."""
    rows = []
    for index in range(10):
        label = "pneumonia" if index < 5 else "normal"
        p = 0.1 if index in (0, 5) else 0.8 if label == "pneumonia" else 0.3
        rows.append((f"/data/images/pool/x{index}.jpg", label, "nih", "test", 0.9 * (1 - p), 0.9 * p, 0.1))
    rows.append(("/data/images/pool/x10.jpg", "pneumonia", "nih", "validation", 1.0, 0.0, 0.0))
    columns = ["path", "label", "origin", "split", "p_normal", "p_pneumonia", "p_covid19"]
    return pd.DataFrame(rows, columns=columns)


def run(folder: Path, classes: list[str], file: str = "images/pool/x{}.jpg") -> subprocess.CompletedProcess[str]:
    predictions().to_csv(folder / "predictions.csv", index=False)
    source = pd.DataFrame({"file": [file.format(index) for index in range(len(classes))], "rsna_class": classes})
    source.to_csv(folder / "source.csv", index=False)
    command = [sys.executable, str(COMMAND), str(folder / "predictions.csv"), str(folder / "source.csv")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def line(done: subprocess.CompletedProcess[str], name: str) -> str:
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith(f"{name}  "))


def test_area_of_the_held_out_pictures(tmp_path: Path) -> None:
    done = run(tmp_path, [""] * 11)
    # Of 25 pairs, the four pneumonias at 0.8 win 20; the one at 0.1 ties with one normal and loses four.
    assert "5 + 5" in line(done, "nih")
    assert "0.820" in line(done, "nih")
    assert "fewer than 5" in line(done, "kermany")
    assert "fewer than 5" in line(done, "nih, pneumonia confirmed")


@pytest.mark.parametrize("disputed", ["Normal", "No Lung Opacity / Not Normal"])
def test_a_label_that_radiologists_dispute_is_left_out_of_the_cleaned_contrast_only(
    tmp_path: Path, disputed: str
) -> None:
    done = run(tmp_path, [disputed, *["Lung Opacity"] * 4, *["Normal"] * 5, ""])
    assert "0.820" in line(done, "nih")
    assert "4 + 5" in line(done, "nih, label not disputed")


def test_a_picture_that_the_source_does_not_know_ends_it(tmp_path: Path) -> None:
    for done in (run(tmp_path, [""] * 9), run(tmp_path, [""] * 11, "images/other/x{}.jpg")):
        assert done.returncode != 0
        assert "is not in the source" in done.stderr
