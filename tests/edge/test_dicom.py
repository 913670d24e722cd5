"""DICOM: every kind that is promised gives the same picture, its header is a gate, no tag leaks."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from cxr_edge import dicom, dicom_frames
from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.imaging import MIN_SIDE, Radiograph, decode
from cxr_edge.phantom import draw

GRAY = draw(1, height=200, width=160).image
SMALL = draw(4, height=96, width=104).image
FULL = (10_000, 10_000)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


# Files


def file_of(
    pixels: NDArray[np.generic],
    *,
    frames: list[bytes] | None = None,
    syntax: str = uid.ExplicitVRLittleEndian,
    **tags: Any,
) -> bytes:
    """A CR image of these pixels, MONOCHROME2 unless told otherwise; `frames` are compressed ones in their place."""
    bits = 8 * pixels.dtype.itemsize
    values: dict[str, Any] = {
        "SOPClassUID": uid.ComputedRadiographyImageStorage,
        "SOPInstanceUID": "1.2.3",
        "SamplesPerPixel": 1,
    }
    values |= {"PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": int(pixels.dtype.kind == "i")}
    values |= {"Rows": pixels.shape[0], "Columns": pixels.shape[1]}
    values |= {"BitsAllocated": bits, "BitsStored": bits, "HighBit": tags.get("BitsStored", bits) - 1, **tags}
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in values.items():
        if value is not None:
            setattr(dataset, name, value)
    if frames and len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
    order: Literal[">", "<"] = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    dataset.PixelData = encapsulate(frames) if frames else pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset["PixelData"].is_undefined_length = bool(frames)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def edited(data: bytes, change: Callable[[Dataset], None]) -> bytes:
    dataset, file = pydicom.dcmread(io.BytesIO(data)), io.BytesIO()
    change(dataset)
    dataset.save_as(file)
    return file.getvalue()


def compressed(pixels: NDArray[np.generic], syntax: str, **options: Any) -> bytes:
    """By pydicom's own encoders (RLE), OpenJPEG or CharLS."""
    stored = {key: options.pop(key) for key in ("BitsStored", "PhotometricInterpretation") if key in options}
    dataset, file = pydicom.dcmread(io.BytesIO(file_of(pixels, **stored))), io.BytesIO()
    dataset.compress(syntax, generate_instance_uid=False, **options)
    dataset.save_as(file)
    return file.getvalue()


def jpeg(pixels: NDArray[np.integer[Any]], bits: int, *, lossless: bool) -> bytes:
    """A JPEG without loss (ITU-T T.81, annex H, predictor 1), or an extended sequential one (annex F).

    No encoder at hand writes these. The extended one is of flat 8 x 8 blocks only, which its DC coefficients are.
    """
    rows, columns = pixels.shape
    values = pixels.astype(np.int64) & (2**bits - 1)
    if lossless:
        before = np.roll(values, 1, axis=1)
        before[1:, 0] = values[:-1, 0]
        before[0, 0] = 2 ** (bits - 1)
        differences = (values - before).ravel()
    else:
        blocks = values[::8, ::8].ravel() - 2 ** (bits - 1)
        differences = np.diff(blocks, prepend=0)
    text = []
    for difference in ((differences + 32768) % 65536 - 32768).tolist():
        size = abs(difference).bit_length()
        extra = difference if difference >= 0 else difference + 2**size - 1
        # Each size has a code of 5 bits; the largest one needs no more bits, and in a block 0 ends it.
        text.append(f"{size:05b}" + (f"{extra:0{size}b}" if 0 < size < 16 else "") + ("" if lossless else "0"))
    stream = "".join(text)
    stream += "1" * (-len(stream) % 8)
    body = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    size = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    header = segment(0xC3 if lossless else 0xC1, bytes([bits]) + size + b"\1\1\x11\0")
    header += segment(0xC4, b"\0" + bytes([0, 0, 0, 0, 17, *[0] * 11]) + bytes(range(17)))
    if not lossless:
        header = segment(0xDB, b"\0" + bytes([8, *[1] * 63])) + header + segment(0xC4, b"\x10\1" + bytes(15) + b"\0")
    scan = segment(0xDA, b"\1\1\0" + (b"\1\0\0" if lossless else b"\0\x3f\0"))
    return b"\xff\xd8" + header + scan + body + b"\xff\xd9"


def baseline(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=98)
    return file.getvalue()


def gray_of(data: bytes) -> NDArray[np.int64]:
    picture = decode(data, FULL)
    assert picture.gray.dtype == np.uint8
    assert picture.gray.shape == (picture.height, picture.width)
    return picture.gray.astype(np.int64)


