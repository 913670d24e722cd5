"""The files that benchmarks work on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import pictures


@pytest.mark.parametrize("real", [True, False])
def test_no_two_files_have_the_same_bytes_and_each_is_a_whole_picture(
    real: bool, tmp_path: Path, data_dir: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "KINDS", 2)
    monkeypatch.setattr(pictures, "DATA", data_dir if real and data_dir else tmp_path / "none")
    told = pictures.same_size(tmp_path / "incoming", 30)
    assert ("NIH" in told) == bool(real and data_dir)
    files = sorted((tmp_path / "incoming").iterdir())
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in files}) == 30
    for path in files:
        with Image.open(path) as image:
            image.verify()
            assert (image.size, image.mode, image.format) == ((1024, 1024), "L", "PNG")


def test_a_number_changes_no_pixel(tmp_path: Path) -> None:
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    (tmp_path / "seven.png").write_bytes(pictures.numbered((tmp_path / "plain.png").read_bytes(), 7))
    with Image.open(tmp_path / "seven.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
        assert image.text["Comment"] == "7"  # type: ignore[attr-defined]
