"""Real runs, in processes of their own: killed and resumed, out of disk, diverging, and what is refused."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import pandas as pd
import pytest

from cxr_train import phantoms, table
from cxr_train.table import Source

CXR_TRAIN = Path(sys.executable).with_name("cxr-train")
SMALL = ("--weights", "none", "--alpha", "0.35", "--size", "64", "--batch", "8")
MULTITASK = (*SMALL, "--frozen-epochs", "1", "--fine-epochs", "3")
# Rates that go down and a phase that ends early, so that what these callbacks remember must survive a kill.
ADAPTIVE = (
    "--preset",
    "two-phase",
    *SMALL,
    *["--frozen-epochs", "12", "--frozen-rate", "0.05", "--fine-epochs", "2", "--patience", "5"],
)


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fit")
    source = phantoms.write_dataset(folder / "set", 48, side=96)
    table.build(source, folder / "table.csv", Source(mask="mask", group="patient", origin="origin"), "", "", seed=0)
    return folder / "table.csv"


def command(table_file: Path, out: Path, *options: str) -> list[str]:
    return [str(CXR_TRAIN), "fit", "--table", str(table_file), "--out", str(out), *options]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def kill(arguments: list[str], reached: Callable[[], bool]) -> None:
    """Start a run and kill it as soon as it has reached something."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not reached():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def undisturbed(table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    runs = {}
    for number, options in enumerate((MULTITASK, ADAPTIVE)):
        runs[options] = folder / str(number)
        done = run(command(table_file, runs[options], *options))
        assert done.returncode == 0, done.stderr
    return runs


@pytest.mark.parametrize(
    ("options", "lines", "saving"), [(MULTITASK, 3, False), (MULTITASK, 3, True), (ADAPTIVE, 6, False)]
)
def test_a_killed_run_ends_as_it_would_have(
    table_file: Path,
    tmp_path: Path,
    undisturbed: dict[tuple[str, ...], Path],
    options: tuple[str, ...],
    lines: int,
    saving: bool,
) -> None:
    out, whole = tmp_path / "run", undisturbed[options]
    log, unfinished = out / "training_log.csv", out / "backup" / "unfinished.npz"
    arguments = command(table_file, out, *options)

    def reached() -> bool:
        # The header and some epochs; then perhaps the moment at which the last one is backed up.
        logged = log.exists() and len(log.read_text().splitlines()) >= lines
        return logged and (not saving or unfinished.exists())

    kill(arguments, reached)
    done = run(arguments)
    assert done.returncode == 0, done.stderr
    assert log.read_text() == (whole / "training_log.csv").read_text()
    resumed, expected = (keras.models.load_model(folder / "model.keras", compile=False) for folder in (out, whole))
    for one, other in zip(resumed.get_weights(), expected.get_weights(), strict=True):
        assert (one == other).all()
    for name in ("model.json", "curves.png", "resources.csv"):
        assert (out / name).stat().st_size > 0
    assert not (out / "backup").exists()

    # A finished run has nothing left to do.
    trained = (out / "model.keras").stat().st_mtime_ns
    assert run(arguments).returncode == 0
    assert (out / "model.keras").stat().st_mtime_ns == trained
    assert log.read_text() == (whole / "training_log.csv").read_text()

    other = run([*arguments, "--seed", "9"])
    assert other.returncode == 2
    assert "another table or other settings" in other.stderr


def test_rates_go_down_and_phases_end_early(undisturbed: dict[tuple[str, ...], Path]) -> None:
    # Otherwise the kill above proves nothing of what these callbacks remember.
    log = pd.read_csv(undisturbed[ADAPTIVE] / "training_log.csv")
    frozen = log[log["phase"] == "frozen"]
    assert 6 <= len(frozen) < 12
    assert frozen["learning_rate"].iloc[-1] < frozen["learning_rate"].iloc[0]
    assert list(log["epoch"]) == list(range(len(log)))
    assert {"precision", "recall", "auc", "val_precision", "val_recall", "val_auc"} <= set(log.columns)


