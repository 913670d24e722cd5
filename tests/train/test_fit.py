"""Real runs, in processes of their own: one that is killed and resumed, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from cxr_train import phantoms, table
from cxr_train.table import Source

CXR_TRAIN = Path(sys.executable).with_name("cxr-train")
SMALL = ("--weights", "none", "--alpha", "0.35", "--size", "64", "--batch", "8")
EPOCHS = ("--frozen-epochs", "1", "--fine-epochs", "3")


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    source = phantoms.write_dataset(folder / "set", 48, side=96)
    table.build(source, folder / "table.csv", Source(mask="mask", group="patient", origin="origin"), "", "", seed=0)
    return folder / "table.csv"


def test_a_killed_run_resumes_and_logs_every_epoch_once(table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command: list[str | Path] = [CXR_TRAIN, "fit", "--table", table_file, "--out", out, *SMALL, *EPOCHS]
    log = out / "training_log.csv"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    # The header and two epochs: it dies in the second phase.
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    epochs = pd.read_csv(log)["epoch"]
    assert set(epochs) == {0, 1, 2, 3}
    # Killed between a log line and its back-up, an epoch is run again: never more than that one.
    assert epochs.duplicated().sum() <= 1
    for name in ("model.keras", "model.json", "curves.png"):
        assert (out / name).stat().st_size > 0

    other = subprocess.run([*command, "--seed", "9"], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "another table or other settings" in other.stderr


def test_a_label_without_pictures_is_refused(table_file: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        CXR_TRAIN,
        "fit",
        "--table",
        table_file,
        "--out",
        tmp_path / "run",
        *SMALL,
        "--labels",
        "normal,flu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "['pneumonia'] are not among" in done.stderr
    assert not (tmp_path / "run" / "model.keras").exists()