def problem(data: bytes) -> ImageProblem:
    with pytest.raises(ImageProblem) as caught:
        decode(data, FULL)
    return caught.value


def windowed(values: NDArray[Any]) -> NDArray[np.float64]:
    """What the 0.1 to 99.9 percentile window makes of a picture, before rounding."""
    low, high = np.percentile(values, (0.1, 99.9))
    return np.asarray(np.clip((values - low) / (high - low), 0, 1) * 255)


# Every way to store the same picture

PIXELS: dict[str, tuple[NDArray[Any], int]] = {
    "8 bits": (SMALL, 8),
    "10 bits": (SMALL.astype(np.uint16) * 4, 10),
    "12 bits": (SMALL.astype(np.uint16) * 16 + 7, 12),
    "16 bits": (SMALL.astype(np.uint16) * 257, 16),
    "12 bits, signed": (SMALL.astype(np.int16) * 16 - 2048, 12),
    "16 bits, signed": ((SMALL.astype(np.int32) * 257 - 32768).astype(np.int16), 16),
    "8 bits, signed": ((SMALL.astype(np.int16) - 128).astype(np.int8), 8),
}
SYNTAXES: dict[str, Callable[[NDArray[Any], int], bytes]] = {
    "implicit": lambda p, bits: file_of(p, syntax=uid.ImplicitVRLittleEndian, BitsStored=bits),
    "explicit": lambda p, bits: file_of(p, BitsStored=bits),
    "big-endian": lambda p, bits: file_of(p, syntax=uid.ExplicitVRBigEndian, BitsStored=bits),
    "RLE": lambda p, bits: compressed(p, uid.RLELossless, BitsStored=bits),
    "JPEG lossless": lambda p, bits: file_of(
        p, frames=[jpeg(p, bits, lossless=True)], syntax=uid.JPEGLosslessSV1, BitsStored=bits
    ),
    "JPEG-LS": lambda p, bits: compressed(p, uid.JPEGLSLossless, BitsStored=bits),
    "JPEG 2000": lambda p, bits: compressed(p, uid.JPEG2000Lossless, BitsStored=bits),
}


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_lossless_syntax_and_depth_gives_the_picture(syntax: str, pixels: str) -> None:
    values, bits = PIXELS[pixels]
    assert np.abs(gray_of(SYNTAXES[syntax](values, bits)) - windowed(SMALL)).max() <= 1


LOSSY: dict[str, Callable[[], bytes]] = {
    "JPEG baseline": lambda: file_of(SMALL, frames=[baseline(SMALL)], syntax=uid.JPEGBaseline8Bit),
    "JPEG 2000": lambda: compressed(PIXELS["12 bits"][0], uid.JPEG2000, BitsStored=12, j2k_psnr=[60]),
    "JPEG-LS": lambda: compressed(PIXELS["12 bits"][0], uid.JPEGLSNearLossless, BitsStored=12, jls_error=9),
}


@pytest.mark.parametrize("kind", LOSSY)
def test_every_lossy_syntax_gives_nearly_the_picture(kind: str) -> None:
    difference = np.abs(gray_of(LOSSY[kind]()) - windowed(SMALL))
    assert 0 < difference.mean() < 1.5


def test_jpeg_extended_with_12_bits() -> None:
    blocks = np.kron(SMALL[:12, :13].astype(np.uint16) * 16, np.ones((8, 8), np.uint16))
    data = file_of(blocks, frames=[jpeg(blocks, 12, lossless=False)], syntax=uid.JPEGExtended12Bit, BitsStored=12)
    assert np.abs(gray_of(data) - windowed(blocks)).max() <= 1


def test_bits_above_the_high_bit_are_no_part_of_the_pixel() -> None:
    """Old consoles keep overlays there (PS3.5, 8.1.1)."""
    values = SMALL.astype(np.uint16) * 16
    overlay = values | (np.arange(104) % 2 * 0xF000).astype(np.uint16)
    assert np.array_equal(gray_of(file_of(overlay, BitsStored=12)), gray_of(file_of(values, BitsStored=12)))


def without_preamble(data: bytes) -> bytes:
    return data[132:]


def without_meta(data: bytes) -> bytes:
    return data[144 + int.from_bytes(data[140:144], "little") :]


