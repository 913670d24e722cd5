"""Stored DICOM values -> the gray levels that a viewer shows: modality LUT, VOI LUT or window, polarity. Pure."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

BAND = 256
"""Rows that are looked up at once: numpy turns indices to 8 bytes each."""


def as_displayed(pydicom: Any, pixels: NDArray[Any], tags: Dataset) -> NDArray[np.uint8]:
    """Stored values, uint or int of 8 or 16 bits [H, W], -> gray uint8[H, W] by one look-up table.

    MONOCHROME1 is inverted; then the 0.1 and 99.9 percentiles of what is shown become black and white. A flat picture
    becomes black. A table has at most 65,536 values; the float pictures of the usual way would take 16 bytes a pixel.
    """
    unsigned = np.dtype(f"u{pixels.dtype.itemsize}")
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    stored = np.arange(2 ** (8 * pixels.dtype.itemsize)).astype(unsigned).view(pixels.dtype)
    shown = _values_of_interest(pydicom, stored.astype(np.int64), tags)
    index = pixels.view(unsigned)
    step = max(1, int((pixels.size / 250_000) ** 0.5))
    low, high = np.percentile(shown[index[::step, ::step]], (0.1, 99.9))
    if high <= low:
        present = shown[(stored >= pixels.min()) & (stored <= pixels.max())]
        low, high = present.min(), present.max()
    table = np.zeros(shown.shape, np.uint8)
    if high > low:
        table[:] = np.clip(np.rint((shown - low) * (255 / (high - low))), 0, 255)
        if tags.PhotometricInterpretation == "MONOCHROME1":
            table = 255 - table
    gray = np.empty(pixels.shape, np.uint8)
    for band in range(0, len(index), BAND):
        gray[band : band + BAND] = table[index[band : band + BAND]]
    return gray


def _values_of_interest(pydicom: Any, stored: NDArray[np.int64], tags: Dataset) -> NDArray[np.float64]:
    """Stored values -> what the modality and VOI stages make of them (PS3.3, C.11.1 and C.11.2), float64[n]."""
    values = stored.astype(np.float64)
    little_endian = bool(tags.original_encoding[1])
    if tags.get("ModalityLUTSequence"):
        values = _looked_up(values, tags.ModalityLUTSequence[0], little_endian=little_endian)
    elif tags.get("RescaleSlope") is not None and tags.get("RescaleIntercept") is not None:
        values = values * float(tags.RescaleSlope) + float(tags.RescaleIntercept)
    if tags.get("VOILUTSequence"):
        values = _looked_up(values, tags.VOILUTSequence[0], little_endian=little_endian)
    elif tags.get("WindowCenter") is not None and tags.get("WindowWidth") is not None:
        # A window of no width, or of an unknown kind, is none: black and white are found in the picture anyway.
        with contextlib.suppress(ValueError):
            values = pydicom.pixels.apply_windowing(values, tags)
    return np.nan_to_num(np.asarray(values, dtype=np.float64))


def _looked_up(values: NDArray[np.float64], item: Dataset, *, little_endian: bool) -> NDArray[np.float64]:
    """A LUT of entries for consecutive values; below and above them its first and last count (PS3.3, C.11.1.1.1).

    Not pydicom's own, which wraps at 8 bits where a long table has entries of 8 bits.
    """
    entries, first, data = int(item.LUTDescriptor[0]) or 65536, int(item.LUTDescriptor[1]), item.LUTData
    if isinstance(data, bytes):  # OW: a word for each entry, or of old, where they have 8 bits, two in a word
        words = ("<u2" if little_endian else ">u2") if len(data) >= 2 * entries else "u1"
        lut = np.frombuffer(data, words)
    else:
        lut = np.asarray(data, np.uint16)
    at = np.clip(np.rint(values) - first, 0, min(entries, len(lut)) - 1)
    return np.asarray(lut[at.astype(np.int64)], dtype=np.float64)
