"""The files that benchmarks work on: real radiographs where CXR_DATA has them, phantoms elsewhere."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cxr_edge import phantom

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CXR_DATA", ROOT.parent / "shared" / "data"))
KINDS = 24
"""Different phantoms."""
END_BYTES = 12
"""Length of a PNG's last chunk, IEND."""


def same_size(folder: Path, count: int) -> str:
    """Fill `folder` with 1024 px PNGs, no two with the same bytes; say what they are.

    The radiographs are compressed as their source gave them: Pillow's own choice of filters takes it a third longer to
    decode.
    """
    folder.mkdir(parents=True)
    real = sorted((DATA / "originals" / "nih_png_1024").glob("*.png"))
    kinds = [path.read_bytes() for path in real] or [_png(phantom.draw(seed).image) for seed in range(KINDS)]
    for number in range(count):
        (folder / f"{number:05}.png").write_bytes(numbered(kinds[number % len(kinds)], number))
    return f"{count} {'NIH ChestX-ray8 radiographs' if real else 'phantoms'}, PNG, 1024 x 1024, 8 bit"


def numbered(png: bytes, number: int) -> bytes:
    """The same picture with a number in a comment: a second copy of the same bytes would not be judged again."""
    text = b"tEXtComment\0" + str(number).encode()
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:-END_BYTES] + chunk + png[-END_BYTES:]


def _png(gray: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "PNG")
    return file.getvalue()


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
