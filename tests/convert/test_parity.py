from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cxr_convert import parity, table
from cxr_edge.model_file import Manifest
from cxr_edge.preprocess import InputSpec

MANIFEST = Manifest(
    name="m",
    task="softmax",
    labels=("normal", "pneumonia"),
    input=InputSpec(),
    outputs={"probabilities": "p", "mask": "m"},
    temperature=1.0,
    uncertain_below=0.7,
    mask_threshold=0.5,
    tflite_sha256="",
)


def rows() -> pd.DataFrame:
    wide = [[0.9, 0.1], [0.55, 0.45], [0.2, 0.8], [0.1, 0.9]]
    narrow = [[0.9, 0.1], [0.45, 0.55], [0.2, 0.8], [0.1, 0.9]]
    return pd.DataFrame(
        {
            "label": ["normal", "normal", "pneumonia", "normal"],
            "origin": ["a", "a", "b", "b"],
            "split": "test",
            "float": [np.array(p) for p in wide],
            "int8": [np.array(p) for p in narrow],
            "quantised": [np.rint(np.array(p) * 256).astype(np.uint8) for p in narrow],
            "float_dice": [0.9, np.nan, np.nan, 0.8],
            "int8_dice": [0.8, np.nan, np.nan, 0.8],
        }
    )


def test_parity_by_hand() -> None:
    result = parity.parity(rows(), MANIFEST)
    assert result["flips_pct"] == 25
    assert result["flips_of_certain_pct"] == 0
    assert result["mean_abs_probability_error"] == pytest.approx(0.025)
    assert (result["float"]["accuracy"], result["int8"]["accuracy"]) == (0.75, 0.5)
    assert result["int8"]["sensitivity"] == {"normal": 0.3333, "pneumonia": 1.0}
    assert (result["float"]["dice"], result["int8"]["dice"], result["int8"]["masks"]) == (0.85, 0.8, 2)


def test_a_sigmoid_gives_the_figures_of_the_same_softmax() -> None:
    """Its one output is the second label's probability: nothing else differs."""
    of_sigmoid = rows().assign(quantised=[both[1:] for both in rows()["quantised"]])
    sigmoid = replace(MANIFEST, task="sigmoid")
    assert parity.figures(of_sigmoid, sigmoid) == parity.figures(rows(), MANIFEST)
    assert parity.parity(of_sigmoid, sigmoid) == parity.parity(rows(), MANIFEST)


def test_figures_are_told_by_origin() -> None:
    records = parity.figures(rows(), MANIFEST)
    assert [(r["split"], r["origin"], r["pictures"]) for r in records] == [
        ("test", "all", 4),
        ("test", "a", 2),
        ("test", "b", 2),
    ]
    assert [r["uncertain_pct"] for r in records] == [25, 50, 0]
    assert [r["accuracy_when_certain"] for r in records] == [0.6667, 1.0, 0.5]


def test_representative_pictures_are_training_pictures_of_every_cell() -> None:
    frame = pd.DataFrame({"label": ["a"] * 100 + ["b"] * 10, "origin": "x", "split": "train", "path": range(110)})
    frame.loc[::2, "split"] = "test"
    chosen = table.representative(frame, 8, seed=0)
    assert set(chosen["split"]) == {"train"}
    assert chosen["label"].value_counts().to_dict() == {"a": 4, "b": 4}
    assert list(chosen["path"]) == list(table.representative(frame, 8, seed=0)["path"])
    assert len(table.representative(frame, 1000, seed=0)) == 55
