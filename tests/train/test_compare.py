from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import evaluation
from cxr_train.cli import main
from cxr_train.compare import compare


@pytest.fixture(scope="module")
def runs(
    brightness_run: Callable[..., Path], brightness_table: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """A run with logs, the same but of a sigmoid, and one judged on half of the pictures."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("first", "second"):
        model = brightness_run(folder / name, sigmoid=name == "second", mask=name == "first")
        evaluation.evaluate(model, brightness_table, folder / name / "evaluation", ["test"])
    pd.DataFrame({"epoch": [0, 1, 2]}).to_csv(folder / "first" / "training_log.csv", index=False)
    pd.DataFrame({"epoch": [0, 1, 2], "seconds": [60.0, 50.0, 40.0]}).to_csv(
        folder / "first" / "resources.csv", index=False
    )
    half = evaluation.read_predictions(folder / "first" / "evaluation" / "predictions.csv").iloc[::2]
    evaluation.write(half, ["bright", "dark"], folder / "half", {})
    return [folder / name for name in ("first", "second", "half")]


def test_the_table_says_what_each_run_knows(runs: list[Path], tmp_path: Path) -> None:
    rows, sentence = compare(runs, tmp_path / "out", "test")
    assert sentence == "half was judged on other pictures than first: figures do not compare"
    written = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("run")
    assert list(written.index) == list(rows["run"]) == ["first", "second", "half"]
    assert list(written["same pictures"]) == ["yes", "yes", "no"]
    told = json.loads((runs[0] / "evaluation" / "evaluation.json").read_text())
    test = told["splits"]["test"]
    first = written.loc["first"]
    assert [first["accuracy low"], first["accuracy high"]] == test["accuracy_interval"]
    assert (first["accuracy"], first["AUC"], first["ECE"]) == (test["accuracy"], test["roc_auc_macro"], test["ece"])
    assert (first["Dice"], first["balanced accuracy"]) == (test["dice"], test["balanced_accuracy"])
    assert (first["parameters"], first["epochs"], first["training minutes"]) == (4, 3, 2.5)
    assert first["size MiB"] == round((runs[0] / "model.keras").stat().st_size / 2**20, 2)
    assert written.loc["second", ["Dice", "epochs", "training minutes"]].isna().all()
    assert written.loc["half", ["parameters", "size MiB"]].isna().all()
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width > 1000  # three panels: two labels in each run


def test_the_figures_are_those_of_the_predictions_not_of_the_summary(runs: list[Path], tmp_path: Path) -> None:
    own = evaluation.read_predictions(runs[2] / "predictions.csv")
    evaluation.write(own, ["bright", "dark"], tmp_path / "copy", {})
    own.assign(label=own["predicted"]).to_csv(tmp_path / "copy" / "predictions.csv", index=False)
    rows, sentence = compare([runs[2], tmp_path / "copy"], tmp_path / "out", "test")
    assert rows["accuracy"][0] < rows["accuracy"][1] == 1
    assert sentence == ""


def test_the_command_prints_the_table_and_warns(runs: list[Path], tmp_path: Path) -> None:
    same_name = [str(runs[0]), str(runs[1] / "evaluation")]
    done = CliRunner().invoke(main, ["compare", *same_name, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert (done.stderr, len(done.stdout.splitlines())) == ("", 3)
    assert "second" in done.stdout
    done = CliRunner().invoke(main, ["compare", str(runs[0]), str(runs[2]), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert "other pictures" in done.stderr


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    for folders, split, sentence in (
        (runs[:1], "test", "one run alone"),
        ([runs[0], runs[0] / "evaluation"], "test", "named twice"),
        (runs, "external", "no picture of the split 'external'"),
        ([runs[0], tmp_path], "test", "holds no whole evaluation"),
    ):
        with pytest.raises(UsageError) as caught:
            compare(folders, tmp_path / "out", split)
        assert sentence in caught.value.message
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable):
        compare(runs, tmp_path / "file", "test")