def test_resources_are_logged_for_each_epoch(undisturbed: dict[tuple[str, ...], Path]) -> None:
    figures = pd.read_csv(undisturbed[MULTITASK] / "resources.csv")
    assert list(figures["epoch"]) == [0, 1, 2, 3]
    assert (figures[["seconds", "images_per_s", "cpu_pct", "rss_mib"]] > 0).all(axis=None)


def limit() -> None:
    """No file may grow beyond 100 KiB: what a full disk does, without being root."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, 100 * 1024))


@pytest.mark.parametrize("trained", [False, True])
def test_a_disk_that_is_full_costs_nothing_that_was_saved(table_file: Path, tmp_path: Path, trained: bool) -> None:
    saved, log = tmp_path / "run" / "model.keras", tmp_path / "run" / "training_log.csv"
    arguments = command(table_file, tmp_path / "run", "--preset", "cnn-4conv", "--size", "48", "--fine-epochs", "40")
    arguments += ["--patience", "0", "--fine-rate", "1e-5"]
    if trained:
        kill(arguments, lambda: log.exists() and len(log.read_text().splitlines()) >= 2)
        before = saved.read_bytes()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, preexec_fn=limit)
    assert done.returncode == 6, done.stderr
    assert "cannot be written (File too large); what was saved before is whole" in done.stderr
    assert "Traceback" not in done.stderr
    if trained:
        assert saved.read_bytes() == before
        keras.models.load_model(saved, compile=False)
    else:
        assert not saved.exists()
    assert run(arguments).returncode == 0
    assert len(pd.read_csv(log)) == 40


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_best(table_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = run(command(table_file, out, "--preset", "cnn-4conv", "--size", "48", "--fine-rate", "1e35"))
    assert done.returncode == 2, done.stderr
    assert "the loss is no number any more in epoch" in done.stderr
    assert "lower rate than 1e+35" in done.stderr
    assert "Traceback" not in done.stderr


def without(table_file: Path, tmp_path: Path, split: str, label: str) -> Path:
    rows = pd.read_csv(table_file, dtype=str, keep_default_na=False)
    rows = rows[(rows["split"] != split) | (rows["label"] != label)]
    for name in ("path", "mask"):
        rows[name] = [str(table_file.parent / value) if value else "" for value in rows[name]]
    rows.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_split_without_positives_is_refused(table_file: Path, tmp_path: Path, split: str) -> None:
    poor = without(table_file, tmp_path, split, "pneumonia")
    done = run(command(poor, tmp_path / "run", *SMALL, "--labels", "normal,pneumonia"))
    assert done.returncode == 2
    assert f"no picture of the split '{split}' has the label ['pneumonia']" in done.stderr
    assert not (tmp_path / "run" / "model.json").exists()


def test_one_label_only_is_refused(table_file: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(table_file, dtype=str, keep_default_na=False)
    rows[rows["label"] == "normal"].to_csv(table_file.parent / "one.csv", index=False)
    done = run(command(table_file.parent / "one.csv", tmp_path / "run", *SMALL))
    assert done.returncode == 2
    assert "all training pictures have the label 'normal'" in done.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--size", "100"), "multiple of 32"),
        ((*SMALL, "--labels", "normal,flu"), "['pneumonia'] are not among"),
        (("--weights", "absent.h5"), "weights file absent.h5 does not exist"),
        (("--preset", "cnn-bn"), "240 are asked for"),
        (("--preset", "cnn-4conv", "--fine-epochs", "0"), "no epoch to train"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    table_file: Path, tmp_path: Path, options: tuple[str, ...], sentence: str
) -> None:
    done = run(command(table_file, tmp_path / "run", *options))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "model.keras").exists()


def test_presets_are_listed_with_what_they_reproduce() -> None:
    done = run([str(CXR_TRAIN), "presets"])
    assert done.returncode == 0
    for name in ("multitask", "two-phase", "cnn-4conv", "cnn-bn", "resnet50", "vgg16"):
        assert name in done.stdout
    assert "1,993,729" in done.stdout
