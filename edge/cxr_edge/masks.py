"""Lung masks: from the model's grid to the image's own size, and how two masks are compared."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


UNJUDGED = 127
"""Gray level of truth mask pixels that nobody judged: neither lung nor not."""


def read_mask(path: str | Path) -> NDArray[np.uint8]:
    """Read a truth mask, uint8[H, W]: 255 lung, 0 not lung, 127 not judged. Raises OSError where it cannot be read."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def split_mask(mask: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split a truth mask, uint8[H, W], into lung and judged, each bool[H, W]."""
    return mask > UNJUDGED, mask != UNJUDGED


def at_image_size(lung: NDArray[np.uint8], width: int, height: int, threshold: float) -> NDArray[np.bool_]:
    """Draw the model's lung probabilities as a mask of `width` x `height` pixels.

    Args:
        lung: uint8[h, w], probability in units of 1/256.
        threshold: probability in (0, 1) from which a pixel is lung.

    Returns:
        bool[height, width]. Probabilities are interpolated (bilinear, between the centres of the grid's cells; beyond
        the outermost they stay) before they are cut, so edges are finer than the grid.
    """
    mask = np.zeros((height, width), np.bool_)
    level = np.float32(256 * threshold)
    rows, columns = (np.flatnonzero((lung >= level).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return mask
    # Only where there is lung: between two cells without it there is none.
    first, share = _cells_before(width, lung.shape[1])
    drawn = slice(*np.searchsorted(first, (columns[0] - 1, columns[-1] + 1)))
    grid = lung.astype(np.float32)
    left, right = grid[:, first[drawn]], grid[:, np.minimum(first[drawn] + 1, lung.shape[1] - 1)]
    wide = left + share[drawn] * (right - left)
    steps = np.diff(wide, axis=0, append=wide[-1:])
    first, share = _cells_before(height, lung.shape[0])
    bands = np.searchsorted(first, np.arange(lung.shape[0] + 1))
    for row in range(max(rows[0] - 1, 0), rows[-1] + 1):
        band = slice(bands[row], bands[row + 1])
        values = share[band, np.newaxis] * steps[row]
        values += wide[row]
        np.greater_equal(values, level, out=mask[band, drawn])
    return mask


def _cells_before(pixels: int, cells: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """For each of `pixels` that lie over `cells` of a grid: the last cell whose centre is not behind the pixel's own.

    And its distance from there, in cells, [0, 1). Both arrays are [pixels].
    """
    place = np.clip((np.arange(pixels) + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    before = place.astype(np.intp)
    return before, (place - before).astype(np.float32)


def area_pct(mask: NDArray[np.bool_]) -> float:
    """Share of the frame that a mask, bool[H, W], covers, percent (0 to 100)."""
    return 100 * np.count_nonzero(mask) / mask.size


def png(mask: NDArray[np.bool_]) -> bytes:
    """A mask, bool[H, W], as a PNG of 1 bit, lung white.

    Pillow tries five filters on each row, and takes six times as long. In a mask most rows are as the one above: the
    filter "up" (PNG specification, 9.2) leaves nothing but zeros of them.
    """
    height, width = mask.shape
    bits = np.packbits(mask, axis=1)
    rows = np.full((height, 1 + bits.shape[1]), 2, np.uint8)
    rows[0, 1:] = bits[0]
    np.subtract(bits[1:], bits[:-1], out=rows[1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def score(lung: NDArray[np.uint8], truth_file: str | Path, threshold: float) -> float:
    """Dice of the model's lung probabilities, uint8[h, w] in units of 1/256, at the size of a truth mask's file."""
    truth, judged = split_mask(read_mask(truth_file))
    return dice(at_image_size(lung, truth.shape[1], truth.shape[0], threshold), truth, judged)


def quantise(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Probabilities in [0, 1] of any shape -> units of 1/256, as an int8 model gives them."""
    return np.asarray(np.clip(np.rint(probabilities * 256), 0, 255), dtype=np.uint8)


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], judged: NDArray[np.bool_]) -> float:
    """Dice coefficient 2|A and B| / (|A| + |B|) over the judged pixels, 0 to 1; 1 where both are empty.

    All three arrays are bool[H, W]. Source: Dice, L. R., Ecology 26(3), 1945.
    """
    a, b = predicted & judged, truth & judged
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0
