"""Every kind of model that the training room makes goes from model.keras to verdicts.csv: with or without a mask, a
softmax or a sigmoid, dense layers, three channels, any input size.

The networks are tiny and random. Each picture's label in the table is what the float model says of it, so whatever
the int8 file gets wrong is the conversion's doing.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from ai_edge_litert import schema_py_generated as schema
from click.testing import CliRunner
from keras import layers
from numpy.typing import NDArray
from PIL import Image

from cxr_convert import describe
from cxr_convert.cli import main
from cxr_convert.predict import read_input
from cxr_edge import model_file, phantom
from cxr_edge.errors import ExitCode
from cxr_edge.preprocess import InputSpec, scale
from cxr_edge.runtime import Engine, find_runtime

PICTURES = 60
SCRIPT = Path(sys.executable).with_name("cxr-edge")


@dataclass(frozen=True)
class Kind:
    """A kind of model: `body` gives the features and, maybe, the mask."""

    labels: tuple[str, ...]
    task: str
    spec: InputSpec
    body: Callable[[Any], tuple[Any, Any]]
    training: dict[str, Any]
    external: bool


def _three_channels(image: Any) -> tuple[Any, Any]:
    x = layers.Concatenate()([image, image, image])
    x = layers.Rescaling(127.5, 127.5)(x)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(12, 5, strides=4, activation="relu")(x)
    return layers.Dropout(0.5)(layers.Flatten()(layers.AveragePooling2D(6)(x))), None


def _dense(image: Any) -> tuple[Any, Any]:
    x = layers.Conv2D(8, 3, use_bias=False)(image)
    x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    return layers.Dropout(0.5)(x), None


def _with_mask(image: Any) -> tuple[Any, Any]:
    x = layers.SeparableConv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    return layers.Flatten()(layers.AveragePooling2D(4)(x)), layers.Conv2D(1, 1, activation="sigmoid")(x)


KINDS = {
    "softmax": Kind(
        ("normal", "pneumonia", "covid19"),
        "softmax",
        InputSpec(72, 56),
        _three_channels,
        {"preset": "two-phase", "network": "transfer", "backbone": "resnet50", "alpha": 1.0, "weights": "imagenet"},
        external=False,
    ),
    "sigmoid": Kind(
        ("healthy", "tumour"),
        "sigmoid",
        InputSpec(50, 50),
        _dense,
        {"preset": "cnn-4conv", "network": "cnn-4conv", "weights": None, "frozen_epochs": 0, "fine_epochs": 10},
        external=False,
    ),
    "multitask": Kind(
        ("normal", "pneumonia"),
        "softmax",
        InputSpec(64, 64),
        _with_mask,
        {"alpha": 0.35, "weights": None, "frozen_epochs": 1, "fine_epochs": 2, "seed": 3},
        external=True,
    ),
}


def build(kind: Kind, pixels: NDArray[np.float32]) -> keras.Model:
    """A random network whose outputs differ from picture to picture as much as a trained one's."""
    keras.utils.set_random_seed(1)
    image = keras.Input((kind.spec.height, kind.spec.width, 1))
    features, mask = kind.body(image)
    head = layers.Dense(1 if kind.task == "sigmoid" else len(kind.labels), activation=kind.task)
    outputs = {"probabilities": head(features)} | ({} if mask is None else {"mask": mask})
    values = keras.Model(image, features).predict(pixels, verbose=0)
    centre = values.mean(axis=0)
    # Along the features' two main directions, the labels' logits evenly around the circle.
    directions = np.linalg.svd(values - centre, full_matrices=False)[2][:2].T
    directions *= 3 / ((values - centre) @ directions).std(axis=0)
    turns = 2 * np.pi * np.arange(head.units) / head.units
    weights = directions @ np.stack([np.cos(turns), np.sin(turns)])
    head.set_weights([weights, -centre @ weights])
    return keras.Model(image, outputs)


