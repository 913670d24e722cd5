"""The files that benchmarks work on: real radiographs where CXR_DATA has them, phantoms elsewhere."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from cxr_edge import phantom

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data"))
KINDS = 24
"""Different phantoms, and radiographs of NIH at full size."""


def same_size(folder: Path, count: int) -> str:
    """Fill `folder` with 1024 px PNGs, each with its own content; say what they are."""
    folder.mkdir(parents=True)
    real = sorted((DATA / "originals" / "nih_png_1024").glob("*.png"))
    drawn = [Image.fromarray(phantom.draw(seed).image) for seed in range(0 if real else KINDS)]
    for number in range(count):
        image = Image.open(real[number % len(real)]).convert("L") if real else drawn[number % len(drawn)]
        pixels = np.array(image)
        # A second copy of the same bytes would not be judged again.
        pixels[0, : number // KINDS + 1] ^= 1
        Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return f"{count} {'NIH ChestX-ray8 radiographs' if real else 'phantoms'}, PNG, 1024 x 1024, 8 bit"


def originals(folder: Path, phantoms: int = 72) -> str:
    """Fill `folder` with every file of CXR_DATA's originals, or with phantoms; say what they are."""
    real = sorted(path for path in (DATA / "originals").glob("*/*") if path.suffix in (".png", ".jpg", ".jpeg"))
    if not real:
        phantom.write_folder(folder, phantoms)
        return f"{phantoms} phantoms"
    folder.mkdir(parents=True)
    for path in real:
        shutil.copyfile(path, folder / f"{path.parent.name}-{path.name}")
    return f"{len(real)} radiographs as their sources gave them, PNG and JPEG"
