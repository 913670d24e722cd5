"""Every kind of model that the training room makes goes from model.keras to verdicts.csv: with or without a mask,
activation and embedding, a softmax or a sigmoid, dense layers, three channels, any input size.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from cxr_convert import card, runtimes
from cxr_edge import model_file
from cxr_edge.manifest import OPERATING_POINTS
from cxr_edge.preprocess import scale
from cxr_edge.runtime import Engine, find_runtime

if TYPE_CHECKING:
    from tests.convert.conftest import Source

SCRIPT = Path(sys.executable).with_name("cxr-edge")


def test_the_int8_file_says_what_the_float_model_says(source: Source) -> None:
    engine = Engine(find_runtime(), model_file.read(source.folder / "m.tflite"))
    wide = source.model.predict(scale(source.pixels), verbose=0)
    narrow = [engine.infer(pixels[np.newaxis]) for pixels in source.pixels]
    assert set(wide) == set(narrow[0])
    gaps = np.abs(np.stack([result["probabilities"] for result in narrow]) / 256 - wide["probabilities"])
    assert np.ptp(wide["probabilities"]) > 0.5
    assert gaps.mean() < 5 / 256
    assert gaps.max() < 30 / 256
    if "mask" in wide:
        masks = np.stack([result["mask"] for result in narrow])[..., np.newaxis]
        assert np.abs(masks / 256 - wide["mask"]).mean() < 3 / 256


def test_the_scan_tells_every_picture_its_label_or_uncertain(source: Source, pictures: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        SCRIPT,
        "scan",
        pictures / "images",
        "-o",
        tmp_path,
        "--model",
        source.folder / "m.tflite",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    labels = source.kind.labels
    assert [name for name in rows[0] if name.startswith("p_")] == [f"p_{label}" for label in labels]
    # The gates' limits come from a dozen pictures here, and some others lie beyond them.
    assert {row["status"] for row in rows} <= {"ok", "rejected"}
    rows = [row for row in rows if row["status"] == "ok"]
    assert len(rows) >= 0.9 * len(source.table)
    assert {row["verdict"] for row in rows} <= {*labels, "uncertain"}
    for row in rows:
        assert sum(float(row[f"p_{label}"]) for label in labels) == pytest.approx(1, abs=0.002)
        assert row["confidence"] == max(row[f"p_{label}"] for label in labels)
    truth = dict(zip((Path(path).name for path in source.table["path"]), source.table["label"], strict=True))
    certain = [row for row in rows if row["verdict"] != "uncertain"]
    assert len(certain) >= len(source.table) / 4
    assert {row["verdict"] for row in certain} == set(labels)
    assert np.mean([row["verdict"] == truth[row["path"]] for row in certain]) > 0.9

    masked = "mask" in source.model.output
    assert {bool(row["mask"] and row["lung_area_pct"]) for row in rows} == {masked}
    assert {row["affected_pct"] != "" for row in rows} == {"activation" in source.model.output}
    assert (tmp_path / "masks").exists() == masked


def test_the_card_fits_the_model(source: Source) -> None:
    shown = subprocess.run(
        [SCRIPT, "model", "show", source.folder / "m.tflite"], capture_output=True, text=True, check=True
    ).stdout
    kind, masked = source.kind, "mask" in source.model.output
    assert "never a diagnosis" in shown
    assert f"Labels: {', '.join(kind.labels)}; lung mask: {'yes' if masked else 'no'}" in shown
    assert f"Input: {kind.spec.width} x {kind.spec.height} gray" in shown
    assert f"Network: {card.network(kind.training)}" in shown
    assert ("Slices of brain MRI." in shown, "chest" in shown) == (
        (True, False) if kind.task == "sigmoid" else (False, True)
    )
    assert ("Dice" in shown) == masked
    for table in (part for part in shown.split("\n\n") if part.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert ("| external | all |" in shown) == kind.external
    assert ("no pictures from elsewhere" in shown) != kind.external


def test_the_figures_are_those_of_the_model(source: Source) -> None:
    """The truth is what the float model says, but for the operating point, so the file's accuracy lacks flips only."""
    about = model_file.read(source.folder / "m.tflite").manifest.about
    assert set(about["parity"]) == {each["runtime"] for each in about["runtimes"] if each["runs"]}
    first = next(iter(about["parity"].values()))
    assert first["float"]["accuracy"] >= 0.9
    assert first["file"]["accuracy"] >= first["float"]["accuracy"] - first["flips_pct"] / 100 - 1e-3
    (test,) = (record for record in about["figures"] if (record["split"], record["origin"]) == ("test", "all"))
    assert test["accuracy"] == first["file"]["accuracy"] > 0.8
    assert set(about["operating_points"]) == set(OPERATING_POINTS)
    assert about["operating_points"]["screening"]["validation"]["sensitivity"] >= 0.95
    assert about["operating_points"]["rule-in"]["validation"]["specificity"] >= 0.95
    assert about["coverage_pct"]["test"] == 100 - test["uncertain_pct"]


