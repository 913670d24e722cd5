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


@pytest.mark.parametrize("moment", ["logged", "saving"])
def test_a_killed_run_resumes_and_logs_every_epoch_once(table_file: Path, tmp_path: Path, moment: str) -> None:
    out = tmp_path / "run"
    command: list[str | Path] = [CXR_TRAIN, "fit", "--table", table_file, "--out", out, *SMALL, *EPOCHS]
    log, unfinished = out / "training_log.csv", out / "backup" / "unfinished.weights.h5"

    def reached() -> bool:
        # The header and two epochs, one of the second phase; then perhaps the moment at which it is backed up.
        epochs_logged = log.exists() and len(log.read_text().splitlines()) >= 3
        return epochs_logged and (moment == "logged" or unfinished.exists())

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    epochs = pd.read_csv(log)["epoch"]
    assert list(epochs) == [0, 1, 2, 3]
    for name in ("model.keras", "model.json", "curves.png"):
        assert (out / name).stat().st_size > 0

    # A finished run has nothing left to do.
    trained = (out / "model.keras").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert (out / "model.keras").stat().st_mtime_ns == trained
    assert len(pd.read_csv(log)) == len(epochs)

    other = subprocess.run([*command, "--seed", "9"], capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "another table or other settings" in other.stderr


def test_a_size_that_the_network_cannot_take_is_refused(table_file: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [CXR_TRAIN, "fit", "--table", table_file, "--out", tmp_path / "run", "--size", "100"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "multiple of 32" in done.stderr


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
