"""uint8[H, W] gray -> the model's input. Training, calibration and the box all come through here.

Two steps, both cheap: the whole frame is resized to the model's input (not cropped: a lung at the edge must stay),
then its intensities are stretched so that the 2nd and 98th percentile become black and white. The stretch makes the
input independent of exposure, of windowing, and of the bit depth the file had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class InputSpec:
    """What a model wants to see: pixels `height` x `width`, and the percentiles (0 to 100) that become 0 and 255.

    The percentiles 0 and 100 leave intensities as they are. `black` and `white` are what gray levels 0 and 255 stand
    for in the model's own arithmetic; a model of three channels sees the same gray in each.

    Raises:
        ValueError: it wants what this version cannot prepare: other channels, resampling or percentiles.
    """

    height: int = 224
    width: int = 224
    channels: int = 1
    resampling: str = "triangle"
    low_percentile: float = 2.0
    high_percentile: float = 98.0
    black: float = -1.0
    white: float = 1.0

    def __post_init__(self) -> None:
        if self.channels not in (1, 3) or self.resampling != "triangle":
            raise ValueError(f"an input of {self.channels} channels, resampled by {self.resampling!r}, is unknown")
        if not 0 <= self.low_percentile < self.high_percentile <= 100:
            raise ValueError(f"percentiles {self.low_percentile} and {self.high_percentile} make no range")
        if not (math.isfinite(self.black) and math.isfinite(self.white) and self.black < self.white):
            raise ValueError(f"black {self.black} and white {self.white} make no range")


def to_input(gray: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Prepare one picture: uint8[H, W] -> uint8[1, height, width, 1], 0 to 255."""
    resized = resize(gray, spec.width, spec.height)
    return stretch(resized, spec.low_percentile, spec.high_percentile)[np.newaxis, :, :, np.newaxis]


def scale(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 0..255 -> float32 in [-1, 1]: what a Keras model sees, and what an int8 model's input scale says."""
    return pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)


def resize(gray: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize uint8[H, W] to uint8[height, width], antialiased (triangle filter, after a box filter)."""
    image = Image.fromarray(gray)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0))


def stretch(gray: NDArray[np.uint8], low_percentile: float, high_percentile: float) -> NDArray[np.uint8]:
    """Stretch intensities linearly so that the two percentiles (0 to 100) become 0 and 255; uint8[H, W] in and out.

    A picture without contrast (both percentiles equal), or percentiles 0 and 100, change nothing.
    """
    if (low_percentile, high_percentile) == (0, 100):
        return gray
    low, high = percentile_levels(gray, low_percentile, high_percentile)
    if high <= low:
        return gray
    levels = (np.arange(256, dtype=np.float32) - low) * (255 / (high - low))
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)[gray]


def percentile_levels(gray: NDArray[np.uint8], low_percentile: float, high_percentile: float) -> tuple[int, int]:
    """Return the gray levels (0 to 255) at two percentiles (0 to 100), from the histogram of uint8[H, W]."""
    cumulated = np.cumsum(np.bincount(gray.ravel(), minlength=256))
    low, high = np.searchsorted(cumulated, [max(1, gray.size * p / 100) for p in (low_percentile, high_percentile)])
    return int(low), int(min(high, 255))
