"""Untrusted bytes: every format and mode gives the same picture, and nothing but an ImageProblem comes out of junk."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from cxr_edge import imaging
from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.imaging import MAX_SIDE_RATIO, MIN_SIDE, Radiograph, decode, read_bytes
from cxr_edge.phantom import draw

GRAY = draw(1, height=200, width=160).image
PICTURE = Image.fromarray(GRAY)
FULL = (10_000, 10_000)
"""Wanted so large that a JPEG is not reduced."""
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}
FINE: dict[str, dict[str, Any]] = {**LOSSLESS, "JPEG": {"quality": 95}}
TIFF_ORIENTATION, TIFF_PHOTOMETRIC = 274, 262

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks on damaged metadata


def encode(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def gray_of(data: bytes) -> NDArray[np.int64]:
    """Decoded at full scale, wide enough to subtract."""
    picture = decode(data, FULL)
    assert picture.gray.dtype == np.uint8
    assert picture.gray.shape == (picture.height, picture.width)
    return picture.gray.astype(np.int64)


def problem(data: bytes) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        decode(data, FULL)
    return caught.value


def assert_nearly(got: NDArray[np.int64], expected: NDArray[np.uint8]) -> None:
    """Lossy at quality 95: the phantom's noise moves by 1 to 2 levels, and a swapped or shifted picture by far more."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 3
    assert np.corrcoef(got.ravel(), expected.ravel())[0, 1] > 0.998


