"""What a compressed frame says of itself, read before any decoder sees it. Pure functions on bytes.

A decoder sets aside the memory that the codestream asks for, whatever Rows and Columns promised: the two must agree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import unpack_from

MAX_TILES = 4096
"""Tiles of a JPEG 2000 picture: 50 megapixels in tiles of 128 are 3,052. OpenJPEG keeps 5 KiB for each."""
MAX_TILE_PARTS = 65_536
MAX_LAYERS = 64
MIN_PRECINCT = 5
"""Logarithm of the least side of a precinct. In precincts of 2 pixels, 630 bytes of file took 1.3 GB (1500 x 1500)."""
MIN_CODE_BLOCK = 8
"""Logarithm of the least area of a code block; encoders use 32 x 32 or 64 x 64."""
MAX_FRAGMENTS = 100_000
"""Fragments of compressed pixels; most files have one for each frame, some one for each few kilobytes."""
MAX_SEGMENTS = 1000
"""Marker segments in front of a JPEG's frame header; a handful is usual."""

_SOF_DCT = (0xC0, 0xC1, 0xC2)
_SOF_LOSSLESS, _SOF_JPEG_LS = 0xC3, 0xF7
_BEFORE_ITS_TIME = (0xDA, 0xD9)  # start of scan, end of image
_FOREIGN = re.compile(
    # Hierarchical JPEG, the boxes of JPEG XT and the oversize picture of JPEG-LS each bring sizes of their own. No
    # entropy-coded data holds these bytes.
    rb"\xff\xde|\xff\xdf|\xff\xeb|\xff\xf8..\x04",
    re.DOTALL,
)


@dataclass(frozen=True)
class Claim:
    """Size in pixels, samples for each pixel, bits for each sample, and whether it is one of DCT blocks."""

    columns: int
    rows: int
    samples: int
    bits: int
    blocks: bool = False


def check_fragments(data: bytes, start: int) -> None:
    """Check that the fragments of encapsulated pixels (PS3.5, A.4) are all there: decoders fill up what is missing.

    Args:
        data: the whole file.
        start: where the first item, the table of offsets, begins.

    Raises:
        ValueError: they are not.
    """
    at = start
    for _ in range(MAX_FRAGMENTS):
        tag, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        # Some writers leave out the delimiter behind the last item.
        if tag == b"\xfe\xff\xdd\xe0" or (at == len(data) and at > start):
            return
        if tag != b"\xfe\xff\x00\xe0":
            break
        at += 8 + length
    raise ValueError("fragments are missing")


