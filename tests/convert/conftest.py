"""Small models of every kind that the training room makes, and phantoms to judge with them.

The networks are tiny and random. Each picture's label in the table is what the float model says of it, so whatever
the file gets wrong is the conversion's doing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from keras import layers
from numpy.typing import NDArray
from PIL import Image

from cxr_convert.cli import main
from cxr_convert.predict import read_input
from cxr_edge import phantom
from cxr_edge.preprocess import InputSpec, scale

PICTURES = 60


@dataclass(frozen=True)
class Kind:
    """A kind of model: `body` gives the features, and the outputs besides `probabilities`."""

    labels: tuple[str, ...]
    task: str
    spec: InputSpec
    body: Callable[[Any], tuple[Any, dict[str, Any]]]
    training: dict[str, Any]
    external: bool


def _three_channels(image: Any) -> tuple[Any, dict[str, Any]]:
    x = layers.Concatenate()([image, image, image])
    x = layers.Rescaling(127.5, 127.5)(x)
    x = layers.Rescaling(1 / 255)(x)
    x = layers.Conv2D(12, 5, strides=4, activation="relu")(x)
    return layers.Dropout(0.5)(layers.Flatten()(layers.AveragePooling2D(6)(x))), {}


def _dense(image: Any) -> tuple[Any, dict[str, Any]]:
    x = layers.Conv2D(8, 3, use_bias=False)(image)
    x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
    return layers.Dropout(0.5)(x), {}


def _lungs(x: Any) -> Any:
    """Probability of lung: two ellipses side by side, and a little of what the picture says."""
    _, height, width, _ = x.shape
    y, across = np.linspace(-1, 1, height)[:, np.newaxis], np.abs(np.linspace(-1, 1, width))
    inside = 1 - ((across - 0.45) / 0.35) ** 2 - (y / 0.75) ** 2
    picture = layers.Conv2D(1, 1, activation="tanh")(x)
    prior = (4 * np.clip(inside, -1, 1)).astype(np.float32)[np.newaxis, :, :, np.newaxis]
    return layers.Activation("sigmoid")(keras.ops.add(picture, prior))


def _with_mask(image: Any) -> tuple[Any, dict[str, Any]]:
    x = layers.SeparableConv2D(8, 5, strides=4, padding="same", activation="relu")(image)
    cells = layers.Conv2D(16, 4, strides=4, activation="relu")(x)
    return layers.Flatten()(cells), {"mask": _lungs(x)}


def _with_everything(image: Any) -> tuple[Any, dict[str, Any]]:
    x = layers.SeparableConv2D(8, 5, strides=4, padding="same", activation="relu")(image)
    cells = layers.Conv2D(16, 4, strides=4, activation="relu")(x)
    evidence = layers.Conv2D(3, 1, activation="softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=9))
    embedding = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, strides=2, activation="relu")(x))
    outputs = {"mask": _lungs(x), "activation": evidence(cells), "embedding": embedding}
    return layers.Flatten()(cells), outputs


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
    "everything": Kind(
        ("covid19", "normal", "pneumonia"),
        "softmax",
        InputSpec(64, 96),
        _with_everything,
        {"alpha": 0.35, "weights": None},
        external=True,
    ),
}


def build(kind: Kind, pixels: NDArray[np.float32]) -> keras.Model:
    """A random network whose outputs differ from picture to picture as much as a trained one's."""
    keras.utils.set_random_seed(1)
    image = keras.Input((kind.spec.height, kind.spec.width, 1))
    features, more = kind.body(image)
    head = layers.Dense(1 if kind.task == "sigmoid" else len(kind.labels), activation=kind.task)
    outputs = {"probabilities": head(features), **more}
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

    def run(self, *arguments: str | Path) -> tuple[int, str]:
        """Run `cxr-convert`; its exit code and what it said."""
        done = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
        return done.exit_code, done.output

    def convert(self, *options: str) -> tuple[int, str]:
        """Convert the model to `m.tflite`."""
        arguments = (self.folder / "model.keras", "--calibration", self.folder / "table.csv")
        return self.run(*arguments, "-o", self.folder / "m.tflite", *options)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def conversions(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """A model of the kind that is named, converted to `m.tflite` when it is first asked for."""

    @functools.cache
    def converted(name: str) -> Source:
        made = make_source(KINDS[name], pictures, tmp_path_factory.mktemp(name))
        options = ["--intended-use", "Slices of brain MRI."] if name == "sigmoid" else []
        # One verdict of a dozen is 8 %: no budget can be kept on so few pictures.
        code, said = made.convert("--licence", "CC0", "--over-budget", *options)
        assert code == 0, said
        return made

    return converted


@pytest.fixture(scope="session", params=sorted(KINDS))
def source(request: pytest.FixtureRequest, conversions: Callable[[str], Source]) -> Source:
    """A model of each kind, converted."""
    return conversions(request.param)


@pytest.fixture(scope="session")
def everything(conversions: Callable[[str], Source]) -> Source:
    """A model with all four outputs, converted."""
    return conversions("everything")


@pytest.fixture
def broken(pictures: Path, tmp_path: Path) -> Source:
    """A sigmoid model, to be spoilt."""
    return make_source(KINDS["sigmoid"], pictures, tmp_path)
