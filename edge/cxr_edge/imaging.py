"""Untrusted bytes -> uint8[H, W] gray. The one place where image files are decoded, for box and workstation alike.

Formats are recognised by content, never by name, and only by a fixed list of decoders. Everything a decoder may
throw becomes an `ImageProblem`: one bad file costs one row.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from cxr_edge.errors import ImageProblem, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*", b"RIFF")
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
MAX_PIXELS = 50_000_000
"""Above any radiograph (a 43 cm detector with 100 um pixels has 18 megapixels), below what hurts a small box."""
MIN_SIDE = 64
"""Pixels. Below this a lung is a few pixels wide and nothing in it can be judged."""
MAX_SIDE_RATIO = 8

# The size and shape of every picture are checked below, before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Radiograph:
    """A decoded picture: `gray` uint8[H, W]; `width`, `height` are the file's, in pixels, after EXIF orientation.

    `gray` may be smaller than `width` x `height` (JPEG is decoded at reduced scale), but shows the same frame.
    """

    gray: NDArray[np.uint8]
    width: int
    height: int


def read_bytes(path: Path) -> bytes:
    """Read a whole file of at most `MAX_FILE_BYTES`.

    Raises:
        ImageProblem: the file is empty, too large, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ImageProblem(Status.FAILED, Reason.UNREADABLE, f"cannot be read: {error.strerror}") from error
    if not data:
        raise ImageProblem(Status.FAILED, Reason.EMPTY_FILE, "the file is empty (0 bytes)")
    if len(data) > MAX_FILE_BYTES:
        raise ImageProblem(Status.FAILED, Reason.TOO_LARGE, f"the file is over {MAX_FILE_BYTES // 2**20} MiB")
    return data


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
    if data[128:132] == b"DICM":
        from cxr_edge import dicom

        pixels = dicom.decode(data)
        return Radiograph(pixels, pixels.shape[1], pixels.shape[0])
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:
        raise _problem_with(data, error) from error
    with image:
        check_size(*image.size)
        try:
            # Pillow turns TIFF by itself.
            orientation = 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)
            turned = orientation in (5, 6, 7, 8)
            width, height = image.size[::-1] if turned else image.size
            least = (2 * wanted[0], 2 * wanted[1])
            image.draft("L", least[::-1] if turned else least)
            gray = to_gray(image)
            if orientation in _UPRIGHT:
                gray = gray.transpose(_UPRIGHT[orientation])
            return Radiograph(np.asarray(gray, dtype=np.uint8), width, height)
        except Exception as error:  # any decoder, on any bytes: whatever it throws is that file's problem
            raise _problem_with(data, error) from error


def to_gray(image: Image.Image) -> Image.Image:
    """Bring a picture of any Pillow mode to mode "L" (uint8, 0 black to 255 white).

    Modes of more than 8 bits carry no display window in PNG and TIFF, so they are windowed to the picture's own
    0.1 to 99.9 percentiles; a marker pixel of 65535 then cannot darken the rest.
    """
    if image.mode == "L":
        image.load()
        return image
    if image.mode in _WIDE_MODES:
        return Image.fromarray(window(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        picture = image.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        black.alpha_composite(picture)
        return black.convert("L")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "P"):
        image = image.convert("RGB")
    return image.convert("L")


def window(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map numbers of any type and range to uint8 by their 0.1 and 99.9 percentiles, [H, W] -> uint8[H, W].

    Values that are not finite count as black. A flat picture becomes black.
    """
    numbers = values.astype(np.float32)
    finite = np.isfinite(numbers)
    if not finite.all():
        numbers = np.where(finite, numbers, numbers[finite].min() if finite.any() else 0)
    # A quarter of a million samples settle a percentile; a 50-megapixel sort would take seconds.
    step = max(1, int((numbers.size / 250_000) ** 0.5))
    low, high = np.percentile(numbers[::step, ::step], (0.1, 99.9))
    if high <= low:
        low, high = float(numbers.min()), float(numbers.max())
    if high <= low:
        return np.zeros(numbers.shape, np.uint8)
    scaled = (numbers - np.float32(low)) * np.float32(255 / (high - low))
    return np.asarray(np.clip(np.rint(scaled), 0, 255), dtype=np.uint8)


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


def _problem_with(data: bytes, error: Exception) -> ImageProblem:
    if isinstance(error, MemoryError):
        return ImageProblem(Status.FAILED, Reason.TOO_LARGE, "there is not enough memory to decode this picture")
    if data.startswith(_SIGNATURES):
        detail = " ".join(str(error).split())[:120] or type(error).__name__
        # Pillow's own text names the in-memory stream, which means nothing to a technician.
        if "cannot identify" in detail:
            detail = "its header is incomplete or of an unknown kind"
        return ImageProblem(Status.FAILED, Reason.DAMAGED, f"the picture is cut short or damaged ({detail})")
    sentence = "not a JPEG, PNG, BMP, TIFF, WebP or DICOM file, whatever its name says"
    return ImageProblem(Status.FAILED, Reason.NOT_AN_IMAGE, sentence)