def jpeg_claim(frame: bytes) -> Claim:
    """The frame header of a JPEG or JPEG-LS codestream (ITU-T T.81, B.2.2; T.87, C.2.2).

    Raises:
        ValueError: there is none.
    """
    if frame[:2] != b"\xff\xd8" or _FOREIGN.search(frame):
        raise ValueError("no JPEG as DICOM has it")
    at = 2
    for _ in range(MAX_SEGMENTS):
        if frame[at : at + 1] != b"\xff" or at + 11 > len(frame):
            break
        marker = frame[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (*_SOF_DCT, _SOF_LOSSLESS, _SOF_JPEG_LS):
            bits, rows, columns, samples = unpack_from(">BHHB", frame, at + 4)
            return Claim(columns, rows, samples, bits, blocks=marker in _SOF_DCT)
        if marker in _BEFORE_ITS_TIME:
            break
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    raise ValueError("a JPEG without a frame header")


def jpeg2000_claim(frame: bytes) -> Claim:
    """The SIZ segment of a JPEG 2000 codestream (ITU-T T.800, A.5.1), which DICOM has without a JP2 file around it.

    Raises:
        ValueError: there is none, or it asks for more tiles, blocks or layers, or other samples, than any radiograph.
    """
    if frame[:4] != b"\xff\x4f\xff\x51" or len(frame) < 45:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = unpack_from(">8L", frame, 8)
    (samples,) = unpack_from(">H", frame, 40)
    if not tile_width or not tile_height or min(right - left, bottom - top) < 1 or tile_left > left or tile_top > top:
        raise ValueError("a JPEG 2000 codestream with an impossible size")
    across, down = -(-(right - tile_left) // tile_width), -(-(bottom - tile_top) // tile_height)
    if across * down > MAX_TILES:
        raise ValueError("a JPEG 2000 codestream with too many tiles")
    _check_coding_styles(frame)
    components = [frame[42 + 3 * i : 45 + 3 * i] for i in range(min(samples, 4))]
    if any(len(component) < 3 or component[1:] != b"\1\1" for component in components):
        raise ValueError("a JPEG 2000 codestream with subsampled components")
    return Claim(right - left, bottom - top, samples, max((1 + (c[0] & 0x7F) for c in components), default=0))


def _check_coding_styles(frame: bytes) -> None:
    """Refuse a JPEG 2000 codestream whose COD or COC segments (T.800, A.6.1 and A.6.2) ask for a mosaic.

    OpenJPEG keeps some hundred bytes for each precinct and code block, before it has seen any data.
    """
    at, tile_part = 2, 0
    for _ in range(MAX_TILE_PARTS * 8):
        marker, length = frame[at : at + 2], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == b"\xff\x90":  # a tile-part begins, and says where it ends; 0 is at the end of all
            size = int.from_bytes(frame[at + 6 : at + 10], "big")
            tile_part = at + size if size else len(frame)
        elif marker == b"\xff\x93":  # data until then
            at = tile_part
            continue
        elif marker == b"\xff\x52":
            _check_coding_style(frame[at + 9 : at + 2 + length], layers=int.from_bytes(frame[at + 6 : at + 8], "big"))
        elif marker == b"\xff\x53":
            _check_coding_style(frame[at + 6 : at + 2 + length])
        elif marker[:1] != b"\xff" or marker == b"\xff\xd9":
            return
        at += 2 + max(length, 2)
    raise ValueError("a JPEG 2000 codestream in too many parts")


def _check_coding_style(style: bytes, layers: int = 1) -> None:
    # Levels, code block's width and height less 2, style, transform, and a byte for each precinct size if it has any.
    if len(style) < 5 or style[1] + style[2] + 4 < MIN_CODE_BLOCK or layers > MAX_LAYERS:
        raise ValueError("a JPEG 2000 codestream in too small blocks or too many layers")
    if any(min(size & 15, size >> 4) < MIN_PRECINCT for size in style[5:]):
        raise ValueError("a JPEG 2000 codestream in too small precincts")


def check_rle(frame: bytes, columns: int, rows: int, planes: int) -> None:
    """Check that each segment of an RLE frame (PS3.5, annex G) unpacks to a plane of the picture, and hardly to more.

    Two bytes may stand for 128, and pydicom unpacks a segment before it looks at its length.

    Args:
        planes: samples for each pixel times bytes for each sample; one segment each.

    Raises:
        ValueError: it does not.
    """
    wanted = columns * rows
    if len(frame) < 64:
        raise ValueError("an RLE frame without a header")
    count, *offsets = unpack_from("<16L", frame)
    ends = [*offsets[1:planes], len(frame)]
    if count != planes or any(not 64 <= start <= end <= len(frame) for start, end in zip(offsets, ends, strict=False)):
        raise ValueError("an RLE frame with impossible segments")
    for start, end in zip(offsets, ends, strict=False):
        # Literal runs add a byte to 128 and each row may end one early; more than that is nothing but filling.
        if end - start > 2 * wanted + 1024:
            raise ValueError("an RLE segment that is longer than its picture")
        unpacked = _unpacked_length(frame[start:end], stop=wanted + 1024)
        if not wanted <= unpacked <= wanted + 1024:
            raise ValueError("an RLE segment of another size than its picture")


def _unpacked_length(segment: bytes, stop: int) -> int:
    at = length = 0
    while at < len(segment) and length <= stop:
        control = segment[at]
        if control < 128:
            length += min(control + 1, len(segment) - at - 1)
            at += control + 2
        elif control > 128:
            length += 257 - control if at + 1 < len(segment) else 0
            at += 2
        else:
            at += 1
    return length
