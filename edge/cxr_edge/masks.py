"""Lung masks: from the model's grid to the image's own size, and how two masks are compared."""

from __future__ import annotations

import math
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


def at_image_size(lung: NDArray[np.uint8], width: int, height: int, threshold: float) -> Image.Image:
    """Draw the model's lung probabilities as a bilevel mask of `width` x `height` pixels.

    Args:
        lung: uint8[h, w], probability in units of 1/256.
        threshold: probability in (0, 1) from which a pixel is lung.

    Returns:
        A mode "1" image. Probabilities are interpolated before they are cut, so edges are finer than the grid.
    """
    # A look-up table straight to 1 bit: Pillow's convert("1") would dither, and an 8-bit PNG costs twice the time.
    cut = math.ceil(threshold * 256)
    table = [0] * cut + [255] * (256 - cut)
    return Image.fromarray(lung).resize((width, height), Image.Resampling.BILINEAR).point(table, "1")


def area_pct(mask: Image.Image) -> float:
    """Share of the frame that a mode "1" mask covers, percent (0 to 100)."""
    return 100 * mask.histogram()[255] / (mask.width * mask.height)


def score(lung: NDArray[np.uint8], truth_file: str | Path, threshold: float) -> float:
    """Dice of the model's lung probabilities, uint8[h, w] in units of 1/256, at the size of a truth mask's file."""
    truth, judged = split_mask(read_mask(truth_file))
    return dice(np.asarray(at_image_size(lung, truth.shape[1], truth.shape[0], threshold)), truth, judged)


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