@pytest.mark.parametrize("syntax", ["implicit", "explicit"])
@pytest.mark.parametrize("cut", [without_preamble, without_meta])
def test_files_without_their_preamble_are_recognised(cut: Callable[[bytes], bytes], syntax: str) -> None:
    data = cut(SYNTAXES[syntax](*PIXELS["12 bits"]))
    assert data[128:132] != b"DICM"
    assert np.abs(gray_of(data) - windowed(SMALL)).max() <= 1


@given(st.sampled_from([b"\x08\0\x05\0", b"\x08\0\x16\0", b"\x02\0\0\0UL\x04\0", b""]), st.binary(max_size=300))
def test_other_files_are_not_taken_for_dicom_without_a_preamble(start: bytes, rest: bytes) -> None:
    refused = problem(start + rest)
    assert refused.reason in (Reason.NOT_AN_IMAGE, Reason.DAMAGED)
    assert not dicom.is_dicom(start + rest)


def test_the_first_of_many_frames_is_taken_and_only_that_one() -> None:
    """Compressed frames cost next to nothing in the file, so a small file must not cost the memory of all of them."""
    stripes = np.repeat(np.arange(500)[:, None] % 251, 500, axis=1).astype(np.uint8)
    one = compressed(stripes, uid.RLELossless)
    frame = next(pydicom.encaps.generate_frames(pydicom.dcmread(io.BytesIO(one)).PixelData, number_of_frames=1))
    other = compressed(255 - stripes, uid.RLELossless)
    another = next(pydicom.encaps.generate_frames(pydicom.dcmread(io.BytesIO(other)).PixelData, number_of_frames=1))
    many = file_of(stripes, frames=[frame, *[another] * 40], syntax=uid.RLELossless)
    assert np.array_equal(gray_of(many), gray_of(one))
    assert peak_bytes(lambda: decode(many, FULL)) < peak_bytes(lambda: decode(one, FULL)) + 4 * len(many)
    native = file_of(np.concatenate([SMALL, 255 - SMALL]), Rows=96, NumberOfFrames=2)
    assert np.array_equal(gray_of(native), gray_of(file_of(SMALL)))