def windowed(gray: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the 0.1 to 99.9 percentile window makes of a picture, before rounding."""
    low, high = np.percentile(gray, (0.1, 99.9))
    return np.asarray(np.clip((gray - low) / (high - low), 0, 1) * 255)


def dicom(pixels: NDArray[np.uint8]) -> bytes:
    """A CR image; all that DICOM may be is in test_dicom.py."""
    import pydicom
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *pixels.shape, 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.add_new("PixelData", "OB", pixels.tobytes())
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


# What a file may hold


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "PA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("file_format", LOSSLESS)
def test_every_8_bit_mode_without_loss_is_the_very_picture(mode: str, file_format: str) -> None:
    picture = PICTURE.convert(mode)
    try:
        data = encode(picture, file_format, **LOSSLESS[file_format])
    except OSError:  # the format cannot hold this mode, so nor can a file
        assert (mode, file_format) not in {("L", "PNG"), ("RGB", "BMP"), ("CMYK", "TIFF"), ("RGBA", "WEBP")}
        return
    if (mode, file_format) == ("YCbCr", "TIFF") and int(PIL.__version__.split(".")[0]) < 13:
        with pytest.raises(ImageProblem):  # Pillow takes the three bytes of a pixel for four, and misses the fourth
            gray_of(data)
        return
    # Gray as YCbCr or CMYK and back may round by one level.
    assert np.abs(gray_of(data) - GRAY).max() <= (1 if mode in ("CMYK", "YCbCr") else 0)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "YCbCr", "CMYK"])
def test_lossy_files_are_nearly_the_picture(mode: str, file_format: str) -> None:
    assert_nearly(gray_of(encode(PICTURE.convert(mode), file_format, quality=95)), GRAY)


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"restart_marker_blocks": 4}], ids=str)
def test_kinds_of_jpeg(options: dict[str, Any]) -> None:
    assert_nearly(gray_of(encode(PICTURE.convert("RGB"), "JPEG", quality=95, **options)), GRAY)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_kinds_of_tiff(compression: str) -> None:
    assert np.array_equal(gray_of(encode(PICTURE, "TIFF", compression=compression)), GRAY)
    assert np.array_equal(gray_of(encode(PICTURE, "TIFF", compression=compression, big_tiff=True)), GRAY)


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_one_bit_is_black_and_white(file_format: str) -> None:
    bilevel = PICTURE.convert("1")
    data = encode(bilevel, file_format, **LOSSLESS[file_format])
    assert np.array_equal(gray_of(data), np.asarray(bilevel) * 255)


@pytest.mark.parametrize(("colour", "luma"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
@pytest.mark.parametrize("file_format", FINE)
def test_colour_becomes_luma(file_format: str, colour: tuple[int, int, int], luma: int) -> None:
    data = encode(Image.new("RGB", (80, 80), colour), file_format, **FINE[file_format])
    assert np.abs(gray_of(data) - luma).max() <= 2


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGB", "L", "P"])
def test_what_is_transparent_is_black(mode: str) -> None:
    """The left half is white, and transparent: by an alpha channel, or by the one colour that PNG can name."""
    gray = np.minimum(GRAY, 254)
    gray[:, :80] = 255
    picture = Image.fromarray(gray).convert(mode)
    options: dict[str, Any] = {"transparency": (255, 255, 255) if mode == "RGB" else 255}
    if mode in ("RGBA", "LA"):
        picture.putalpha(Image.fromarray(np.where(gray == 255, 0, 255).astype(np.uint8)))
        options = {}
    got = gray_of(encode(picture, "PNG", **options))
    assert np.array_equal(got[:, 80:], gray[:, 80:])
    assert not got[:, :80].any()


def wide_files() -> dict[str, Callable[[NDArray[np.uint8]], bytes]]:
    """Ways to store a gray picture with more than 8 bits."""

    def big_endian(gray: NDArray[np.uint8]) -> bytes:
        values = (gray.astype(np.uint16) * 257).astype(">u2")
        data = encode(Image.frombytes("I;16B", gray.shape[::-1], values.tobytes()), "TIFF")
        assert data.startswith(b"MM")
        return data

    def with_nan(gray: NDArray[np.uint8]) -> bytes:
        values = gray / np.float32(255)
        values[0, :2] = np.nan, np.inf
        return encode(Image.fromarray(values), "TIFF")

    return {
        "16-bit PNG": lambda gray: encode(Image.fromarray(gray.astype(np.uint16) * 257), "PNG"),
        "12 bits in a PNG": lambda gray: encode(Image.fromarray(gray.astype(np.uint16) * 16), "PNG"),
        "16-bit TIFF": lambda gray: encode(Image.fromarray(gray.astype(np.uint16) * 257), "TIFF"),
        "16-bit TIFF, big-endian": big_endian,
        "12 bits in a TIFF": lambda gray: encode(Image.fromarray(gray.astype(np.uint16) * 16), "TIFF"),
        "32-bit TIFF, negative": lambda gray: encode(Image.fromarray(gray.astype(np.int32) * 9 - 1024), "TIFF"),
        "float TIFF": lambda gray: encode(Image.fromarray(gray / np.float32(255)), "TIFF"),
        "float TIFF with NaN": with_nan,
    }


@pytest.mark.parametrize("kind", wide_files())
def test_more_than_8_bits_are_windowed_to_the_same_picture(kind: str) -> None:
    """Whatever the range, the same window falls on it, so only rounding may differ."""
    got = gray_of(wide_files()[kind](GRAY))
    difference = np.abs(got - windowed(GRAY))
    if "NaN" in kind:
        assert not got[0, :2].any()
        difference[0, :2] = 0
    assert difference.max() <= 1


def test_a_marker_cannot_darken_the_rest() -> None:
    values = GRAY.astype(np.uint16) * 16
    values[100, 80:90] = 65535
    got = gray_of(encode(Image.fromarray(values), "PNG"))
    got[100, 80:90] = GRAY[100, 80:90]
    assert np.abs(got - windowed(GRAY)).mean() < 2


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_where_white_is_zero_is_no_negative(bits: int) -> None:
    # Pillow inverts 8-bit pixels itself when it writes this tag, and leaves 16-bit ones to the caller.
    picture = PICTURE if bits == 8 else Image.fromarray(65535 - GRAY.astype(np.uint16) * 257)
    data = encode(picture, "TIFF", tiffinfo={TIFF_PHOTOMETRIC: 0})
    assert np.abs(gray_of(data) - (GRAY if bits == 8 else windowed(GRAY))).max() <= 1


@given(
    arrays.arrays(
        st.sampled_from([np.uint16, np.int16, np.int32, np.float32]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=20),
        elements=st.integers(0, 1000),
    ),
    st.floats(0, 1),
)
def test_a_window_keeps_the_order_of_values(values: NDArray[Any], share_of_nan: float) -> None:
    if values.dtype == np.float32:
        values[: int(share_of_nan * len(values))] = np.nan
    gray = imaging.window(values)
    assert gray.dtype == np.uint8
    assert gray.shape == values.shape
    finite = np.isfinite(values)
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(gray[finite][order].astype(int)) >= 0).all()
    assert not gray[~finite].any()


def test_flat_wide_pictures_are_black_not_noise() -> None:
    for value in (0, 1000, 65535):
        assert not gray_of(encode(Image.fromarray(np.full((80, 80), value, np.uint16)), "PNG")).any()


# How it is turned

STORED = {
    1: GRAY,
    2: np.fliplr(GRAY),
    3: np.rot90(GRAY, 2),
    4: np.flipud(GRAY),
    5: GRAY.T,
    6: np.rot90(GRAY, 1),
    7: np.rot90(GRAY, 2).T,
    8: np.rot90(GRAY, -1),
}
"""How a camera stores the same upright picture under each EXIF orientation."""


def turned(orientation: int, file_format: str) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(STORED[orientation]))
    if file_format == "TIFF":
        return encode(picture, "TIFF", tiffinfo={TIFF_ORIENTATION: orientation})
    exif = Image.Exif()
    exif[TIFF_ORIENTATION] = orientation
    return encode(picture, file_format, exif=exif.tobytes(), **FINE[file_format])


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright(file_format: str, orientation: int) -> None:
    picture = decode(turned(orientation, file_format), FULL)
    assert (picture.width, picture.height) == (160, 200)
    assert_nearly(picture.gray.astype(np.int64), GRAY)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0no TIFF header", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"], ids=["foreign", "cut"]
)
def test_a_broken_exif_block_costs_no_readable_picture(exif: bytes, file_format: str) -> None:
    assert_nearly(gray_of(encode(PICTURE, file_format, exif=exif, **FINE[file_format])), GRAY)


# JPEG at reduced scale

JPEGS = {orientation: turned(orientation, "JPEG") for orientation in (1, 6)}


@given(st.integers(1, 120), st.integers(1, 120), st.sampled_from(sorted(JPEGS)))
@example(50, 10, 6)  # enough for the stored height, too little for the displayed width
def test_reduced_jpeg_has_the_full_size_and_enough_pixels(width: int, height: int, orientation: int) -> None:
    picture = decode(JPEGS[orientation], (width, height))
    assert (picture.width, picture.height) == (160, 200)
    assert picture.gray.shape[0] >= min(2 * height, 200)
    assert picture.gray.shape[1] >= min(2 * width, 160)


def test_a_large_jpeg_is_reduced_and_shows_the_same_frame() -> None:
    large = draw(2, height=1000, width=800).image
    data = encode(Image.fromarray(large), "JPEG", quality=95)
    picture = decode(data, (100, 100))
    assert picture.gray.shape == (250, 200)
    small = np.asarray(Image.fromarray(large).reduce(4))
    assert_nearly(picture.gray.astype(np.int64), small)


# What is refused


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", Reason.EMPTY_FILE), (None, Reason.UNREADABLE)], ids=["empty", "missing"]
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes | None, reason: Reason) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageProblem) as caught:
        read_bytes(path)
    assert (caught.value.status, caught.value.reason) == (Status.FAILED, reason)
    assert str(tmp_path) not in caught.value.sentence


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_file_that_the_system_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageProblem, match=error.strerror) as caught:
        read_bytes(tmp_path / "a.png")
    assert caught.value.reason is Reason.UNREADABLE


def test_the_limit_of_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "MAX_FILE_BYTES", 1000)
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 1000)
    assert read_bytes(path) == b"x" * 1000
    path.write_bytes(b"x" * 1001)
    with pytest.raises(ImageProblem) as caught:
        read_bytes(path)
    assert (caught.value.status, caught.value.reason) == (Status.FAILED, Reason.TOO_LARGE)


def test_reading_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 1000)
    assert peak_bytes(lambda: read_bytes(path)) < 10_000_000


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


FOREIGN = {
    "text": b"Patient list\n" * 50,
    "html": b"<!doctype html><html><body>404</body></html>",
    "pdf": b"%PDF-1.7\n" + bytes(500),
    "zip": b"PK\x03\x04" + bytes(500),
    "zeros": bytes(5000),
    "one byte": b"\xff",
    "GIF": encode(PICTURE, "GIF"),
    "PPM": encode(PICTURE, "PPM"),
    "ICO": encode(PICTURE, "ICO"),
    "JPEG 2000": encode(PICTURE, "JPEG2000"),
    "sound": b"RIFF\x24\x02\0\0WAVEfmt " + bytes(500),
    "text that starts like a BMP": b"BMI and age of the patients\n" * 20,
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_files_are_not_images_whatever_their_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "radiograph.png"
    path.write_bytes(FOREIGN[kind])
    refused = problem(read_bytes(path))
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.NOT_AN_IMAGE)


def test_formats_are_known_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "radiograph.txt"
    path.write_bytes(encode(PICTURE, "PNG"))
    assert np.array_equal(gray_of(read_bytes(path)), GRAY)


WHOLE = {
    **{name: encode(PICTURE, name, **options) for name, options in FINE.items()},
    "TIFF, LZW": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "BigTIFF": encode(PICTURE, "TIFF", big_tiff=True),
    "16-bit PNG": wide_files()["16-bit PNG"](GRAY),
    "DICOM": dicom(GRAY),
}


@pytest.mark.parametrize("kept", [0.2, 0.7])
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_short_is_damaged(kind: str, kept: float) -> None:
    refused = problem(WHOLE[kind][: int(kept * len(WHOLE[kind]))])
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.DAMAGED)
    assert "\n" not in refused.sentence
    assert "BytesIO" not in refused.sentence


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF"])  # WebP's decoder opens whole files only
def test_a_picture_cut_behind_its_header_still_has_a_size(file_format: str) -> None:
    refused = problem(WHOLE[file_format][: int(0.7 * len(WHOLE[file_format]))])
    assert (refused.width, refused.height) == (160, 200)


def test_a_reduced_jpeg_cut_short_is_damaged_too() -> None:
    data = encode(Image.fromarray(draw(2, height=800, width=800).image), "JPEG")
    with pytest.raises(ImageProblem):
        decode(data[: len(data) // 2], (100, 100))


@pytest.mark.parametrize("kind", WHOLE)
def test_too_many_pixels_are_refused_with_their_size(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(imaging, "MAX_PIXELS", GRAY.size)
    decode(WHOLE[kind], FULL)
    monkeypatch.setattr(imaging, "MAX_PIXELS", GRAY.size - 1)
    refused = problem(WHOLE[kind])
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.TOO_LARGE)
    assert (refused.width, refused.height) == (160, 200)


def test_a_pixel_bomb_is_refused_by_its_header() -> None:
    header = b"IHDR" + b"\0\0\xc3\x50" * 2 + b"\x08\0\0\0\0"  # 50,000 x 50,000 pixels, 8-bit gray
    png = encode(PICTURE, "PNG")
    bomb = png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]
    assert peak_bytes(lambda: problem(bomb)) < 5_000_000
    assert problem(bomb).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("width", "height"), [(MIN_SIDE - 1, 200), (200, MIN_SIDE - 1), (1, 1), (MIN_SIDE, MIN_SIDE * MAX_SIDE_RATIO + 1)]
)
@pytest.mark.parametrize("file_format", FINE)
def test_small_pictures_and_strips_are_rejected(file_format: str, width: int, height: int) -> None:
    refused = problem(encode(Image.new("L", (width, height)), file_format))
    assert (refused.status, refused.reason) == (Status.REJECTED, Reason.TOO_SMALL)
    assert (refused.width, refused.height) == (width, height)


@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (MIN_SIDE, MIN_SIDE * MAX_SIDE_RATIO)])
def test_the_smallest_and_the_longest_picture_are_read(size: tuple[int, int]) -> None:
    assert gray_of(encode(Image.new("L", size), "PNG")).shape == size[::-1]


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_rejected_picture_has_its_size_as_displayed(monkeypatch: pytest.MonkeyPatch, file_format: str) -> None:
    monkeypatch.setattr(imaging, "MIN_SIDE", 161)
    refused = problem(turned(6, file_format))
    assert (refused.width, refused.height) == (160, 200)


# Whatever comes


def decodes_or_is_refused(data: bytes) -> None:
    try:
        result: Radiograph | ImageProblem = decode(data, (64, 64))
    except ImageProblem as refused:
        result = refused
    if isinstance(result, ImageProblem):
        assert result.status in (Status.FAILED, Status.REJECTED)
        assert result.sentence
        assert result.sentence.isprintable()
    else:
        assert result.gray.dtype == np.uint8
        assert result.gray.ndim == 2
        assert min(result.width, result.height) >= MIN_SIDE


SIGNATURES = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"RIFF\0\0\0\0WEBP"]


@settings(max_examples=300)
@given(st.sampled_from([*SIGNATURES, bytes(128) + b"DICM"]), st.binary(max_size=400))
@example(b"", b"")
def test_random_bytes_raise_nothing_else(signature: bytes, rest: bytes) -> None:
    decodes_or_is_refused(signature + rest)


SMALL = Image.fromarray(draw(4, height=96, width=96).image)
VICTIMS = {
    **{name: encode(SMALL, name, **options) for name, options in FINE.items()},
    "TIFF, LZW": encode(SMALL, "TIFF", compression="tiff_lzw"),
    "palette PNG": encode(SMALL.convert("P"), "PNG", transparency=0),
    "float TIFF": wide_files()["float TIFF"](np.asarray(SMALL)),
    "lossy WebP": encode(SMALL, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
    "DICOM": dicom(np.asarray(SMALL)),
}


@pytest.mark.parametrize("kind", VICTIMS)
@settings(max_examples=60)
@given(data=st.data())
def test_damage_raises_nothing_else(kind: str, data: st.DataObject) -> None:
    """Flipped bytes, as often in the header as in the whole file, and a cut."""
    victim = bytearray(VICTIMS[kind])
    position = st.integers(0, 400) | st.integers(0, len(victim) - 1) | st.integers(-200, -1)
    for where, value in data.draw(st.lists(st.tuples(position, st.integers(0, 255)), max_size=6)):
        victim[where] = value
    decodes_or_is_refused(bytes(victim[: data.draw(st.just(len(victim)) | st.integers(0, len(victim)))]))


def test_real_radiographs_are_decoded_as_pillow_sees_them(radiographs: list[Path]) -> None:
    for path in radiographs:
        picture = decode(read_bytes(path), FULL)
        with Image.open(path) as image:
            assert (picture.width, picture.height) == image.size
            assert_nearly(picture.gray.astype(np.int64), np.asarray(image.convert("RGBA").convert("L")))
