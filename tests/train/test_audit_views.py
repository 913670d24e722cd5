"""Views of a picture with a part hidden: what is kept, what is hidden, and that nothing hidden leaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cxr_edge import phantom
from cxr_train import audit_views

Gray = NDArray[np.uint8]


def drawn(seed: int, height: int, width: int) -> tuple[Gray, NDArray[np.bool_]]:
    """A random picture with a random rectangle of lung."""
    rng = np.random.default_rng(seed)
    gray = rng.integers(0, 256, (height, width), dtype=np.uint8)
    lung = np.zeros((height, width), np.bool_)
    top, left = int(rng.integers(0, height - 1)), int(rng.integers(0, width - 1))
    lung[top : int(rng.integers(top + 1, height)), left : int(rng.integers(left + 1, width))] = True
    return gray, lung


pictures = st.builds(drawn, st.integers(0, 2**31), st.integers(8, 70), st.integers(8, 70))


@settings(max_examples=40, deadline=None)
@given(pictures, st.integers(0, 2**31))
def test_a_view_keeps_what_it_shows_and_knows_nothing_of_the_rest(
    picture: tuple[Gray, NDArray[np.bool_]], seed: int
) -> None:
    gray, lung = picture
    border = audit_views.frame(gray.shape)
    shown = {"no_lungs": ~lung, "only_lungs": lung, "border": border & ~lung}
    other = np.random.default_rng(seed).integers(0, 256, gray.shape, dtype=np.uint8)
    views = audit_views.make(gray, lung)
    assert list(views) == list(audit_views.VIEWS)
    assert (views["whole"] == gray).all()
    for name, kept in shown.items():
        assert views[name].shape == gray.shape
        assert views[name].dtype == np.uint8
        assert (views[name][kept] == gray[kept]).all()
        assert len(set(views[name][~kept].tolist())) <= 1
        changed = audit_views.make(np.where(kept, gray, other), lung)[name]
        assert (changed == views[name]).all()


@settings(max_examples=40, deadline=None)
@given(pictures)
def test_views_without_a_lung_mask(picture: tuple[Gray, NDArray[np.bool_]]) -> None:
    gray, _ = picture
    views = audit_views.make(gray, None)
    assert set(views) == {"whole", "border", "coarse"}
    border = audit_views.frame(gray.shape)
    assert (views["border"][border] == gray[border]).all()
    assert border[[0, -1]].all()
    assert border[:, [0, -1]].all()
    assert not border[gray.shape[0] // 2, gray.shape[1] // 2]


def test_the_border_is_the_outer_15_percent() -> None:
    inside = ~audit_views.frame((200, 100))
    assert inside[30:170, 15:85].all()
    assert inside.sum() == 140 * 70


def test_what_is_hidden_gets_the_mean_of_the_rest() -> None:
    gray = np.array([[10, 20], [200, 240]], np.uint8)
    hidden = np.array([[False, False], [True, True]])
    assert audit_views.hide(gray, hidden).tolist() == [[10, 20], [15, 15]]
    assert audit_views.hide(gray, np.ones((2, 2), np.bool_)).tolist() == [[128, 128], [128, 128]]


def test_coarse_has_no_fine_sign() -> None:
    board = np.indices((128, 96)).sum(axis=0) % 2
    assert np.ptp(audit_views.coarse(np.asarray(board * 255, np.uint8))) <= 2
    assert audit_views.coarse(np.full((20, 300), 77, np.uint8)).shape == (20, 300)
    halves = np.zeros((128, 128), np.uint8)
    halves[64:] = 200
    assert audit_views.coarse(halves)[[0, -1], 0].tolist() == [0, 200]


def test_lungs_are_widened_and_brought_to_the_models_size() -> None:
    drawing = phantom.draw(3, height=200, width=160)
    truth = np.where(drawing.lung_mask, 255, 0).astype(np.uint8)
    lung = audit_views.truth_lungs(truth, 160, 200)
    assert lung is not None
    assert lung.shape == (200, 160)
    assert (lung >= drawing.lung_mask).all()
    assert 1.05 < lung.sum() / drawing.lung_mask.sum() < 1.6
    small = audit_views.truth_lungs(truth, 80, 64)
    assert small is not None
    assert small.shape == (64, 80)
    unjudged = truth.copy()
    unjudged[90:110] = 127
    judged = audit_views.truth_lungs(unjudged, 160, 200)
    assert judged is not None
    assert judged[100].all()


def test_the_models_own_mask_is_cut_at_a_half() -> None:
    quantised = np.zeros((50, 40), np.uint8)
    quantised[10:40, 5:18], quantised[10:40, 22:35] = 129, 126
    lung = audit_views.own_lungs(quantised, 160, 200)
    assert lung is not None
    assert lung[100, 40]
    assert not lung[100, 120]


@pytest.mark.parametrize("level", [0, 255])
def test_a_mask_of_nothing_or_of_all_is_none(level: int) -> None:
    assert audit_views.truth_lungs(np.full((90, 90), level, np.uint8), 64, 64) is None
    assert audit_views.own_lungs(np.full((16, 16), level, np.uint8), 64, 64) is None
