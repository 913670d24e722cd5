"""The contradiction that three of the original projects published, and that `evaluate` cannot fall into.

A Keras generator shuffles by default. Predictions made from it, compared with `generator.classes`, which are in the
order of the files, say that a good model guesses, while `model.evaluate` on the same generator says that it is good.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import confusion_matrix

from cxr_train import evaluation

SIDE = 16


@pytest.fixture(scope="module")
def model(brightness_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return brightness_run(tmp_path_factory.mktemp("model"))


def class_folders(table_file: Path, folder: Path) -> Path:
    """The pictures of a table as class folders, which is what generators read."""
    for row in pd.read_csv(table_file).itertuples():
        (folder / row.label).mkdir(parents=True, exist_ok=True)
        with Image.open(table_file.parent / row.path) as image:
            image.save(folder / row.label / Path(row.path).name)
    return folder


def test_a_shuffled_generator_contradicts_itself(model: Path, brightness_table: Path, tmp_path: Path) -> None:
    network = tf.keras.models.load_model(model, compile=False)
    single = tf.keras.Model(network.input, network.output["probabilities"])
    single.compile(loss="categorical_crossentropy", metrics=["accuracy"])
    folder = class_folders(brightness_table, tmp_path)
    source = tf.keras.preprocessing.image.ImageDataGenerator(
        preprocessing_function=lambda gray: gray - 127.5, rescale=1 / 127.5
    )

    def judge(**order: Any) -> tuple[float, float]:
        """The accuracy that Keras computes, and that of its predictions against the labels in file order."""
        generator = source.flow_from_directory(
            folder, target_size=(SIDE, SIDE), color_mode="grayscale", batch_size=8, **order
        )
        _, accuracy = single.evaluate(generator, verbose=0)
        generator.reset()
        predicted = single.predict(generator, verbose=0).argmax(axis=1)
        matrix = confusion_matrix(generator.classes, predicted)
        return accuracy, np.trace(matrix) / matrix.sum()

    accuracy, published = judge(seed=1)
    assert accuracy == pytest.approx(38 / 42)
    assert published < 0.7
    # Nothing but the order is to blame.
    assert list(judge(shuffle=False)) == pytest.approx([38 / 42, 38 / 42])


def test_evaluate_gives_one_answer_whatever_the_order(model: Path, brightness_table: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(brightness_table, keep_default_na=False)
    answers = []
    for seed in (None, 1):
        shuffled = rows if seed is None else rows.sample(frac=1, random_state=seed)
        assert seed is None or list(shuffled["path"]) != list(rows["path"])
        table = brightness_table.with_name(f"shuffled-{seed}.csv")
        shuffled.to_csv(table, index=False)
        out = tmp_path / str(seed)
        lines = evaluation.evaluate(model, table, out, ["test"])
        files = {file.name: file.read_bytes() for file in sorted(out.glob("*.png"))}
        files["predictions.csv"] = (out / "predictions.csv").read_bytes()
        files["splits"] = json.dumps(json.loads((out / "evaluation.json").read_text())["splits"]).encode()
        answers.append((lines[:-1], files))
    assert len(answers[0][1]) == 5 + 2
    assert answers[0] == answers[1]

    # A predictions file in another order, too, is the same evidence.
    predictions = evaluation.read_predictions(tmp_path / "None" / "predictions.csv")
    evaluation.write(predictions.sample(frac=1, random_state=5), ["bright", "dark"], tmp_path / "again", {})
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == answers[0][1]["predictions.csv"]
    splits = json.loads((tmp_path / "None" / "evaluation.json").read_text())["splits"]
    assert json.loads((tmp_path / "again" / "evaluation.json").read_text())["splits"] == splits
    assert splits["test"]["accuracy"] == 0.9
