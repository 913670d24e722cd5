"""Pictures that one number tells apart, and a model that reads this number: what it must say of them is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_edge.preprocess import InputSpec

SIDE = 16


def network(*, sigmoid: bool = False, mask: bool = False) -> keras.Model:
    """A network without training, labels bright and dark (of a sigmoid: dark, bright), by the mean of the input."""
    image = keras.Input((SIDE, SIDE, 1))
    mean = keras.layers.GlobalAveragePooling2D()(image)
    head = keras.layers.Dense(1 if sigmoid else 2, activation="sigmoid" if sigmoid else "softmax")
    outputs = {"probabilities": head(mean)}
    head.set_weights([np.array([[6.0]] if sigmoid else [[6.0, -6.0]]), np.zeros(1 if sigmoid else 2, np.float32)])
    if mask:
        outputs["mask"] = keras.layers.Rescaling(0.5, offset=0.5)(keras.layers.AveragePooling2D(4)(image))
    return keras.Model(image, outputs)


def save(folder: Path, *, sigmoid: bool = False, mask: bool = False) -> Path:
    """`network` as `model.keras`, with the `model.json` that `fit` writes beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    network(sigmoid=sigmoid, mask=mask).save(folder / "model.keras")
    content = {
        "labels": ["dark", "bright"] if sigmoid else ["bright", "dark"],
        "task": "sigmoid" if sigmoid else "softmax",
        "input": asdict(InputSpec(SIDE, SIDE)),
        "training": {"seed": 7},
    }
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.keras"


@pytest.fixture(scope="session")
def brightness_network() -> Callable[..., keras.Model]:
    """`network`, for tests: they cannot import this file."""
    return network


@pytest.fixture(scope="session")
def brightness_run() -> Callable[..., Path]:
    """`save`, for tests."""
    return save


@pytest.fixture(scope="session")
def brightness_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures of two labels and two origins, 4 of them mislabelled, every other one with a mask; all of `test`.

    Two more are of `external`. The white part of a picture is its lung.
    """
    folder = tmp_path_factory.mktemp("brightness")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(42):
        bright = number % 2 == 0
        white = int(rng.integers(10, 14) if bright else rng.integers(3, 7))
        gray = np.full((4 * SIDE, 4 * SIDE), 20, np.uint8)
        gray[: 4 * white] = 230
        name = f"{(number * 17) % 42:02}.png"
        Image.fromarray(gray).save(folder / name)
        Image.fromarray(np.where(gray > 99, 255, 0).astype(np.uint8)).save(folder / f"mask-{name}")
        rows.append(
            {
                "path": name,
                "label": "bright" if bright != (number in (4, 9, 10, 30)) else "dark",
                "mask": f"mask-{name}" if number % 4 < 2 else "",
                "origin": "here" if number < 28 else "there",
                "group": f"g{number}",
                "split": "test" if number < 40 else "external",
                "licence": "",
            }
        )
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"
