"""Untrusted bytes -> uint8[H, W] gray. The one place where image files are decoded, for box and workstation alike.

Formats are recognised by content, never by name, and only by a fixed list of decoders. Everything a decoder may
throw becomes an `ImageProblem`: one bad file costs one row.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageChops, PngImagePlugin, TiffImagePlugin

from cxr_edge import dicom
from cxr_edge.errors import ImageProblem, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings a picture upright, by its EXIF orientation (EXIF 2.32, tag 0x0112)."""

MAX_FILE_BYTES = 256 * 2**20
MAX_PIXELS = 200_000_000
"""Far above any radiograph: a 43 cm detector with 100 um pixels has 18 megapixels, a digitised film up to 50. What a
box can bear is a matter of its memory: see `budget.py`."""
MIN_SIDE = 64
"""Pixels. Below this a lung is a few pixels wide and nothing in it can be judged."""
MAX_SIDE_RATIO = 8
_BYTES_PER_PIXEL = {"1": 4, "L": 4, "P": 10, "RGB": 8, "I": 13, "F": 13}
_BYTES_PER_PIXEL |= dict.fromkeys(("I;16", "I;16B", "I;16L", "I;16N"), 9)
_OTHER_BYTES_PER_PIXEL = 13
"""At the peak of `decode`, by Pillow mode: the pixels, their conversions, the gray, and one turned copy of it."""
MASK_BYTES_PER_PIXEL = 3
COLOUR, COLOUR_SAMPLE = 32, 128
"""Gray levels between two channels that make a colour (a bluish film has fewer), and the sample's side, pixels."""

# The size and shape of every picture are checked below, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None
# Texts in a PNG are inflated as its header is read, and nobody asks for them.
PngImagePlugin.MAX_TEXT_MEMORY = 4 * 2**20
# What Pillow finds odd about a file it can read is nothing that cron should mail.
warnings.filterwarnings("ignore", module="PIL")


@dataclass(frozen=True)
class Radiograph:
    """A decoded picture: `gray` uint8[H, W]; `width`, `height` are the file's, in pixels, after EXIF orientation.

    `gray` may be smaller than `width` x `height` (JPEG is decoded at reduced scale), but shows the same frame.
    `coloured` is the share of pixels, 0 to 1, that are no gray.
    """

    gray: NDArray[np.uint8]
    width: int
    height: int
    coloured: float = 0.0


def memory_needed(file: BinaryIO, wanted: tuple[int, int]) -> int:
    """Bytes that a picture takes at its peak, to decode it or to draw its mask, beside the file's own.

    By what the file's header claims; nothing is decoded.

    Args:
        file: open at its beginning.
        wanted: as `decode`'s.

    Returns:
        0 for what is no picture, or one that `decode` will refuse before it decodes.
    """
    start = file.read(4096)
    file.seek(0)
    if dicom.is_dicom(start):
        return dicom.memory_needed(file)
    try:
        with Image.open(file, formats=FORMATS) as image:
            pixels = image.width * image.height
            check_size(*image.size)
            extra = 0
            if image.format == "JPEG" and image.info.get("progressive"):
                extra = 2 * len(image.getbands()) * pixels  # libjpeg keeps every coefficient, whatever the scale
            elif image.format == "WEBP":
                extra = 8 * pixels  # two canvases of RGBA
            elif image.format == "TIFF":
                extra = 4 * pixels  # one strip may be the whole picture
            _draft(image, wanted, turned=False)
            each = _BYTES_PER_PIXEL.get(image.mode, _OTHER_BYTES_PER_PIXEL)
            return max(extra + each * image.width * image.height, MASK_BYTES_PER_PIXEL * pixels)
    except Exception:  # whatever is wrong, `decode` will say it
        return 0


def _draft(image: Image.Image, wanted: tuple[int, int], *, turned: bool) -> None:
    """Have a JPEG decoded at no less than twice the wanted (width, height)."""
    least = (2 * wanted[0], 2 * wanted[1])
    # Whether a picture has colours is asked of it: its JPEG is not decoded as gray, which would cost less.
    image.draft(None, least[::-1] if turned else least)


