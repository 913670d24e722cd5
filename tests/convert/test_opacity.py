"""The affected area against outlines: figures with an answer that is known beforehand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxr_convert import opacity
from cxr_edge.manifest import OPERATING_POINTS, Affected, Manifest
from cxr_edge.preprocess import InputSpec

MANIFEST = Manifest(
    name="m",
    task="softmax",
    labels=("normal", "pneumonia"),
    negative="normal",
    input=InputSpec(64, 64),
    outputs={"probabilities": "a", "mask": "b", "activation": "c"},
    temperature=1.0,
    uncertain_below=0.0,
    operating_points=dict.fromkeys(OPERATING_POINTS, 0.5),
    mask_threshold=0.5,
    lung_area_pct=None,
    familiar=None,
    affected=Affected(0.5, "half"),
    tflite_sha256="",
)


class Suspicious:
    """An engine that suspects the left or the right half of lungs that fill the frame."""

    def __init__(self, left: bool) -> None:
        self.left = left

    def infer(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Ignore the picture."""
        assert pixels.shape == (1, 64, 64, 1)
        activation = np.zeros((8, 8, 2), np.uint8)
        activation[:, :4, 0], activation[:, 4:, 0] = (10, 250) if self.left else (250, 10)
        return {"activation": activation, "mask": np.full((16, 16), 255, np.uint8)}


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    """Three radiographs: two with outlines in their left half, one of them in two files; one without any."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80)).astype(np.uint8)).save(tmp_path / "p.png")
    for name, part in (("top", np.s_[:40, :40]), ("bottom", np.s_[40:, :40]), ("all", np.s_[:, :40])):
        mask = np.zeros((80, 80), np.uint8)
        mask[part] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    opacities = [str(tmp_path / "all.png"), f"{tmp_path / 'top.png'};{tmp_path / 'bottom.png'}", ""]
    return pd.DataFrame({"path": str(tmp_path / "p.png"), "split": ["test", "train", "test"], "opacity": opacities})


@pytest.mark.parametrize("left", [True, False])
def test_an_engine_that_knows_and_one_that_is_misled(rows: pd.DataFrame, left: bool) -> None:
    test, train = opacity.check(Suspicious(left), rows, MANIFEST)  # type: ignore[arg-type]
    assert (test["split"], test["pictures"], train["split"], train["pictures"]) == ("test", 1, "train", 1)
    for record in (test, train):
        assert record["pixel_auc"] == pytest.approx(1.0 if left else 0.0, abs=0.02)
        assert record["peak_hit"] == (1.0 if left else 0.0)
        assert record["by_chance"] == pytest.approx(0.5)


def test_outlines_outside_the_lungs_tell_nothing(rows: pd.DataFrame) -> None:
    engine = Suspicious(left=True)
    found = engine.infer(np.zeros((1, 64, 64, 1), np.uint8))
    found["mask"][:, :8] = 0
    engine.infer = lambda pixels: found  # type: ignore[method-assign]  # noqa: ARG005
    assert opacity.check(engine, rows, MANIFEST) == []  # type: ignore[arg-type]


def test_a_table_without_outlines_has_no_figures(rows: pd.DataFrame) -> None:
    assert opacity.check(Suspicious(left=True), rows.assign(opacity=""), MANIFEST) == []  # type: ignore[arg-type]
