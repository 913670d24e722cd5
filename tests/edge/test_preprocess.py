"""The model's input: its shape and range, and that neither exposure nor reduced decoding changes it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from cxr_edge.imaging import decode, read_bytes
from cxr_edge.phantom import draw
from cxr_edge.preprocess import InputSpec, percentile_levels, resize, stretch, to_input

SPEC = InputSpec()
GRAY = draw(1, height=400, width=320).image
GRAYS = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))


@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (1000, 64), (64, 512), (301, 217)])
def test_every_picture_becomes_the_models_shape(shape: tuple[int, int]) -> None:
    gray = np.asarray(Image.fromarray(GRAY).resize(shape[::-1]))
    pixels = to_input(gray, InputSpec(height=96, width=128))
    assert pixels.shape == (1, 96, 128, 1)
    assert pixels.dtype == np.uint8
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_the_whole_frame_is_resized_not_cropped() -> None:
    """Bright corners stay in the corners, each over its share of the frame."""
    gray = np.zeros((400, 300), np.uint8)
    for rows in (slice(0, 40), slice(-40, None)):
        for columns in (slice(0, 30), slice(-30, None)):
            gray[rows, columns] = 200
    small = resize(gray, 100, 100)
    for corner in (small[:9, :9], small[:9, -9:], small[-9:, :9], small[-9:, -9:]):
        assert corner.min() > 150
    assert not small[15:-15].any()
    assert small.mean() == pytest.approx(gray.mean(), rel=0.05)


def test_resizing_is_antialiased() -> None:
    fine = np.indices((512, 512)).sum(axis=0) % 2 * np.uint8(255)
    assert np.ptp(resize(fine.astype(np.uint8), 100, 100)) < 40


@given(st.floats(0.5, 1.0), st.floats(0, 1))
def test_linear_exposure_does_not_change_the_input(gain: float, share: float) -> None:
    """Two roundings to 8 bits, each half a level of at least half the range, move a pixel by about 2 levels."""
    darker = np.rint(GRAY * gain + share * 255 * (1 - gain)).astype(np.uint8)
    one, other = (to_input(gray, SPEC).astype(int) for gray in (GRAY, darker))
    assert np.abs(one - other).mean() < 1.5
    assert np.abs(one - other).max() <= 6


@given(GRAYS)
def test_stretch_spans_the_range_and_keeps_the_order(gray: NDArray[np.uint8]) -> None:
    got = stretch(gray, 2, 98)
    assert got.dtype == np.uint8
    assert got.shape == gray.shape
    order = np.argsort(gray, axis=None)
    assert (np.diff(got.ravel()[order].astype(int)) >= 0).all()
    low, high = percentile_levels(gray, 2, 98)
    if high > low:
        assert (got[gray <= low] == 0).all()
        assert (got[gray >= high] == 255).all()


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_flat_pictures_pass_unchanged(level: int) -> None:
    flat = np.full((100, 80), level, np.uint8)
    assert np.array_equal(stretch(flat, 2, 98), flat)
    assert np.array_equal(to_input(flat, SPEC), np.full((1, 224, 224, 1), level, np.uint8))


def test_stretch_leaves_its_input_alone() -> None:
    before = GRAY.copy()
    stretch(GRAY, 2, 98)
    assert np.array_equal(GRAY, before)


@given(GRAYS, st.integers(0, 100), st.integers(0, 100))
def test_percentile_levels_are_those_of_numpy(gray: NDArray[np.uint8], one: int, other: int) -> None:
    """A level of the histogram, so between the two neighbours from which numpy would interpolate."""
    asked = tuple(sorted((one, other)))
    lower, higher = (np.percentile(gray, asked, method=method) for method in ("lower", "higher"))
    got = percentile_levels(gray, *asked)
    assert all(a <= b <= c for a, b, c in zip(lower, got, higher, strict=True))


def jpeg(gray: NDArray[np.uint8], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def test_reduced_decoding_gives_nearly_the_same_input(radiographs: list[Path]) -> None:
    """The other filter moves edges a little: on average by less than 1 % of the range, and nowhere a structure."""
    reduced = 0
    for path in radiographs:
        data = jpeg(decode(read_bytes(path), (10_000, 10_000)).gray)
        whole, small = decode(data, (10_000, 10_000)), decode(data, (SPEC.width, SPEC.height))
        reduced += small.gray.size < whole.gray.size
        difference = to_input(whole.gray, SPEC).astype(int) - to_input(small.gray, SPEC)
        assert np.abs(difference).mean() < 2.5
        assert np.percentile(np.abs(difference), 99) < 16
    assert reduced >= 2