def read_bytes(path: Path) -> bytes:
    """Read a whole file of at most `MAX_FILE_BYTES`.

    Raises:
        ImageProblem: the file is empty, too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            check_file_size(size)
            return file.read(size)  # not more: Python sets aside at once what it is asked to read
    except OSError as error:
        raise unreadable(error) from error


def check_file_size(size: int) -> None:
    """Refuse a file by its size in bytes. Raises ImageProblem (failed): it is empty, or over `MAX_FILE_BYTES`."""
    if not size:
        raise ImageProblem(Status.FAILED, Reason.EMPTY_FILE, "the file is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise ImageProblem(Status.FAILED, Reason.TOO_LARGE, f"the file is over {MAX_FILE_BYTES // 2**20} MiB")


def unreadable(error: OSError) -> ImageProblem:
    """What a file that cannot be opened or read costs: its row."""
    return ImageProblem(Status.FAILED, Reason.UNREADABLE, f"cannot be read: {error.strerror or error}")


def decode(data: bytes, wanted: tuple[int, int]) -> Radiograph:
    """Decode a JPEG, PNG, BMP, TIFF or WebP picture, or a DICOM file where the `dicom` extra is installed.

    Colour is reduced to luma (ITU-R 601), transparency lies over black, more than 8 bits are windowed to 8,
    EXIF orientation is applied, and of several frames the first is taken.

    Args:
        data: the file's bytes.
        wanted: (width, height) that the caller will resize to, pixels; a JPEG is decoded at no less than twice that.

    Raises:
        ImageProblem: the bytes cannot be decoded (failed), or the picture is too small to judge (rejected).
    """
    if dicom.is_dicom(data):
        image = Image.fromarray(dicom.decode(data))
        return Radiograph(np.asarray(to_gray(image)), *image.size, _coloured(image))
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise _problem_with(data, error) from error
    with image:
        orientation = _orientation(image)
        turned = orientation in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        check_size(width, height)
        try:
            _draft(image, wanted, turned=turned)
            coloured = _coloured(image)
            gray = to_gray(image)
            if orientation in _UPRIGHT:
                gray = gray.transpose(_UPRIGHT[orientation])
            if image.format == "TIFF":  # turned by Pillow itself, before 11.x without saying so in its header
                width, height = gray.size
            return Radiograph(np.asarray(gray, dtype=np.uint8), width, height, coloured)
        except Exception as error:  # any decoder, on any bytes: whatever it throws is that file's problem
            raise _problem_with(data, error, width, height) from error


def _coloured(image: Image.Image) -> float:
    """Share of pixels whose red, green and blue differ by more than `COLOUR`, 0 to 1, from a sample of them."""
    if image.mode in ("1", "L", "LA", "La", *_WIDE_MODES):
        return 0.0
    sample = image.resize((COLOUR_SAMPLE, COLOUR_SAMPLE), Image.Resampling.NEAREST).convert("RGB")
    channels = np.asarray(sample).astype(np.int16)
    return float((channels.max(axis=2) - channels.min(axis=2) > COLOUR).mean())


def _orientation(image: Image.Image) -> int:
    # Pillow turns TIFF by itself; without this look, it would decode a PNG to find EXIF behind its pixels.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a broken EXIF block costs no readable picture
        return 1


def to_gray(image: Image.Image) -> Image.Image:
    """Bring a picture of any Pillow mode to mode "L" (uint8, 0 black to 255 white).

    Modes of more than 8 bits carry no display window in PNG and TIFF, so they are windowed to the picture's own
    0.1 to 99.9 percentiles; a marker pixel of 65535 then cannot darken the rest.
    """
    if image.mode in _WIDE_MODES:
        wide = window(np.asarray(image))
        # Pillow inverts WhiteIsZero (TIFF 6.0, tag 262) for 8 bits, but not for more.
        negative = isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0
        return Image.fromarray(255 - wide if negative else wide)
    if image.mode == "L" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        # Gray times opacity is what lies over black.
        gray, opacity = image.convert("RGBA").convert("LA").split()
        return ImageChops.multiply(gray, opacity)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "P"):
        image = image.convert("RGB")
    return image.convert("L")


def window(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map numbers of any type and range to uint8 by their 0.1 and 99.9 percentiles, [H, W] -> uint8[H, W].

    Values that are not finite count as black. A flat picture becomes black.
    """
    # A quarter of a million samples settle a percentile; a 50-megapixel sort would take seconds.
    step = max(1, int((values.size / 250_000) ** 0.5))
    low, high = _range_of(values[::step, ::step], (0.1, 99.9))
    if high <= low:
        low, high = _range_of(values, (0, 100))
    gray = np.zeros(values.shape, np.uint8)
    if high > low:
        # By bands of rows: floats of a whole picture would take four times its memory.
        for band in range(0, len(values), 256):
            numbers = np.nan_to_num(values[band : band + 256].astype(np.float64), nan=low, posinf=low, neginf=low)
            gray[band : band + 256] = np.clip(np.rint((numbers - low) * (255 / (high - low))), 0, 255)
    return gray


def _range_of(values: NDArray[np.generic], percentiles: tuple[float, float]) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 0.0
    low, high = np.percentile(finite, percentiles)
    return float(low), float(high)


def check_size(width: int, height: int) -> None:
    """Refuse a picture by its size in pixels, before it is decoded.

    Raises:
        ImageProblem: too many pixels (failed), or too few, or a strip (rejected).
    """
    if width * height > MAX_PIXELS:
        sentence = f"{width} x {height} pixels are over the limit of {MAX_PIXELS // 1_000_000} megapixels"
        raise ImageProblem(Status.FAILED, Reason.TOO_LARGE, sentence, width, height)
    if min(width, height) < MIN_SIDE:
        sentence = f"{width} x {height} pixels are too few to judge (at least {MIN_SIDE} on each side)"
        raise ImageProblem(Status.REJECTED, Reason.TOO_SMALL, sentence, width, height)
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        sentence = f"{width} x {height} pixels are a strip, not a radiograph"
        raise ImageProblem(Status.REJECTED, Reason.TOO_SMALL, sentence, width, height)


def _claims_to_be_an_image(data: bytes) -> bool:
    bmp_headers = (12, 16, 40, 52, 56, 64, 108, 124)
    if data.startswith(b"BM"):
        return int.from_bytes(data[14:18], "little") in bmp_headers
    return data.startswith(_SIGNATURES) or (data.startswith(b"RIFF") and data[8:12] == b"WEBP")


def _problem_with(data: bytes, error: Exception, width: int = 0, height: int = 0) -> ImageProblem:
    if isinstance(error, MemoryError):
        return ImageProblem(Status.FAILED, Reason.TOO_LARGE, "there is not enough memory to decode this picture")
    if _claims_to_be_an_image(data):
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        # Pillow's own text names the in-memory stream, which means nothing to a technician.
        if "cannot identify" in detail:
            detail = "its header is incomplete or of an unknown kind"
        return ImageProblem(
            Status.FAILED, Reason.DAMAGED, f"the picture is cut short or damaged ({detail})", width, height
        )
    sentence = "not a JPEG, PNG, BMP, TIFF, WebP or DICOM file, whatever its name says"
    return ImageProblem(Status.FAILED, Reason.NOT_AN_IMAGE, sentence)