def test_gray_levels_are_fed_as_they_are(source: Source) -> None:
    """The zero point of -1 to 1 is half a step off, and rounding each level on its own would merge some."""
    assert Engine(find_runtime(), model_file.read(source.folder / "m.tflite"))._levels is None


def test_runtimes_agree(source: Source) -> None:
    about = model_file.read(source.folder / "m.tflite").manifest.about
    others = list(about["parity"].values())[1:]
    assert others
    for record in others:
        assert record["agreement"]["certain_that_differ"] == 0
        assert record["agreement"]["mean_abs_difference"] <= 0.015


def test_the_operators_are_told_with_their_versions(source: Source) -> None:
    about = model_file.read(source.folder / "m.tflite").manifest.about
    versions = {each["operator"]: each["version"] for each in about["operators"]}
    assert about["type"] == "int8"
    assert versions["CONV_2D"] >= 3  # from 3 on, it takes integers
    assert ("SOFTMAX" in versions, "LOGISTIC" in versions) >= (source.kind.task == "softmax", False)
    assert f"CONV_2D {versions['CONV_2D']}" in model_file.read(source.folder / "m.tflite").card


def test_the_golden_input_gives_the_golden_outputs(source: Source) -> None:
    read = model_file.read(source.folder / "m.tflite")
    assert read.golden.pixels.shape == (source.kind.spec.height, source.kind.spec.width)
    outputs = Engine(find_runtime(), read).infer(read.golden.pixels[np.newaxis, :, :, np.newaxis])
    assert set(read.golden.outputs) == {"probabilities", "mask"} & set(outputs)
    for name, expected in read.golden.outputs.items():
        np.testing.assert_array_equal(outputs[name], expected)


def test_the_golden_input_is_a_phantom(everything: Source) -> None:
    golden = model_file.read(everything.folder / "m.tflite").golden
    np.testing.assert_array_equal(golden.pixels, runtimes.golden_pixels(everything.kind.spec))
    with zipfile.ZipFile(everything.folder / "m.tflite") as archive:
        assert "golden/input.png" in archive.namelist()


def test_the_same_conversion_gives_the_same_bytes(everything: Source) -> None:
    first = (everything.folder / "m.tflite").read_bytes()
    code, said = everything.convert("--licence", "CC0", "--over-budget")
    assert (code, (everything.folder / "m.tflite").read_bytes() == first) == (0, True), said


def test_all_outputs_are_described(everything: Source) -> None:
    read = model_file.read(everything.folder / "m.tflite")
    manifest = read.manifest
    assert (manifest.negative, set(manifest.outputs)) == ("normal", set(everything.model.output))
    assert manifest.familiar is not None
    assert len(manifest.familiar.mean) == 6
    assert manifest.affected is not None
    assert f"{manifest.affected.threshold:g}" in manifest.affected.definition
    assert manifest.affected.definition in read.card
    assert manifest.lung_area_pct is not None
    low, high = manifest.lung_area_pct
    assert 0 < low < 30 < high < 100


@pytest.mark.parametrize("kind", ["float32", "float16", "dynamic"])
def test_other_types_are_written_too(everything: Source, kind: str, tmp_path: Path) -> None:
    folder, out = everything.folder, tmp_path / f"{kind}.tflite"
    arguments = (folder / "model.keras", "--calibration", folder / "table.csv", "--type", kind, "-o", out)
    code, said = everything.run("convert", *arguments, "--negative", "covid19", "--over-budget")
    assert code == 0, said
    read = model_file.read(out)
    assert (read.manifest.about["type"], read.manifest.negative) == (kind, "covid19")
    (record, *_) = read.manifest.about["parity"].values()
    assert record["mean_abs_probability_error"] <= (0.02 if kind == "dynamic" else 0.002)
    assert read.manifest.about["representative_pictures"] == 0


def test_dense_layers_have_one_scale(source: Source) -> None:
    """TFLite runtimes before 2.10 compute wrong what has one for each channel, and say nothing."""
    flatbuffer = (source.folder / "m.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    (graph,) = model.subgraphs
    dense = [
        operator
        for operator in graph.operators
        if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED
    ]
    assert dense
    assert {len(graph.tensors[operator.inputs[1]].quantization.scale) for operator in dense} == {1}


@pytest.mark.parametrize(
    ("training", "line"),
    [
        ({}, "not stated"),
        ({"network": "transfer", "backbone": "resnet50", "alpha": 1.0}, "ResNet50"),
        (
            {"network": "transfer", "backbone": "mobilenet_v2", "alpha": 0.5, "weights": None},
            "MobileNetV2, alpha 0.5, first weights random",
        ),
        ({"network": "cnn-bn", "backbone": "vgg16", "fine_epochs": 9, "seed": 0}, "cnn-bn, 9 epochs, seed 0"),
        (
            {"alpha": 1.0, "weights": "a.h5", "frozen_epochs": 3, "fine_epochs": 20, "seed": 1},
            "MobileNetV2, alpha 1, first weights a.h5, 3 frozen and 20 fine-tuning epochs, seed 1",
        ),
    ],
)
def test_the_network_is_told_as_far_as_it_is_known(training: dict[str, Any], line: str) -> None:
    assert card.network(training) == line
