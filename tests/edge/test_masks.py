"""Masks: exact where the grid is exact, bilevel at the image's own size, and compared only where somebody judged."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from cxr_edge.masks import UNJUDGED, area_pct, at_image_size, dice, png, read_mask, split_mask

SHAPES = st.shared(arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), key="shape")
MASKS = arrays.arrays(np.bool_, SHAPES)


@pytest.mark.parametrize(("width", "height"), [(224, 224), (1024, 768), (65, 511), (64, 64)])
def test_a_mask_is_bilevel_at_the_images_own_size(width: int, height: int) -> None:
    lung = np.random.default_rng(0).integers(0, 256, (56, 56), np.uint8)
    mask = at_image_size(lung, width, height, 0.5)
    assert mask.dtype == np.bool_
    assert mask.shape == (height, width)
    with Image.open(io.BytesIO(png(mask))) as image:
        image.verify()
    with Image.open(io.BytesIO(png(mask))) as image:
        assert (image.mode, image.size) == ("1", (width, height))
        assert set(np.unique(np.asarray(image.convert("L")))) == {0, 255}


@given(MASKS)
def test_a_png_reads_back_as_its_mask(mask: NDArray[np.bool_]) -> None:
    with Image.open(io.BytesIO(png(mask))) as image:
        assert np.array_equal(np.asarray(image), mask)


@given(arrays.arrays(np.uint8, (6, 5)), st.integers(1, 255))
def test_on_the_grid_a_pixel_is_lung_from_the_threshold_on(lung: NDArray[np.uint8], quanta: int) -> None:
    mask = at_image_size(lung, 5, 6, quanta / 256)
    assert np.array_equal(mask, lung >= quanta)


@given(st.floats(0.0001, 0.9999))
def test_no_threshold_makes_lung_of_nothing(threshold: float) -> None:
    assert area_pct(at_image_size(np.zeros((8, 8), np.uint8), 16, 16, threshold)) == 0


@given(arrays.arrays(np.bool_, (4, 4)))
def test_blocks_stay_blocks(blocks: NDArray[np.bool_]) -> None:
    """Half of 0 and 256 is the threshold: an edge between two cells comes out within a pixel of where they meet."""
    lung = np.kron(blocks, np.ones((8, 8))).astype(np.uint8) * 255
    mask = at_image_size(lung, 256, 256, 0.5)
    truth = np.kron(blocks, np.ones((64, 64))).astype(bool)
    inside = np.zeros((64, 64), bool)
    inside[4:-4, 4:-4] = True
    assert np.array_equal(mask[np.tile(inside, (4, 4))], truth[np.tile(inside, (4, 4))])
    assert (mask ^ truth).mean() < 0.02


def test_edges_are_finer_than_the_grid() -> None:
    ramp = np.array([[0, 0, 100, 228, 255, 255]] * 6, np.uint8)
    mask = at_image_size(ramp, 600, 600, 0.5)
    assert abs(int(mask[300].argmax()) - 272) <= 2  # 128 lies 28 of 128 levels on the way from x = 250 to 350


@given(arrays.arrays(np.uint8, SHAPES), st.integers(1, 40), st.integers(1, 40))
def test_probabilities_are_interpolated_between_the_centres_of_cells(
    lung: NDArray[np.uint8], width: int, height: int
) -> None:
    """By numpy's own interpolation, one direction after the other; at the level itself either may round."""
    rows, columns = (
        (np.arange(pixels) + 0.5) * cells / pixels - 0.5
        for pixels, cells in zip((height, width), lung.shape, strict=True)
    )
    wide = np.array([np.interp(columns, np.arange(lung.shape[1]), row) for row in lung])
    values = np.array([np.interp(rows, np.arange(lung.shape[0]), column) for column in wide.T]).T
    clear = np.abs(values - 128) > 0.001
    assert np.array_equal(at_image_size(lung, width, height, 0.5)[clear], (values >= 128)[clear])


@given(MASKS)
def test_area_is_the_share_of_the_frame(mask: NDArray[np.bool_]) -> None:
    assert area_pct(mask) == pytest.approx(100 * mask.mean())


@given(MASKS, MASKS, MASKS)
def test_dice_is_a_symmetric_share(a: NDArray[np.bool_], b: NDArray[np.bool_], judged: NDArray[np.bool_]) -> None:
    got = dice(a, b, judged)
    assert 0 <= got <= 1
    assert got == dice(b, a, judged)
    assert dice(a, a, judged) == 1


@given(MASKS, MASKS, MASKS, MASKS)
def test_dice_leaves_out_what_nobody_judged(
    a: NDArray[np.bool_], b: NDArray[np.bool_], judged: NDArray[np.bool_], other: NDArray[np.bool_]
) -> None:
    assert dice(a ^ (other & ~judged), b, judged) == dice(a, b, judged)


def test_dice_of_known_masks() -> None:
    a, b = np.array([[1, 1, 0, 0]], bool), np.array([[0, 1, 1, 1]], bool)
    assert dice(a, b, np.ones_like(a)) == pytest.approx(2 / 5)
    assert dice(a, ~a, np.ones_like(a)) == 0
    assert dice(a, b, np.zeros_like(a)) == 1


def test_truth_masks_split_into_lung_and_judged(tmp_path: Path) -> None:
    levels = np.array([[0, 1, UNJUDGED - 1, UNJUDGED, UNJUDGED + 1, 255]], np.uint8)
    Image.fromarray(levels).save(tmp_path / "mask.png")
    lung, judged = split_mask(read_mask(tmp_path / "mask.png"))
    assert lung.tolist() == [[False, False, False, False, True, True]]
    assert judged.tolist() == [[True, True, True, False, True, True]]
