"""The scripts that cxr-edge is compared with do the same work: the same pixels, the same verdicts, the same masks."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import figures, side_by_side
from benchmarks.peers import common
from cxr_edge import imaging, judge, masks, model_file, preprocess
from cxr_edge.manifest import DEFAULT_POINT

ROOT = Path(__file__).parents[2]
SHIPPED = model_file.read(model_file.SHIPPED)
NOTES = common.read_notes(model_file.SHIPPED)


@pytest.fixture(scope="module")
def incoming(radiographs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peers") / "incoming"
    folder.mkdir()
    for path in radiographs:
        shutil.copyfile(path, folder / path.name)
    return folder


@pytest.fixture(scope="module")
def ours(incoming: Path) -> Path:
    out = incoming.parent / "ours"
    cxr_edge = [sys.executable, "-c", "from cxr_edge.cli import main; main()", "scan", str(incoming), "-o", str(out)]
    subprocess.run(cxr_edge, check=True, capture_output=True)
    return out


def test_a_script_sees_the_pixels_that_cxr_edge_sees(incoming: Path) -> None:
    for path in incoming.iterdir():
        picture = imaging.decode(imaging.read_bytes(path), NOTES.size)
        pixels, size = common.load(path, NOTES)
        expected = preprocess.to_input(picture.gray, SHIPPED.manifest.input)[0, :, :, 0]
        assert size == (picture.width, picture.height)
        if picture.gray.shape == size[::-1] and Image.open(path).mode == "L":
            np.testing.assert_array_equal(pixels, expected)
        else:  # a JPEG at reduced scale, or colours over black
            assert np.abs(pixels.astype(int) - expected).mean() < 2


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3).filter(any))
def test_a_script_judges_as_cxr_edge_does(units: list[int]) -> None:
    verdict, confidence = common.judge(np.array(units, np.uint8), NOTES)
    expected = judge.judge(np.array(units, np.uint8), SHIPPED.manifest, DEFAULT_POINT)
    assert verdict == expected.verdict
    assert confidence == pytest.approx(expected.confidence)


def test_a_script_draws_the_mask_that_cxr_edge_draws(tmp_path: Path) -> None:
    lungs = np.random.default_rng(0).integers(0, 256, (56, 56)).astype(np.uint8)
    common.draw(lungs, (300, 200), 0.5, tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as drawn:
        assert drawn.mode == "1"
        # Pillow rounds on its way; where a whole gray level makes the difference, so may they.
        assert (np.asarray(drawn) == masks.at_image_size(lungs, 300, 200, 0.5)).mean() > 0.99


def test_a_script_gives_the_verdicts_and_masks_of_cxr_edge(incoming: Path, ours: Path, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "benchmarks.peers.tflite_scan", "tensorflow", str(model_file.SHIPPED)]
    subprocess.run([*script, str(incoming), str(tmp_path)], check=True, cwd=ROOT, capture_output=True)
    found = figures.agreement(side_by_side.verdicts(ours), side_by_side.verdicts(tmp_path))
    assert found.judged == len(list(incoming.iterdir()))
    assert found.certain_same == found.certain
    for mask in (tmp_path / "masks").iterdir():
        with Image.open(mask) as theirs, Image.open(ours / "masks" / mask.name) as expected:
            assert theirs.size == expected.size
            assert (np.asarray(theirs) == np.asarray(expected)).mean() > 0.99


@pytest.mark.parametrize("way", ["generator", "loop"])
def test_keras_writes_a_label_for_each_picture(way: str, incoming: Path, tmp_path: Path) -> None:
    network = tmp_path / "model.keras"
    subprocess.run([sys.executable, "-c", f"{side_by_side.BUILD}({str(network)!r})"], check=True, capture_output=True)
    script = [sys.executable, "-m", "benchmarks.peers.keras_predict", way, str(model_file.SHIPPED), str(network)]
    subprocess.run([*script, str(incoming), str(tmp_path / "out")], check=True, cwd=ROOT, capture_output=True)
    with (tmp_path / "out" / "verdicts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(path.name for path in incoming.iterdir())
    assert {row["verdict"] for row in rows} <= {*NOTES.labels, figures.UNCERTAIN}
