from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_convert import figures, parity, table
from cxr_edge.manifest import Manifest
from cxr_edge.preprocess import InputSpec

MANIFEST = Manifest(
    name="m",
    task="softmax",
    labels=("normal", "pneumonia"),
    negative="normal",
    input=InputSpec(),
    outputs={"probabilities": "p", "mask": "m"},
    temperature=1.0,
    uncertain_below=0.7,
    operating_points={"screening": 0.2, "balanced": 0.5, "rule-in": 0.8},
    mask_threshold=0.5,
    lung_area_pct=None,
    familiar=None,
    affected=None,
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
            "file": [np.array(p) for p in narrow],
            "quantised": [np.rint(np.array(p) * 256).astype(np.uint8) for p in narrow],
            "float_dice": [0.9, np.nan, np.nan, 0.8],
            "file_dice": [0.8, np.nan, np.nan, 0.8],
        }
    )


def test_parity_by_hand() -> None:
    result = parity.parity(rows(), MANIFEST)
    assert result["flips_pct"] == 25
    assert result["flips_of_certain_pct"] == 0
    assert result["mean_abs_probability_error"] == pytest.approx(0.025)
    assert (result["float"]["accuracy"], result["file"]["accuracy"]) == (0.75, 0.5)
    assert result["file"]["sensitivity"] == {"normal": 0.3333, "pneumonia": 1.0}
    assert (result["float"]["dice"], result["file"]["dice"], result["file"]["masks"]) == (0.85, 0.8, 2)
    # Of the pneumonia's probability, 0.8 is above two of three, then above 0.55 and 0.1 but not 0.9 either.
    assert result["file"]["auc"] == {"normal": 0.6667, "pneumonia": 0.6667}


def test_the_verdict_is_that_of_the_default_operating_point() -> None:
    """From 0.15 on everything but the first and most certain picture is a finding, in float as in the file."""
    lower = replace(MANIFEST, operating_points=MANIFEST.operating_points | {"balanced": 0.15})
    result = parity.parity(rows(), lower)
    assert result["flips_pct"] == 0
    assert result["file"]["sensitivity"] == {"normal": 0.3333, "pneumonia": 1.0}
    # Called pneumonia with a probability of 0.55: uncertain.
    chosen, certain = figures.verdicts(figures.calibrated(rows(), lower), lower)
    assert (chosen.tolist(), certain.tolist()) == ([0, 1, 1, 1], [True, False, True, True])


def test_both_sides_are_calibrated_alike() -> None:
    """Rounding the float model's probabilities to 1/256 gives the file's: no flips, whatever the temperature."""
    rng = np.random.default_rng(0)
    narrow = np.clip(np.rint(rng.dirichlet([0.4, 0.4], 500) * 256), 0, 255).astype(np.uint8)
    frame = pd.DataFrame({"label": ["normal", "pneumonia"] * 250, "quantised": list(narrow)})
    frame["file"] = frame["float"] = list(narrow / 256)
    frame["file_dice"] = frame["float_dice"] = np.nan
    result = parity.parity(frame, replace(MANIFEST, temperature=2.5))
    assert (result["flips_pct"], result["flips_of_certain_pct"], result["mean_abs_probability_error"]) == (0, 0, 0)
    assert result["file"] == result["float"]


def test_agreement_counts_what_either_is_certain_of() -> None:
    first, second = rows(), rows()
    second["quantised"] = [np.array(q, np.uint8) for q in ([20, 236], [141, 115], [51, 205], [26, 230])]
    second["file"] = [q / 256 for q in second["quantised"]]
    result = parity.agreement(first, second, MANIFEST)
    # The first picture: certain, and the other way round. The second: uncertain in both.
    assert result["certain_that_differ"] == 1
    assert result["mean_abs_difference"] == pytest.approx((0.8219 + 0.1008) / 4, abs=2e-3)
    assert parity.agreement(first, first, MANIFEST) == {"certain_that_differ": 0, "mean_abs_difference": 0}


KEPT: dict[str, Any] = {
    "flips_pct": 2.0,
    "flips_of_certain_pct": 0.5,
    "mean_abs_probability_error": 0.02,
    "float": {"sensitivity": {"normal": 0.88, "pneumonia": 0.5}, "dice": 0.95},
    "file": {"sensitivity": {"normal": 0.87, "pneumonia": 0.7}, "dice": 0.945},
}


def test_a_budget_that_is_just_kept_is_kept() -> None:
    assert parity.over_budget(KEPT) == []
    assert parity.over_budget(KEPT | {"flips_of_certain_pct": None}) == []
    without_mask = {side: KEPT[side] | {"dice": None} for side in ("float", "file")}
    assert parity.over_budget(KEPT | without_mask) == []


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"flips_pct": 2.01}, "verdict flips 2.01 % (at most 2 %)"),
        ({"flips_of_certain_pct": 0.6}, "verdict flips among certain pictures 0.6 % (at most 0.5 %)"),
        ({"mean_abs_probability_error": 0.0201}, "mean probability error 0.0201 (at most 0.02)"),
        (
            {"file": {"sensitivity": {"normal": 0.8699, "pneumonia": 0.5}, "dice": 0.95}},
            "sensitivity of normal lower by 0.0101 (at most 0.01)",
        ),
        (
            {"file": {"sensitivity": {"normal": 0.88, "pneumonia": 0.5}, "dice": 0.9449}},
            "lung Dice lower by 0.0051 (at most 0.005)",
        ),
    ],
)
def test_each_figure_beyond_the_budget_is_told(change: dict[str, Any], phrase: str) -> None:
    assert parity.over_budget(KEPT | change) == [phrase]


def test_a_sigmoid_gives_the_figures_of_the_same_softmax() -> None:
    """Its one output is the second label's probability: nothing else differs."""
    of_sigmoid = rows().assign(quantised=[both[1:] for both in rows()["quantised"]])
    sigmoid = replace(MANIFEST, task="sigmoid")
    assert figures.by_origin(of_sigmoid, sigmoid) == figures.by_origin(rows(), MANIFEST)
    assert parity.parity(of_sigmoid, sigmoid) == parity.parity(rows(), MANIFEST)


def test_figures_are_told_by_origin() -> None:
    records = figures.by_origin(rows(), MANIFEST)
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