@dataclass(frozen=True)
class Source:
    """What `cxr-convert` is given."""

    kind: Kind
    model: keras.Model
    pixels: NDArray[np.uint8]
    table: pd.DataFrame
    folder: Path

    def convert(self, *options: str) -> tuple[int, str]:
        """Run `cxr-convert`; its exit code and what it said."""
        arguments = [str(self.folder / "model.keras"), "--calibration", str(self.folder / "table.csv")]
        done = CliRunner().invoke(main, [*arguments, "-o", str(self.folder / "m.tflite"), *options])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `images` and a folder `masks` of phantoms."""
    folder = tmp_path_factory.mktemp("phantoms")
    (folder / "images").mkdir()
    (folder / "masks").mkdir()
    for number in range(PICTURES):
        drawn = phantom.draw(number, height=120, width=100 + 8 * (number % 5), opacity=number % 2 == 1)
        Image.fromarray(drawn.image).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(drawn.lung_mask.astype(np.uint8) * np.uint8(255)).save(folder / "masks" / f"{number:02}.png")
    return folder


def make_source(kind: Kind, pictures: Path, folder: Path) -> Source:
    files = sorted((pictures / "images").iterdir())
    pixels = np.concatenate([read_input(str(file), kind.spec) for file in files])
    model = build(kind, scale(pixels))
    probabilities = model.predict(scale(pixels), verbose=0)["probabilities"]
    best = probabilities[:, 0] > 0.5 if kind.task == "sigmoid" else probabilities.argmax(axis=1)
    splits = ["train", "train", "validation", "test", "external" if kind.external else "test"]
    table = pd.DataFrame(
        {
            "path": [str(file) for file in files],
            "label": [kind.labels[int(index)] for index in best],
            "mask": [str(pictures / "masks" / file.name) if kind.external else "" for file in files],
            "origin": [("clinic-a", "clinic-b")[number // 7 % 2] for number in range(len(files))],
            "split": [splits[number % 5] for number in range(len(files))],
        }
    )
    table.to_csv(folder / "table.csv", index=False)
    model.save(folder / "model.keras")
    counts = [{"origin": "clinic-a", "label": kind.labels[0], "split": "train", "pictures": 12}]
    described = {
        "labels": list(kind.labels),
        "task": kind.task,
        "input": asdict(kind.spec),
        "training": kind.training,
        "data": counts,
        "licences": [{"origin": "clinic-a", "licence": "none: phantoms", "pictures": 12}],
        "tool": "a test",
    }
    if kind.external:
        del described["task"]  # as the first cxr-train wrote it
    (folder / "model.json").write_text(json.dumps(described))
    return Source(kind, model, pixels, table, folder)


@pytest.fixture(scope="module", params=sorted(KINDS))
def source(request: pytest.FixtureRequest, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A model of each kind, converted to `m.tflite`."""
    made = make_source(KINDS[request.param], pictures, tmp_path_factory.mktemp(request.param))
    options = ["--intended-use", "Slices of brain MRI."] if request.param == "sigmoid" else []
    code, said = made.convert("--licence", "CC0", *options)
    assert code == 0, said
    return made


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
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["verdict"] for row in rows} <= {*labels, "uncertain"}
    for row in rows:
        assert sum(float(row[f"p_{label}"]) for label in labels) == pytest.approx(1, abs=0.002)
        assert row["confidence"] == max(row[f"p_{label}"] for label in labels)
    truth = dict(zip((Path(path).name for path in source.table["path"]), source.table["label"], strict=True))
    certain = [row for row in rows if row["verdict"] != "uncertain"]
    assert len(certain) >= PICTURES / 4
    assert {row["verdict"] for row in certain} == set(labels)
    assert np.mean([row["verdict"] == truth[row["path"]] for row in certain]) > 0.95

    masked = "mask" in source.model.output
    assert {bool(row["mask"] and row["lung_area_pct"]) for row in rows} == {masked}
    assert {row["affected_pct"] for row in rows} == {""}
    assert ((tmp_path / "masks").exists(), str(tmp_path / "masks") in done.stdout) == (masked, masked)


