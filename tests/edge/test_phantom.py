"""The phantoms must be exact where tests lean on them: masks, determinism, and what an opacity changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cxr_edge.phantom import MIN_SIDE, draw, write_folder

SEEDS = range(24)


def regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The 4-connected regions of a mask, each as a mask, grown from its first pixel until nothing is gained."""
    left = mask.copy()
    found = []
    while left.any():
        grown = np.zeros_like(left)
        grown.flat[int(np.argmax(left))] = True
        size = 0
        while (count := int(grown.sum())) > size:
            size = count
            padded = np.pad(grown, 1)
            grown = (grown | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]) & left
        found.append(grown)
        left &= ~grown
    return found


def mean(image: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    return float(image[where].mean())


@pytest.mark.parametrize(("height", "width"), [(256, 256), (301, 217), (180, 333), (MIN_SIDE, MIN_SIDE)])
def test_arrays_have_the_size_asked_for_and_exact_types(height: int, width: int) -> None:
    phantom = draw(3, height=height, width=width, opacity=True)
    for array, dtype in ((phantom.image, np.uint8), (phantom.lung_mask, np.bool_), (phantom.opacity_mask, np.bool_)):
        assert array.shape == (height, width)
        assert array.dtype == dtype
    assert np.ptp(phantom.image) > 150  # a film uses its range


def test_the_default_size_is_a_film_of_1024_pixels_each_way() -> None:
    assert draw(0).image.shape == (1024, 1024)


@pytest.mark.parametrize("opacity", [False, True])
def test_same_seed_and_size_give_the_same_bytes(opacity: bool) -> None:
    one, two = (draw(11, height=200, width=240, opacity=opacity) for _ in range(2))
    for name in ("image", "lung_mask", "opacity_mask"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


def test_drawing_ignores_and_leaves_alone_the_global_random_state() -> None:
    np.random.seed(1)
    one = draw(2, height=96, width=96).image
    after = np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    assert np.array_equal(draw(2, height=96, width=96).image, one)


def test_seeds_differ_in_anatomy_and_exposure() -> None:
    phantoms = [draw(seed, height=128, width=128) for seed in SEEDS]
    masks = [phantom.lung_mask for phantom in phantoms]
    overlaps = [(a & b).sum() / (a | b).sum() for i, a in enumerate(masks) for b in masks[:i]]
    assert max(overlaps) < 0.99  # no two patients share their lungs
    assert np.ptp([mask.mean() for mask in masks]) > 0.05
    assert np.ptp([phantom.image.mean() for phantom in phantoms]) > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_lungs_are_two_regions_of_plausible_size_and_place(seed: int) -> None:
    mask = draw(seed, height=160, width=160).lung_mask
    assert 0.15 < mask.mean() < 0.45
    lungs = sorted(regions(mask), key=lambda lung: float(np.nonzero(lung)[1].mean()))
    assert len(lungs) == 2
    right, left = lungs  # the patient's right is on the picture's left
    assert np.nonzero(right)[1].max() < np.nonzero(left)[1].min() + 8  # a tilted patient's lungs may share a column
    assert 0.6 < right.sum() / left.sum() < 1.6
    edge = np.ones_like(mask)
    edge[4:-4, 4:-4] = False
    assert not (mask & edge).any()
    for lung in lungs:  # narrow apex, wide base
        rows = lung.sum(axis=1)
        used = rows[rows > 0]
        assert used[: len(used) // 8].mean() < 0.6 * used[len(used) // 2 : 3 * len(used) // 4].mean()


@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (101, 173), (210, 190)])
def test_lungs_stay_two_regions_at_other_sizes(size: tuple[int, int]) -> None:
    for seed in range(24):  # among them seed 20, whose tilted cardiophrenic corner once shed a pixel at 96 x 96
        assert len(regions(draw(seed, height=size[0], width=size[1]).lung_mask)) == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_gray_follows_the_anatomy(seed: int) -> None:
    phantom = draw(seed, height=192, width=192)
    image, mask = phantom.image, phantom.lung_mask
    rows, columns = np.nonzero(mask)
    between = np.zeros_like(mask)  # the mediastinum: between the lungs, in the rows that both reach
    for row in range(int(np.percentile(rows, 20)), int(np.percentile(rows, 80))):
        inner = np.nonzero(mask[row])[0]
        gap = int(np.argmax(np.diff(inner)))
        between[row, inner[gap] + 1 : inner[gap + 1]] = True
    assert mean(image, mask) + 30 < mean(image, between)
    low = mask & (np.arange(192)[:, None] > np.percentile(rows, 60))
    is_left = np.arange(192)[None] > columns.mean()
    assert mean(image, low & is_left) > mean(image, low & ~is_left) + 5  # the heart shades more of the left lung
    abdomen = np.zeros_like(mask)
    abdomen[rows.max() + 2 : -8, int(np.percentile(columns, 25)) : int(np.percentile(columns, 75))] = True
    assert mean(image, abdomen) > mean(image, mask) + 30
    assert image[:6].min() < 40  # open air beside the neck


@pytest.mark.parametrize("seed", SEEDS)
def test_an_opacity_brightens_the_lung_and_changes_nothing_else(seed: int) -> None:
    clear, ill = (draw(seed, height=224, width=208, opacity=opacity) for opacity in (False, True))
    assert not clear.opacity_mask.any()
    assert np.array_equal(clear.lung_mask, ill.lung_mask)
    where = ill.opacity_mask
    assert where.sum() > 0.02 * ill.lung_mask.sum()
    assert not (where & ~ill.lung_mask).any()
    assert np.array_equal(clear.image[~where], ill.image[~where])
    assert (ill.image[where] >= clear.image[where]).all()
    assert mean(ill.image, where) > mean(clear.image, where) + 10


@pytest.mark.parametrize(("height", "width"), [(MIN_SIDE - 1, 200), (200, MIN_SIDE - 1), (0, 0)])
def test_a_size_too_small_for_two_lungs_is_refused(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=str(MIN_SIDE)):
        draw(0, height=height, width=width)


def test_write_folder_leaves_a_small_mixed_incoming_folder(tmp_path: Path) -> None:
    paths = write_folder(tmp_path / "incoming", 6, seed=4)
    assert len(paths) == len(set(paths)) == len({path.name for path in paths}) == 6
    assert sorted(paths) == sorted(path for path in (tmp_path / "incoming").rglob("*") if path.is_file())
    assert {path.parent.relative_to(tmp_path).as_posix() for path in paths} == {"incoming/ward-a", "incoming/ward-b"}
    formats, sizes, pixels = set(), set(), []
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "L"
            assert all(900 <= side <= 1300 for side in image.size)
            formats.add((path.suffix, image.format))
            sizes.add(image.size)
            pixels.append(image.tobytes())
    assert formats == {(".png", "PNG"), (".jpg", "JPEG")}
    assert len(sizes) > 1
    assert len(set(pixels)) == 6


def test_write_folder_repeats_itself_and_alternates_opacity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bool] = []

    def small(seed: int, *, opacity: bool, **_: Any) -> Any:
        drawn.append(opacity)
        return draw(seed, height=96, width=96, opacity=opacity)

    monkeypatch.setattr("cxr_edge.phantom.draw", small)
    one, more = write_folder(tmp_path / "a", 4, 7), write_folder(tmp_path / "b", 5, 7)
    other = write_folder(tmp_path / "c", 4, 8)
    assert drawn[:4] == [False, True, False, True]
    for path, same, different in zip(one, more[:4], other, strict=True):
        assert path.read_bytes() == same.read_bytes() != different.read_bytes()
        assert path.relative_to(tmp_path / "a") == same.relative_to(tmp_path / "b")
    assert write_folder(tmp_path / "none", 0) == []


def test_the_command_writes_a_folder_and_names_each_file(tmp_path: Path) -> None:
    edge = str(Path(__file__).parents[2] / "edge")
    command = [sys.executable, "-m", "cxr_edge.phantom", str(tmp_path / "demo"), "--count", "1", "--seed", "5"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": edge})
    (path,) = write_folder(tmp_path / "again", 1, 5)
    assert Path(done.stdout.strip()).read_bytes() == path.read_bytes()
