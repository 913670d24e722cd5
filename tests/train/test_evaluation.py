"""Whole evaluations of a model whose every answer is known: which files come out, and what they are computed from."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import evaluation, metrics
from cxr_train.cli import main

PLOTS = ("confusion", "roc", "precision_recall", "calibration", "grid")


@pytest.fixture(scope="module")
def evaluated(
    brightness_run: Callable[..., Path], brightness_table: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluation.evaluate(brightness_run(folder, mask=True), brightness_table, folder / "evaluation")
    return folder / "evaluation"


def test_every_figure_is_that_of_the_predictions_file(evaluated: Path, brightness_table: Path) -> None:
    content = json.loads((evaluated / "evaluation.json").read_text())
    predictions = pd.read_csv(evaluated / "predictions.csv")
    assert list(predictions.columns) == [
        *("path", "label", "origin", "group", "split", "predicted", "p_bright", "p_dark", "dice", "mask_entropy")
    ]
    table = pd.read_csv(brightness_table, keep_default_na=False)
    assert [Path(path).name for path in predictions["path"]] == sorted(table["path"])
    assert list(content["splits"]) == ["test", "external"]
    for name, part in content["splits"].items():
        rows = predictions[predictions["split"] == name]
        assert part == metrics.report(rows, content["labels"])
    test = content["splits"]["test"]
    assert test["confusion_matrix"] == [[17, 1], [3, 19]]
    assert test["accuracy"] == 0.9
    assert test["masks"] == 20
    # The model's mask is the picture itself, at a quarter of its side.
    assert 0.85 < test["dice"] <= 1
    assert 0 < test["mask_entropy"] < 0.2
    assert test["total_loss"] == pytest.approx(test["log_loss"] + test["mask_entropy"], abs=1e-4)
    assert predictions["dice"].isna().sum() == (table["mask"] == "").sum()
    assert predictions[["p_bright", "p_dark"]].sum(axis=1).to_numpy() == pytest.approx(1)
    assert content["about"]["settings"] == {"seed": 7}


def test_an_edited_predictions_file_changes_every_figure(evaluated: Path, tmp_path: Path) -> None:
    predictions = evaluation.read_predictions(evaluated / "predictions.csv")
    predictions["label"] = predictions["predicted"]
    evaluation.write(predictions, ["bright", "dark"], tmp_path / "out", {})
    test = json.loads((tmp_path / "out" / "evaluation.json").read_text())["splits"]["test"]
    assert test["accuracy"] == test["roc_auc_macro"] == test["balanced_accuracy"] == 1


def test_mask_entropy_by_hand(tmp_path: Path) -> None:
    truth = np.full((8, 8), 127, np.uint8)
    truth[:4, :4], truth[4:, :4] = 255, 0
    Image.fromarray(truth).save(tmp_path / "mask.png")
    dice, entropy = evaluation.score_mask(np.array([[192, 0], [64, 0]], np.uint8), str(tmp_path / "mask.png"))
    assert entropy == pytest.approx(-np.log(0.75))
    assert 0.5 < dice <= 1
    assert np.isnan(evaluation.score_mask(None, str(tmp_path / "mask.png"))).all()
    assert np.isnan(evaluation.score_mask(np.zeros((2, 2), np.uint8), "")).all()
    with pytest.raises(UsageError, match=r"gone\.png"):
        evaluation.score_mask(np.zeros((2, 2), np.uint8), str(tmp_path / "gone.png"))


def test_plots_and_a_page_that_needs_nothing_else(evaluated: Path) -> None:
    page = (evaluated / "report.html").read_text()
    for split in ("test", "external"):
        for kind in PLOTS:
            with Image.open(evaluated / f"{kind}_{split}.png") as picture:
                assert picture.width >= 400
    assert page.count("data:image/png;base64,") == 2 * len(PLOTS)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "never a diagnosis" in page
    assert "no\nevidence for another hospital" in page
    for shown in ("0.900", "seed: 7", "here", "there"):
        assert shown in page


def test_folds_unknown_columns_and_odd_labels_are_kept(evaluated: Path, tmp_path: Path) -> None:
    predictions = evaluation.read_predictions(evaluated / "predictions.csv").query("split == 'test'")
    names = {"bright": "<b>NA", "dark": "None"}
    odd = predictions.replace({"label": names, "predicted": names})
    odd = odd.rename(columns={f"p_{old}": f"p_{new}" for old, new in names.items()})
    odd["fold"], odd["age"] = ["1", "2", "3", "4"] * 10, "40"
    lines = evaluation.write(odd, list(names.values()), tmp_path / "out", {"table": "t.csv"})
    written = pd.read_csv(tmp_path / "out" / "predictions.csv", keep_default_na=False)
    assert {"fold", "age"} <= set(written)
    test = json.loads((tmp_path / "out" / "evaluation.json").read_text())["splits"]["test"]
    assert test["by_fold"].keys() == {"1", "2", "3", "4"}
    assert test["fold_mean"]["accuracy"] == pytest.approx(0.9)
    assert test["fold_std"]["accuracy"] > 0
    assert any("accuracy 0.900 ±" in line for line in lines)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;NA" in page
    assert "<b>NA" not in page


def test_a_split_without_positives_costs_one_sentence(
    evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = evaluation.read_predictions(evaluated / "predictions.csv").query("label == 'dark'")
    lines = evaluation.write(predictions, ["bright", "dark"], tmp_path / "out", {})
    assert any("test: no picture has the label 'bright'" in line for line in lines)
    assert "no picture has the label &#39;bright&#39;" in (tmp_path / "out" / "report.html").read_text()
    assert "NaN" not in (tmp_path / "out" / "evaluation.json").read_text()
    assert capsys.readouterr().err == ""


def test_the_command_takes_splits_and_refuses_in_one_sentence(
    brightness_run: Callable[..., Path], brightness_table: Path, tmp_path: Path
) -> None:
    model = brightness_run(tmp_path / "run", sigmoid=True)
    base = ["evaluate", "--model", str(model), "--out", str(tmp_path / "out"), "--table"]

    def sentence(*arguments: str) -> str:
        done = CliRunner().invoke(main, [*base, *arguments])
        assert done.exit_code == 2, done.output
        return done.output

    done = CliRunner().invoke(main, [*base, str(brightness_table), "--split", "external"])
    assert done.exit_code == 0, done.output
    assert list(json.loads((tmp_path / "out" / "evaluation.json").read_text())["splits"]) == ["external"]

    asked = sentence(str(brightness_table), "--split", "external", "--split", "validation")
    assert "the split 'validation' is empty" in asked
    assert "test, external" in asked
    text = brightness_table.read_text()
    for old, new, expected in (
        (",dark,", ",flu,", "no label ['flu']"),
        ("06.png", "gone.png", "gone.png"),
        ("test", "train", "no row is of"),
    ):
        other = brightness_table.with_name("other.csv")
        other.write_text(text.replace(old, new).replace("external", "train" if old == "test" else "external"))
        assert expected in sentence(str(other))
    (tmp_path / "file").write_text("")
    predictions = evaluation.read_predictions(tmp_path / "out" / "predictions.csv")
    with pytest.raises(OutputUnwritable, match="file cannot be written"):
        evaluation.write(predictions, ["dark", "bright"], tmp_path / "file", {})
