from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_convert import gates
from cxr_edge import gates as edge_gates
from cxr_edge import judge
from cxr_edge.errors import ModelRefused
from cxr_edge.manifest import Manifest
from cxr_edge.preprocess import InputSpec

MANIFEST = Manifest(
    name="m",
    task="softmax",
    labels=("pneumonia", "normal"),
    negative="normal",
    input=InputSpec(),
    outputs={"probabilities": "p", "mask": "m", "activation": "a", "embedding": "e"},
    temperature=1.0,
    uncertain_below=0.7,
    operating_points={},
    mask_threshold=0.5,
    lung_area_pct=None,
    familiar=None,
    affected=None,
    tflite_sha256="",
)


def test_lung_area_is_counted_from_the_threshold_on() -> None:
    mask = np.array([[0, 127], [128, 255]], np.uint8)
    assert gates.lung_pct(mask, MANIFEST) == 50


def test_lung_area_by_hand() -> None:
    assert gates.lung_area(pd.DataFrame({"lung_pct": np.linspace(20, 40, 201)})) == (10.05, 49.88)
    assert gates.lung_area(pd.DataFrame({"lung_pct": [90.0, 90.0]})) == (45, 100)


def test_a_mask_that_finds_no_lungs_sets_no_limits() -> None:
    assert gates.lung_area(pd.DataFrame({"lung_pct": [0.0, 0.0]})) is None
    none = pd.DataFrame({"label": ["normal"], "heat": [np.zeros(gates.LEVELS + 1, np.int32)]})
    found = gates.affected(none, MANIFEST)
    assert (found.threshold, "no lungs were found" in found.definition) == (1, True)


def test_one_cell_of_twenty_counts_as_affected_where_nothing_is() -> None:
    """The box's own arithmetic, on the very pictures that the threshold was chosen on."""
    rng = np.random.default_rng(0)
    mask = np.zeros((56, 56), np.uint8)
    mask[8:48, 10:50] = 200
    pictures = [rng.integers(0, 256, (7, 7, 2), dtype=np.uint8) for _ in range(40)]
    heats = [gates.heat(activation, mask, MANIFEST) for activation in pictures]
    assert {int(heat.sum()) for heat in heats} == {1600}
    rows = pd.DataFrame({"label": ["normal"] * 30 + ["pneumonia"] * 10, "heat": heats})
    found = gates.affected(rows, MANIFEST)
    settled = replace(MANIFEST, affected=found)
    shares = [judge.affected_pct(activation, mask, settled) for activation in pictures[:30]]
    assert 4.5 < np.mean([share for share in shares if share is not None]) <= 5
    assert f"at least {found.threshold:g}, the 95% quantile" in found.definition
    assert "speaks for pneumonia" in found.definition


def test_of_a_sigmoid_either_label_can_be_the_negative_one() -> None:
    mask = np.full((4, 4), 255, np.uint8)
    activation = np.full((2, 2, 1), 64, np.uint8)  # 0.25 for the second label
    sigmoid = replace(MANIFEST, task="sigmoid")
    assert gates.heat(activation, mask, sigmoid)[750] == 16
    assert gates.heat(activation, mask, replace(sigmoid, negative="pneumonia"))[250] == 16


def test_the_threshold_is_at_most_one() -> None:
    heat = np.zeros(gates.LEVELS + 1, np.int32)
    heat[-1] = 10
    assert gates.affected(pd.DataFrame({"label": ["normal"], "heat": [heat]}), MANIFEST).threshold == 1


@pytest.mark.parametrize(("width", "components"), [(5, 5), (64, 32)])
def test_distance_is_mahalanobis(width: int, components: int) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(width, width))
    training, validation = ((rng.normal(size=(n, width)) @ mixing + 3).astype(np.float32) for n in (1000, 200))
    familiar = gates.familiar(training, validation)
    assert (len(familiar.mean), len(familiar.whitening), len(familiar.whitening[0])) == (width, width, components)
    away = np.array([edge_gates.distance(embedding, familiar) for embedding in validation])
    # Whitened Gaussian embeddings: squared distances follow chi-square with as many degrees of freedom.
    assert np.mean(away**2) == pytest.approx(components, rel=0.15)
    if components == width:
        offset = validation - training.mean(axis=0)
        exact = np.sqrt(np.sum(offset @ np.linalg.inv(np.cov(training.T)) * offset, axis=1))
        np.testing.assert_allclose(away, exact, rtol=1e-3)
    assert familiar.limit == pytest.approx(1.1 * np.quantile(away, 0.995), rel=1e-4)
    assert max(len(f"{value:g}") for row in familiar.whitening for value in row) <= 12


@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 5))
def test_what_never_varies_has_no_say(width: int, pictures: int, dead: int) -> None:
    rng = np.random.default_rng(width)
    training = rng.normal(size=(pictures, width)).astype(np.float32)
    training[:, :dead] = 7
    if dead >= width:
        with pytest.raises(ModelRefused, match="the same for all"):
            gates.familiar(training, training)
        return
    familiar = gates.familiar(training, training)
    assert len(familiar.whitening[0]) <= min(width - dead, pictures - 1, 32)
    assert np.isfinite(familiar.whitening).all()
    assert 0 < familiar.limit < np.inf
