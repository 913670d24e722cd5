"""DICOM -> uint8 pixels of the first frame, where the `dicom` extra is installed.

Only the tags in `_TAGS` are read, and none of them names a patient; nothing that pydicom or a decoder says is passed
on, for it may quote the file. The header is checked before a pixel is decoded: kind, view, size, and what the
compressed frame says of its own size.
"""

from __future__ import annotations

import functools
import io
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from cxr_edge.dicom_display import as_displayed
from cxr_edge.dicom_frames import Claim, check_fragments, check_rle, jpeg2000_claim, jpeg_claim
from cxr_edge.dicom_gates import check_kind, check_view
from cxr_edge.errors import ImageProblem, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom import Dataset

MAX_FRAMES = 1000
"""Only the first is decoded, but the table of all of them may lie in front of it."""
MAX_ELEMENTS = 100_000
"""Reads of the header. A radiograph's has some hundred elements; a million tiny ones would fill the memory."""

HEADER_BYTES = 2**20
"""Where the size of a picture stands; what comes before it may have thumbnails and histories, but not more."""
BYTES_PER_PIXEL = (10, 27)
"""At the peak of `decode`, measured: gray in JPEG-LS, and YBR."""

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_RLE = "1.2.840.10008.1.2.5"
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_TAGS = (
    *("SOPClassUID", "Modality", "BodyPartExamined", "ViewPosition", "ViewCodeSequence", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *("ModalityLUTSequence", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
)

_BARE = re.compile(
    # It begins with the file meta's length, or with one of the first elements of a data set in the order of tags...
    rb"(?=\x02\x00\x00\x00UL\x04\x00|\x08\x00[\x00\x01\x05\x08\x12-\x16]\x00)"
    # ...and soon comes a SOP Class UID of the standard, with its VR or without.
    rb".{0,2048}?\x08\x00\x16\x00(?:UI..|..\x00\x00)1\.2\.840\.10008\.",
    re.DOTALL,
)


def is_dicom(data: bytes) -> bool:
    """Whether these bytes are DICOM: 'DICM' behind the preamble, or without a preamble the standard's own UIDs."""
    return data[128:132] == b"DICM" or _BARE.match(data[:4096]) is not None


@dataclass(frozen=True)
class _Header:
    """What was read of a file. `start` and `length` (bytes, None if encapsulated) are of the value of Pixel Data."""

    tags: Dataset
    transfer_syntax: str
    start: int
    length: int | None
    pixel_vr: str
    photometric: str
    columns: int
    rows: int
    samples: int
    frames: int
    allocated: int

    @property
    def planes(self) -> int:
        """Bytes of a pixel, all samples together."""
        return self.samples * self.allocated // 8

    def problem(self, reason: Reason, sentence: str) -> ImageProblem:
        return ImageProblem(Status.FAILED, reason, sentence, self.columns, self.rows)


class _Reader(io.BytesIO):
    """Bytes that can be read so many times and no more: pydicom reads at least once for each element."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MAX_ELEMENTS:
            raise ImageProblem(Status.FAILED, Reason.TOO_LARGE, "the DICOM header has too many elements")
        return super().read(size)


@functools.cache
def quiet_pydicom() -> Any:
    """pydicom, told to say nothing: it quotes what it stumbles over, which may be a patient's name.

    Raises:
        ImageProblem: failed; the `dicom` extra is not installed.
    """
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except ImportError as error:
        sentence = "DICOM needs an extra: pip install 'cxr-edge[dicom]'"
        raise ImageProblem(Status.FAILED, Reason.DICOM_EXTRA_MISSING, sentence) from error
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="(pydicom|libjpeg|openjpeg|pylibjpeg)")
    return pydicom


def memory_needed(file: BinaryIO) -> int:
    """Bytes that `decode` takes at its peak, beside the file's own, by what the header claims; 0 if it is damaged."""
    try:
        tags, _ = read_tags(file.read(HEADER_BYTES), ("Rows", "Columns", "SamplesPerPixel"))
        each = BYTES_PER_PIXEL[_number(tags, "SamplesPerPixel", 1) == 3]
        return each * _number(tags, "Columns", 0) * _number(tags, "Rows", 0)
    except Exception:  # whatever is wrong, `decode` will say it
        return 0


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the first frame of a projection radiograph.

    Gray goes through the modality LUT or rescale and the VOI LUT or window, MONOCHROME1 is inverted, and the rest is
    windowed to 8 bits by its own 0.1 and 99.9 percentiles.

    Returns:
        uint8[H, W] gray, 0 black to 255 white, or uint8[H, W, 3] red, green and blue.

    Raises:
        ImageProblem: failed; pydicom is not installed, the file is too large, of an unknown kind, or damaged.
            Rejected; the header says that it is no frontal chest radiograph, or too small to judge.
    """
    pydicom = quiet_pydicom()
    header: _Header | None = None
    try:
        header = _read_header(pydicom, data)
        _check_header(header)
        pixels = _first_frame(pydicom, data, header)
        if header.samples == 3:
            return np.asarray(pixels, dtype=np.uint8)
        return as_displayed(pydicom, pixels, header.tags)
    except ImageProblem as problem:
        if header and not problem.width:
            problem.width, problem.height = header.columns, header.rows
        raise
    except Exception as error:  # pydicom and its decoders raise anything on damaged files
        size = (header.columns, header.rows) if header else (0, 0)
        if isinstance(error, MemoryError):
            sentence = "there is not enough memory to decode this picture"
            raise ImageProblem(Status.FAILED, Reason.TOO_LARGE, sentence, *size) from error
        # Never the error's own text: see `quiet_pydicom`.
        sentence = f"the DICOM file is cut short or damaged ({type(error).__name__})"
        raise ImageProblem(Status.FAILED, Reason.DAMAGED, sentence, *size) from error


def read_tags(data: bytes, keywords: tuple[str, ...]) -> tuple[Dataset, io.BytesIO]:
    """Read these tags, and no others, of a DICOM file with or without a preamble.

    Returns:
        The data set, and the file's bytes, positioned at the element of the pixels, or at the end where there is none.

    Raises:
        ImageProblem: failed; pydicom is not installed, the data set is deflated, or it has too many elements.
        Exception: anything, on damaged files.
    """
    # Wherever it may stand: pydicom would inflate what follows before anybody could ask how much it is.
    if _DEFLATED in data:
        raise ImageProblem(Status.FAILED, Reason.UNSUPPORTED, "a deflated DICOM data set is not read")
    file = _Reader(data)
    pydicom = quiet_pydicom()
    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords)), file


def _read_header(pydicom: Any, data: bytes) -> _Header:
    dataset, file = read_tags(data, _TAGS)
    implicit, little = dataset.original_encoding
    # A file without a file meta names no transfer syntax; pydicom then looks which of the two it is.
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or _NATIVE[0 if implicit else 1])
    element = file.read(8 if implicit else 12)
    order: Literal["little", "big"] = "little" if little else "big"
    tag = (int.from_bytes(element[0:2], order), int.from_bytes(element[2:4], order)) if len(element) > 7 else (0, 0)
    sop_class = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""
    known = str(pydicom.uid.UID(sop_class).name) if sop_class in pydicom.uid.UID_dictionary else ""
    check_kind(_text(dataset, "Modality"), known, holds_pixels=tag[0] == 0x7FE0)
    if tag == (0, 0):
        raise ImageProblem(Status.FAILED, Reason.DAMAGED, "the DICOM file is cut short: it ends before its pixels")
    if tag != (0x7FE0, 0x0010) or syntax not in (*_NATIVE, *_JPEG, *_JPEG_LS, *_JPEG_2000, _RLE):
        raise ImageProblem(Status.FAILED, Reason.UNSUPPORTED, "DICOM pixels in an encoding that is not read")
    length = int.from_bytes(element[-4:], order)
    vr = "OW" if implicit else element[4:6].decode("ascii")
    return _Header(
        tags=dataset,
        transfer_syntax=syntax,
        start=file.tell(),
        length=None if length == 0xFFFFFFFF else length,
        pixel_vr=vr,
        photometric=_text(dataset, "PhotometricInterpretation"),
        columns=_number(dataset, "Columns", 0),
        rows=_number(dataset, "Rows", 0),
        samples=_number(dataset, "SamplesPerPixel", 1),
        frames=_number(dataset, "NumberOfFrames", 1),
        allocated=_number(dataset, "BitsAllocated", 0),
    )


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if value is None or isinstance(value, (str, bytes)):
        return str(value or "")
    return str(next(iter(value), ""))


def _number(dataset: Dataset, keyword: str, default: int) -> int:
    value = dataset.get(keyword)
    return default if value is None else int(value)


def _check_header(header: _Header) -> None:
    """Refuse by the header alone what is another view, too large, too small, or of a kind that is not read."""
    from cxr_edge.imaging import MAX_PIXELS, check_size

    tags = header.tags
    codes = [_text(item, "CodeValue") for item in (tags.get("ViewCodeSequence") or [])]
    check_view(_text(tags, "ViewPosition"), codes, _text(tags, "BodyPartExamined"))
    check_size(header.columns, header.rows)
    stored = _number(tags, "BitsStored", 0)
    high_bit = _number(tags, "HighBit", stored - 1)
    if header.frames > MAX_FRAMES:
        raise header.problem(Reason.TOO_LARGE, f"over {MAX_FRAMES} frames: a film, not a radiograph")
    if header.samples == 1:
        readable = header.photometric in ("MONOCHROME1", "MONOCHROME2") and header.allocated in (8, 16)
    else:
        readable = header.samples == 3 and header.photometric.startswith(("RGB", "YBR_")) and header.allocated == 8
    # Where the high bit lies elsewhere, pydicom would take other bits for the pixel's.
    if not readable or not 1 < stored <= header.allocated or high_bit != stored - 1:
        raise header.problem(Reason.UNSUPPORTED, "DICOM pixels of a kind that is not read: not 8 to 16 bits of gray")
    if header.columns * header.rows * header.samples > MAX_PIXELS:
        raise header.problem(Reason.TOO_LARGE, f"{header.columns} x {header.rows} pixels are too many in colour")


def _first_frame(pydicom: Any, data: bytes, header: _Header) -> NDArray[Any]:
    """Decode the first frame: uint or int[H, W], or uint8[H, W, 3]."""
    options = pydicom.pixels.as_pixel_options(header.tags, pixel_keyword="PixelData", pixel_vr=header.pixel_vr)
    source: memoryview | _Reader
    if header.transfer_syntax in _NATIVE:
        frame_bytes = header.columns * header.rows * header.planes
        if header.photometric == "YBR_FULL_422":
            frame_bytes = frame_bytes // 3 * 2
        # A frame of odd length is padded, and a view of the first one spares a copy of all.
        source = memoryview(data)[header.start : header.start + frame_bytes + frame_bytes % 2]
        if header.length is None or len(source) < frame_bytes:
            raise header.problem(Reason.DAMAGED, "the DICOM file is cut short: some of its pixels are missing")
        options["number_of_frames"] = 1
    else:
        source = _Reader(data)
        source.seek(header.start)
        check_fragments(data, header.start)
        # The table of offsets is the first item, and pydicom reads all of it into a list.
        if int.from_bytes(data[header.start + 4 : header.start + 8], "little") > 4 * MAX_FRAMES:
            raise header.problem(Reason.DAMAGED, "the DICOM file is damaged: its table of frames is too long")
        frame = pydicom.encaps.get_frame(source, 0, number_of_frames=options["number_of_frames"])
        if _check_frame(frame, header):
            options["decoding_plugin"] = "pillow"
        del frame
        source.seek(header.start)
    decoder = pydicom.pixels.get_decoder(header.transfer_syntax)
    if not decoder.is_available:
        sentence = "no decoder of this machine reads the DICOM file's compression: export it uncompressed"
        raise header.problem(Reason.UNSUPPORTED, sentence)
    pixels: NDArray[Any] = decoder.as_array(source, index=0, **options)[0]
    return pixels


def _check_frame(frame: bytes, header: _Header) -> bool:
    """Refuse a compressed frame that would unpack to another picture than the header says.

    Returns:
        Whether it is a JPEG that Pillow reads: several times faster than libjpeg, and other threads may go on.
    """
    if header.transfer_syntax == _RLE:
        check_rle(frame, header.columns, header.rows, header.planes)
        return False
    read: Callable[[bytes], Claim] = jpeg2000_claim if header.transfer_syntax in _JPEG_2000 else jpeg_claim
    claim = read(frame)
    if (claim.columns, claim.rows) != (header.columns, header.rows):
        sentence = f"its compressed picture says {claim.columns} x {claim.rows} pixels"
        raise header.problem(Reason.DAMAGED, f"{sentence}, its header {header.columns} x {header.rows}")
    if claim.samples != header.samples or not 2 <= claim.bits <= 16:
        sentence = f"its compressed picture has {claim.samples} samples of {claim.bits} bits for each pixel"
        raise header.problem(Reason.DAMAGED, f"{sentence}, which its header denies")
    return header.transfer_syntax == _JPEG[0] and claim.blocks and claim.bits == 8