def test_colour_is_gray_unless_it_is_coloured() -> None:
    options: dict[str, Any] = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    assert np.array_equal(gray_of(file_of(np.stack([SMALL] * 3, axis=-1), **options)), SMALL)
    assert decode(file_of(np.stack([SMALL] * 3, axis=-1), **options), FULL).coloured == 0
    overlay = np.stack([SMALL, SMALL // 2, SMALL // 4], axis=-1)
    assert decode(file_of(overlay, **options), FULL).coloured > 0.1


# Gray levels


def shown(values: NDArray[Any], bits: int = 12, **tags: Any) -> NDArray[np.int64]:
    return gray_of(file_of(values, BitsStored=bits, **tags))


TWELVE = SMALL.astype(np.uint16) * 16


def lut(entries: list[int], first: int, depth: int, *, stored: str = "<u2") -> list[Dataset]:
    """A table as words (OW) of a byte order, as numbers (US), or two entries in a word (u1)."""
    item = Dataset()
    item.LUTDescriptor, item.ModalityLUTType = [len(entries), first, depth], "US"
    values = entries if stored == "US" else np.asarray(entries).astype(stored).tobytes()
    item.add_new("LUTData", "US" if stored == "US" else "OW", values)
    return [item]


def test_monochrome1_is_inverted() -> None:
    values = 4095 - TWELVE
    assert np.abs(shown(values, PhotometricInterpretation="MONOCHROME1") - windowed(SMALL)).max() <= 1


def test_windows_follow_the_standard() -> None:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3, on values that the window cuts, after the rescale."""
    x, centre, width = TWELVE * 0.5 - 100.0, 700.0, 900.0
    tags: dict[str, Any] = {"RescaleSlope": 0.5, "RescaleIntercept": -100, "WindowCenter": centre, "WindowWidth": width}
    linear = np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    exact = np.clip((x - centre) / width + 0.5, 0, 1)
    sigmoid = 1 / (1 + np.exp(-4 * (x - centre) / width))
    assert np.abs(shown(TWELVE, **tags) - windowed(linear)).max() <= 1
    assert np.abs(shown(TWELVE, **tags, VOILUTFunction="LINEAR") - windowed(linear)).max() <= 1
    assert np.abs(shown(TWELVE, **tags, VOILUTFunction="LINEAR_EXACT") - windowed(exact)).max() <= 1
    assert np.abs(shown(TWELVE, **tags, VOILUTFunction="SIGMOID") - windowed(sigmoid)).max() <= 1
    assert np.abs(windowed(linear) - windowed(sigmoid)).max() > 10  # the kinds differ, so they were not mixed up


@pytest.mark.parametrize("tags", [{"WindowWidth": 0}, {"WindowWidth": 900, "VOILUTFunction": "CUBIC"}], ids=str)
def test_a_window_that_is_none_is_left_out(tags: dict[str, Any]) -> None:
    assert np.array_equal(shown(TWELVE, WindowCenter=700, **tags), shown(TWELVE))


def test_of_several_windows_the_first_counts() -> None:
    several = shown(TWELVE, WindowCenter=[700, 3000], WindowWidth=[900, 100])
    assert np.array_equal(several, shown(TWELVE, WindowCenter=700, WindowWidth=900))


@pytest.mark.parametrize("depth", [8, 16])
def test_look_up_tables_follow_the_standard(depth: int) -> None:
    """A curve that no window could be, with entries missing at both ends, as VOI LUT and as modality LUT."""
    first, scale = 200, 2**depth - 1
    curve = [int(scale * np.sin(np.pi / 2 * i / 2999) ** 2) for i in range(3000)]
    expected = windowed(np.asarray(curve)[np.clip(TWELVE.astype(int) - first, 0, 2999)])
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        for stored in ("<u2", "US", "u1") if depth == 8 else ("<u2", "US"):
            assert np.abs(shown(TWELVE, 12, **{keyword: lut(curve, first, depth, stored=stored)}) - expected).max() <= 1
        big: dict[str, Any] = {"syntax": uid.ExplicitVRBigEndian, keyword: lut(curve, first, depth, stored=">u2")}
        assert np.abs(shown(TWELVE, **big) - expected).max() <= 1


def test_a_modality_lut_comes_before_the_window() -> None:
    table = [4095 - i for i in range(4096)]
    tags: dict[str, Any] = {"WindowCenter": 2000, "WindowWidth": 1000}
    both = shown(TWELVE, ModalityLUTSequence=lut(table, 0, 16), **tags)
    assert np.abs(both - shown(4095 - TWELVE, **tags)).max() <= 1


def test_a_flat_picture_is_black() -> None:
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        assert not shown(np.full((80, 80), 900, np.uint16), PhotometricInterpretation=photometric).any()


# Gates


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "RF", "XA", "OT", "", None, "dx"])
def test_projection_radiographs_and_files_that_do_not_say_pass(modality: str | None) -> None:
    decode(file_of(SMALL, Modality=modality), FULL)


@pytest.mark.parametrize(
    ("modality", "word"),
    [
        ("CT", "tomography"),
        ("MR", "magnetic"),
        ("US", "ultrasound"),
        ("MG", "mammo"),
        ("PX", "dental"),
        ("SEG", "segm"),
    ],
)
def test_other_modalities_are_rejected_by_name(modality: str, word: str) -> None:
    refused = problem(file_of(SMALL, Modality=modality))
    assert (refused.status, refused.reason) == (Status.REJECTED, Reason.NOT_A_RADIOGRAPH)
    assert modality in refused.sentence
    assert word in refused.sentence


def test_an_unknown_modality_is_rejected_without_being_quoted() -> None:
    refused = problem(file_of(SMALL, Modality="DOE JANE"))
    assert refused.reason is Reason.NOT_A_RADIOGRAPH
    assert "JANE" not in refused.sentence


@pytest.mark.parametrize("view", ["PA", "AP", "", None, "AP LORDOTIC", "SOMETHING"])
@pytest.mark.parametrize("part", ["CHEST", "THORAX", "RIB", "CHESTABDOMEN", "", None, "SOMETHING"])
def test_frontal_chests_and_files_that_do_not_say_pass(view: str | None, part: str | None) -> None:
    decode(file_of(SMALL, ViewPosition=view, BodyPartExamined=part), FULL)


def view_code(code: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", "DOE^JANE"
    return [item]


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": "rl"}, "lateral"),
        ({"ViewPosition": "LAO"}, "oblique"),
        ({"ViewPosition": "RLD"}, "decubitus"),
        ({"ViewCodeSequence": view_code("399067008")}, "lateral"),
        ({"ViewCodeSequence": view_code("399173006")}, "lateral"),
        ({"BodyPartExamined": "HAND"}, "HAND"),
        ({"BodyPartExamined": "Knee"}, "KNEE"),
        ({"BodyPartExamined": "ABDOMEN", "ViewPosition": "AP"}, "ABDOMEN"),
    ],
)
def test_other_views_and_other_parts_of_the_body_are_rejected(tags: dict[str, Any], word: str) -> None:
    refused = problem(file_of(SMALL, **tags))
    assert (refused.status, refused.reason) == (Status.REJECTED, Reason.NOT_A_FRONTAL_CHEST)
    assert word in refused.sentence
    assert "JANE" not in refused.sentence
    assert (refused.width, refused.height) == (104, 96)


def test_a_frontal_view_code_passes() -> None:
    decode(file_of(SMALL, ViewCodeSequence=view_code("272479007")), FULL)


def without_pixels(*keywords: str, **tags: Any) -> bytes:
    def change(dataset: Dataset) -> None:
        for keyword in ("PixelData", *keywords):
            delattr(dataset, keyword)
        dataset.update(tags)

    return edited(file_of(SMALL), change)


def test_objects_without_a_picture_are_rejected_by_their_kind() -> None:
    refused = problem(without_pixels("Rows", "Columns", SOPClassUID=uid.EncapsulatedPDFStorage))
    assert (refused.status, refused.reason) == (Status.REJECTED, Reason.NOT_A_RADIOGRAPH)
    assert "Encapsulated PDF Storage" in refused.sentence
    report = problem(without_pixels("Rows", "Columns", SOPClassUID=uid.BasicTextSRStorage, Modality="SR"))
    assert "a structured report" in report.sentence


def test_an_image_without_its_pixels_is_cut_short() -> None:
    refused = problem(without_pixels())
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.DAMAGED)


def test_a_small_picture_is_rejected() -> None:
    refused = problem(file_of(np.zeros((MIN_SIDE - 1, 100), np.uint8)))
    assert (refused.status, refused.reason) == (Status.REJECTED, Reason.TOO_SMALL)
    assert (refused.width, refused.height) == (100, MIN_SIDE - 1)


def test_without_pydicom_the_row_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    dicom.quiet_pydicom.cache_clear()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    refused = problem(file_of(SMALL))
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.DICOM_EXTRA_MISSING)
    assert "cxr-edge[dicom]" in refused.sentence


# Hostile files


def peak_bytes(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


FRAMES = {
    "JPEG": (uid.JPEGBaseline8Bit, baseline(SMALL)),
    "JPEG lossless": (uid.JPEGLosslessSV1, jpeg(SMALL, 8, lossless=True)),
    "JPEG 2000": (
        uid.JPEG2000Lossless,
        next(
            pydicom.encaps.generate_frames(
                pydicom.dcmread(io.BytesIO(compressed(SMALL, uid.JPEG2000Lossless))).PixelData, number_of_frames=1
            )
        ),
    ),
    "JPEG-LS": (
        uid.JPEGLSLossless,
        next(
            pydicom.encaps.generate_frames(
                pydicom.dcmread(io.BytesIO(compressed(SMALL, uid.JPEGLSLossless))).PixelData, number_of_frames=1
            )
        ),
    ),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_codestream_of_another_size_than_the_header_says_is_not_decoded(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    syntax, frame = FRAMES[kind]
    decode(file_of(SMALL, frames=[frame], syntax=syntax), FULL)
    monkeypatch.setattr(pydicom.pixels, "get_decoder", None)  # whoever decodes now fails otherwise
    refused = problem(file_of(SMALL[:90], frames=[frame], syntax=syntax))
    assert refused.reason is Reason.DAMAGED
    assert "104 x 96" in refused.sentence
    assert "104 x 90" in refused.sentence
    assert (refused.width, refused.height) == (104, 90)


def test_jpeg_2000_with_too_many_tiles_or_subsampled_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    syntax, frame = FRAMES["JPEG 2000"]
    monkeypatch.setattr(pydicom.pixels, "get_decoder", None)
    tiles = frame[:24] + (1).to_bytes(4, "big") * 2 + frame[32:]
    coarse = frame[:43] + b"\2\2" + frame[45:]
    for hostile in (tiles, coarse, frame[:30], b"\0" + frame):
        assert problem(file_of(SMALL, frames=[hostile], syntax=syntax)).reason is Reason.DAMAGED


def recoded(
    frame: bytes, *, precinct: int | None = None, block: int = 4, layers: int = 1, in_tile: bool = False
) -> bytes:
    """The same JPEG 2000 codestream, with another COD segment in its main header or in its first tile-part's."""
    at = frame.index(b"\xff\x52")
    end = at + 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    style = bytearray(frame[at + 4 : end])
    style[0] |= precinct is not None
    style[2:4] = layers.to_bytes(2, "big")
    style[6] = style[7] = block
    if precinct is not None:
        style += bytes([precinct * 17] * (style[5] + 1))
    segment = b"\xff\x52" + (len(style) + 2).to_bytes(2, "big") + bytes(style)
    if not in_tile:
        return frame[:at] + segment + frame[end:]
    data = frame.index(b"\xff\x93")
    part = frame.index(b"\xff\x90")
    size = int.from_bytes(frame[part + 6 : part + 10], "big") + len(segment)
    return frame[: part + 6] + size.to_bytes(4, "big") + frame[part + 10 : data] + segment + frame[data:]


def test_jpeg_2000_in_a_mosaic_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenJPEG sets memory aside for each precinct, code block and layer that the header names."""
    syntax, frame = FRAMES["JPEG 2000"]
    decode(file_of(SMALL, frames=[recoded(frame, precinct=7)], syntax=syntax), FULL)
    monkeypatch.setattr(pydicom.pixels, "get_decoder", None)
    hostile = [recoded(frame, precinct=1), recoded(frame, precinct=1, in_tile=True), recoded(frame, precinct=4)]
    for each in (*hostile, recoded(frame, block=0), recoded(frame, layers=65535)):
        assert problem(file_of(SMALL, frames=[each], syntax=syntax)).sentence.endswith("(ValueError)")


@pytest.mark.parametrize(
    "segment", [b"\xff\xde\0\x0b\x08" + bytes(8), b"\xff\xeb\0\x04JP", b"\xff\xf8\0\x08\4\2\xff\xff\xff\xff"]
)
def test_jpegs_that_bring_sizes_of_their_own_are_not_decoded(segment: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydicom.pixels, "get_decoder", None)
    for kind in ("JPEG", "JPEG lossless", "JPEG-LS"):
        syntax, frame = FRAMES[kind]
        scan = frame.index(b"\xff\xda")
        for at in (2, scan):
            hostile = frame[:at] + segment + frame[at:]
            assert problem(file_of(SMALL, frames=[hostile], syntax=syntax)).sentence.endswith("(ValueError)")


def test_an_rle_frame_does_not_inflate_into_much_memory() -> None:
    segment = b"\x81\xff" * 2_000_000  # each two bytes are 128
    frame = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + segment
    data = file_of(SMALL, frames=[frame], syntax=uid.RLELossless)
    assert peak_bytes(lambda: problem(data)) < 5 * len(data)
    short = frame[:64] + segment[:40]
    with pytest.raises(ValueError, match="another size"):
        dicom_frames.check_rle(short, 104, 96, 1)
    with pytest.raises(ValueError, match="another size"):
        dicom_frames.check_rle(frame[:64] + segment[:2000], 104, 96, 1)
    dicom_frames.check_rle(frame[:64] + segment[:156], 104, 96, 1)  # 78 runs of 128 are 104 x 96


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"Rows": 65535, "Columns": 65535}, Reason.TOO_LARGE),
        ({"Rows": 0}, Reason.TOO_SMALL),
        ({"Rows": None}, Reason.TOO_SMALL),
        ({"Rows": 200}, Reason.DAMAGED),
        ({"NumberOfFrames": 2_000_000_000}, Reason.TOO_LARGE),
        ({"BitsAllocated": 32, "BitsStored": 32}, Reason.UNSUPPORTED),
        ({"BitsAllocated": 1, "BitsStored": 1}, Reason.UNSUPPORTED),
        ({"BitsStored": 9}, Reason.UNSUPPORTED),
        ({"HighBit": 5}, Reason.UNSUPPORTED),
        ({"SamplesPerPixel": 4}, Reason.UNSUPPORTED),
        ({"SamplesPerPixel": 60000}, Reason.UNSUPPORTED),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNSUPPORTED),
        ({"PhotometricInterpretation": None}, Reason.UNSUPPORTED),
    ],
    ids=str,
)
def test_headers_that_ask_for_what_is_not_there(tags: dict[str, Any], reason: Reason) -> None:
    data = file_of(SMALL, **tags)
    assert peak_bytes(lambda: problem(data)) < 20 * 2**20
    assert problem(data).reason is reason


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201"])
def test_unknown_transfer_syntaxes_are_unsupported(syntax: str) -> None:
    refused = problem(file_of(SMALL, frames=[b"\0" * 100], syntax=syntax))
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.UNSUPPORTED)
    assert syntax not in refused.sentence


@pytest.mark.parametrize("filling", [0, 5000])
def test_a_deflated_data_set_is_refused_wherever_its_name_stands(filling: int) -> None:
    data = file_of(SMALL, syntax="1.2.840.10008.1.2.1.99", EncapsulatedDocument=bytes(40 * 2**20))
    at = data.index(b"\x02\0\x10\0UI")
    data = data[:at] + b"\x02\0\x0f\0OB\0\0" + filling.to_bytes(4, "little") + bytes(filling) + data[at:]
    assert peak_bytes(lambda: problem(data)) < 20 * 2**20
    assert problem(data).reason is Reason.UNSUPPORTED


def test_a_header_of_a_million_elements_is_refused_in_little_memory() -> None:
    plain = file_of(SMALL)
    at = plain.index(b"\x28\0\x02\0")
    item = b"\xfe\xff\0\xe0\xff\xff\xff\xff" + b"\x09\0\x10\0LO\0\0" * 1_000_000 + b"\xfe\xff\x0d\xe0\0\0\0\0"
    bomb = b"\x09\0\x20\0SQ\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = plain[:at] + bomb + plain[at:]
    assert peak_bytes(lambda: problem(data)) < 100 * 2**20
    assert problem(data).reason is Reason.TOO_LARGE


def test_sequences_nested_without_end_cost_one_row() -> None:
    plain = file_of(SMALL)
    at = plain.index(b"\x28\0\x02\0")
    level = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff"
    refused = problem(plain[:at] + level * 20_000 + plain[at:])
    assert (refused.status, refused.reason) == (Status.FAILED, Reason.DAMAGED)


def test_a_table_of_frames_as_large_as_the_file_is_not_read() -> None:
    data = file_of(SMALL, frames=[FRAMES["JPEG"][1]], syntax=uid.JPEGBaseline8Bit)
    at = data.index(b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff") + 12
    size = 8 * 2**20
    hostile = data[:at] + b"\xfe\xff\0\xe0" + size.to_bytes(4, "little") + bytes(size) + data[at + 8 :]
    assert peak_bytes(lambda: problem(hostile)) < 2 * size
    assert problem(hostile).reason is Reason.DAMAGED


VICTIMS: dict[str, bytes] = {
    **{name: make(*PIXELS["12 bits"]) for name, make in SYNTAXES.items()},
    **{f"lossy {name}": make() for name, make in LOSSY.items()},
    "no preamble": without_preamble(file_of(SMALL)),
    "tables": file_of(
        TWELVE, BitsStored=12, VOILUTSequence=lut(list(range(4096)), 0, 16), ViewCodeSequence=view_code("1")
    ),
}


def decodes_or_is_refused(data: bytes) -> None:
    try:
        result: Radiograph | ImageProblem = decode(data, (224, 224))
    except ImageProblem as refused:
        result = refused
    if isinstance(result, ImageProblem):
        assert result.sentence.isprintable()
    else:
        assert result.gray.dtype == np.uint8
        assert result.gray.ndim == 2


@pytest.mark.parametrize("kind", VICTIMS)
@settings(max_examples=60)
@given(data=st.data())
def test_damage_raises_nothing_else(kind: str, data: st.DataObject) -> None:
    """Flipped bytes, in the header, around the start of the pixels and anywhere, and a cut."""
    victim = bytearray(VICTIMS[kind])
    pixels = max(0, victim.find(b"\xe0\x7f\x10\0"))
    position = st.integers(0, pixels) | st.integers(pixels, min(pixels + 200, len(victim) - 1))
    position |= st.integers(0, len(victim) - 1)
    for where, value in data.draw(st.lists(st.tuples(position, st.integers(0, 255)), max_size=6)):
        victim[where] = value
    decodes_or_is_refused(bytes(victim[: data.draw(st.just(len(victim)) | st.integers(0, len(victim)))]))


@pytest.mark.parametrize("kind", VICTIMS)
def test_a_file_cut_short_is_damaged(kind: str) -> None:
    for kept in (0.1, 0.3, 0.6):
        refused = problem(VICTIMS[kind][: int(kept * len(VICTIMS[kind]))])
        assert refused.status is Status.FAILED
        assert refused.reason in (Reason.DAMAGED, Reason.NOT_AN_IMAGE)


# No patient tag leaves the file

NAME = "PHIZZ"
TEXT = {"LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE"}


def identified(pixels: NDArray[Any] = GRAY, **options: Any) -> bytes:
    """A radiograph with a recognisable name in every text tag of the dictionary, and in private ones."""

    def change(dataset: Dataset) -> None:
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            if vr in TEXT and keyword and tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040):
                setattr(dataset, keyword, f"{NAME}^{tag:08x}")
        dataset.private_block(0x0009, NAME, create=True).add_new(1, "LO", NAME)
        dataset.Modality, dataset.ViewPosition, dataset.BodyPartExamined = "CR", "PA", "CHEST"

    return edited(file_of(pixels, **options), change)


def scan(folder: Path, out: Path) -> tuple[str, list[dict[str, str]]]:
    """Scan with the shipped model: what was said, and the rows."""
    command = [sys.executable, "-W", "always", "-c", "from cxr_edge.cli import main; main()"]
    command += ["scan", str(folder), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr
    with (out / "verdicts.csv").open(encoding="utf-8", newline="") as file:
        return done.stdout + done.stderr, list(csv.DictReader(file))


def test_no_patient_text_leaves_the_file(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    whole = identified(draw(3, height=600, width=500).image)
    assert whole.count(NAME.encode()) > 300
    rng = np.random.default_rng(0)
    (folder / "whole.dcm").write_bytes(whole)
    (folder / "modality.dcm").write_bytes(edited(whole, lambda d: setattr(d, "Modality", NAME)))
    (folder / "view.dcm").write_bytes(edited(whole, lambda d: setattr(d, "ViewPosition", NAME)))
    start = whole.index(b"\x02\0\x10\0UI") + 6  # one damaged length, and the transfer syntax runs on into names
    (folder / "syntax.dcm").write_bytes(whole[:start] + (40_000).to_bytes(2, "little") + whole[start + 2 :])
    for i in range(20):
        damaged = bytearray(whole)
        for where in rng.integers(0, whole.index(b"\xe0\x7f\x10\0"), 30):
            damaged[where] = int(rng.integers(256))
        (folder / f"damaged{i}.dcm").write_bytes(damaged)
    said, rows = scan(folder, out)
    assert len(rows) == 24
    assert {row["status"] for row in rows if row["path"] == "whole.dcm"} <= {"ok", "rejected"}
    assert NAME not in said
    for path in out.rglob("*"):
        assert path.is_dir() or NAME.encode() not in path.read_bytes(), path
    for mask in (out / "masks").rglob("*.png"):
        with Image.open(mask) as image:
            image.load()
            assert not image.info


NO_NETWORK = """
import sys
def refuse(event, _):
    if event in ("urllib.Request", "socket.getaddrinfo", "socket.connect", "http.client.connect"):
        sys.exit(f"the network was asked: {event}")
sys.addaudithook(refuse)
from cxr_edge import dicom_seg, imaging
dicom_seg.quiet_highdicom()
print(imaging.decode(sys.stdin.buffer.read(), (224, 224)).gray.shape)
"""


def test_no_network_is_asked() -> None:
    """pydicom knows how to fetch its examples, and once did so whenever it was imported."""
    command = [sys.executable, "-c", NO_NETWORK]
    done = subprocess.run(command, input=file_of(SMALL), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == "(96, 104)"


# The model's word


def test_a_false_monochrome1_is_caught_by_the_picture(data_dir: Path | None, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    if data_dir:
        (folder / "false.dcm").write_bytes((data_dir / "dicom" / "Fake_MONOHR1.dcm").read_bytes())
    (folder / "phantom.dcm").write_bytes(
        file_of(draw(PHANTOM, height=900, width=900).image, PhotometricInterpretation="MONOCHROME1")
    )
    _, rows = scan(folder, tmp_path / "out")
    assert len(rows) == 1 + bool(data_dir)
    for row in rows:
        assert row["status"] == "ok", row
        assert "turned round" in row["reason"], row


PHANTOM = 0
"""A phantom that the shipped model takes for a radiograph."""


def test_real_files_are_judged_or_rejected_as_they_should(data_dir: Path | None, tmp_path: Path) -> None:
    if data_dir:
        folder = data_dir / "dicom"
    else:
        folder = tmp_path / "in"
        folder.mkdir()
        picture = draw(PHANTOM, height=900, width=900).image
        (folder / "chest.dcm").write_bytes(file_of(255 - picture, PhotometricInterpretation="MONOCHROME1"))
        (folder / "dx_image.dcm").write_bytes(file_of(picture.T.copy()))
    _, rows = scan(folder, tmp_path / "out")
    for row in rows:
        assert row["status"] == ("rejected" if row["path"] == "dx_image.dcm" else "ok"), row
        assert ("turned round" in row["reason"]) == (row["path"] == "Fake_MONOHR1.dcm"), row