def test_the_card_fits_the_model(source: Source) -> None:
    shown = subprocess.run(
        [SCRIPT, "model", "show", source.folder / "m.tflite"], capture_output=True, text=True, check=True
    ).stdout
    kind, masked = source.kind, "mask" in source.model.output
    assert "never a diagnosis" in shown
    assert f"Labels: {', '.join(kind.labels)}; lung mask: {'yes' if masked else 'no'}" in shown
    assert f"Input: {kind.spec.width} x {kind.spec.height} gray" in shown
    assert f"Network: {describe.network(kind.training)}" in shown
    assert ("Slices of brain MRI." in shown, "chest" in shown) == (
        (True, False) if kind.task == "sigmoid" else (False, True)
    )
    assert ("Dice" in shown) == masked
    for table in (part for part in shown.split("\n\n") if part.startswith("|")):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert ("| external | all |" in shown) == kind.external
    assert ("no pictures from elsewhere" in shown) != kind.external


def test_the_figures_are_those_of_the_model(source: Source) -> None:
    """The truth is what the float model says, so its accuracy is 1, and the int8 file's lacks no more than flips."""
    about = model_file.read(source.folder / "m.tflite").manifest.about
    assert about["parity"]["float"]["accuracy"] == 1
    assert about["parity"]["int8"]["accuracy"] == pytest.approx(1 - about["parity"]["flips_pct"] / 100, abs=1e-3)
    (test,) = (record for record in about["figures"] if (record["split"], record["origin"]) == ("test", "all"))
    assert test["accuracy"] == about["parity"]["int8"]["accuracy"] > 0.8


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
    assert describe.network(training) == line


# What cannot be converted


@pytest.fixture
def broken(pictures: Path, tmp_path: Path) -> Source:
    """A sigmoid model, to be spoilt."""
    return make_source(KINDS["sigmoid"], pictures, tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ["healthy", "tumour", "cyst"]}, "task 'sigmoid' with 3 labels is unknown"),
        ({"task": "regression"}, "task 'regression' with 2 labels is unknown"),
        ({"task": "softmax"}, "are not those of softmax with 2 labels at 50 x 50"),
        ({"input": asdict(InputSpec(60, 50))}, "are not those of sigmoid with 2 labels at 60 x 50"),
        ({"input": {"height": 50, "depth": 3}}, "cannot be read"),
        ({"training": None, "tool": None, "labels": None}, "cannot be read"),
    ],
    ids=str,
)
def test_a_description_of_another_model_is_refused(broken: Source, changes: dict[str, Any], sentence: str) -> None:
    file = broken.folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    code, said = broken.convert()
    assert (code, sentence in said) == (ExitCode.USAGE, True), said
    assert "try:" in said


def test_a_description_that_lacks_a_field_is_refused(broken: Source) -> None:
    file = broken.folder / "model.json"
    described = json.loads(file.read_text())
    del described["licences"]
    file.write_text(json.dumps(described))
    code, said = broken.convert()
    assert (code, "has no field 'licences'" in said) == (ExitCode.USAGE, True), said


def test_what_keras_cannot_load_is_refused(broken: Source) -> None:
    (broken.folder / "model.keras").write_bytes(b"no model")
    code, said = broken.convert()
    assert (code, "Keras cannot load it" in said) == (ExitCode.USAGE, True), said


def test_a_model_whose_outputs_have_no_names_is_refused(broken: Source) -> None:
    bare = keras.Sequential([keras.Input((50, 50, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")])
    bare.save(broken.folder / "model.keras")
    code, said = broken.convert()
    assert (code, "without names" in said) == (ExitCode.USAGE, True), said


def test_a_validation_split_that_lacks_a_label_is_refused(broken: Source) -> None:
    lacking = (broken.table["split"] == "validation") & (broken.table["label"] == "tumour")
    broken.table.assign(split=broken.table["split"].mask(lacking, "train")).to_csv(
        broken.folder / "table.csv", index=False
    )
    code, said = broken.convert()
    assert (code, "no validation picture has the label ['tumour']" in said) == (ExitCode.USAGE, True), said
    assert not (broken.folder / "m.tflite").exists()
