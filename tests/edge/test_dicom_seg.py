"""Segmentations: the very mask, readable by highdicom and pydicom, filed beside its source, with nothing else of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset

from cxr_edge import dicom_seg
from cxr_edge.dicom_seg import SegmentationRefused, segmentation
from cxr_edge.errors import UsageError
from cxr_edge.phantom import draw

PHANTOM = draw(1, height=131, width=117)
"""Sides that are no multiples of 8: bits of a binary segmentation run on across rows."""
MASK = Image.fromarray(PHANTOM.lung_mask)
MODEL = ("cxr-multitask", "daccae46a4a9")
NAME = "PHIZZ"
IDENTIFIERS = {
    "StudyInstanceUID": "1.2.3.10",
    "SeriesInstanceUID": "1.2.3.11",
    "SOPInstanceUID": "1.2.3.12",
    "PatientName": f"{NAME}^Jürgen=王",
    "PatientID": f"{NAME}1",
    "PatientBirthDate": "19400305",
    "PatientSex": "F",
    "StudyDate": "20040826",
    "StudyTime": "185059",
    "StudyID": f"{NAME}2",
    "AccessionNumber": f"{NAME}3",
    "ReferringPhysicianName": f"{NAME}^Ward",
}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def source(change: Callable[[Dataset], object] = lambda _: None) -> bytes:
    """A digital radiograph that can be filed."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = IDENTIFIERS["SOPInstanceUID"]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.Modality, dataset.InstanceNumber = uid.DigitalXRayImageStorageForPresentation, "DX", 7
    for keyword, value in IDENTIFIERS.items():
        setattr(dataset, keyword, value)
    dataset.Rows, dataset.Columns = PHANTOM.image.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.add_new("PixelData", "OB", PHANTOM.image.tobytes() + b"\0")
    change(dataset)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def read(data: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(data))


@pytest.mark.parametrize("picture", [MASK, Image.new("1", MASK.size), Image.new("1", MASK.size, 1)], ids=str)
def test_the_mask_comes_back_to_the_pixel(picture: Image.Image) -> None:
    """An empty mask too: no lung was found, which is not the same as no mask."""
    data = segmentation(source(), picture, *MODEL)
    assert np.array_equal(read(data).pixel_array, np.asarray(picture))
    by_highdicom = highdicom.seg.segread(io.BytesIO(data))
    pixels = by_highdicom.get_pixels_by_source_instance([IDENTIFIERS["SOPInstanceUID"]], segment_numbers=[1])
    assert np.array_equal(pixels[0, :, :, 0], np.asarray(picture))


def test_real_files_round_trip(data_dir: Path | None, tmp_path: Path) -> None:
    if data_dir:
        files = sorted((data_dir / "dicom").iterdir())
    else:
        files = [tmp_path / "phantom.dcm"]
        files[0].write_bytes(source())
    for path in files:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        lung = draw(2, height=header.Rows, width=header.Columns).lung_mask
        data = segmentation(path.read_bytes(), Image.fromarray(lung), *MODEL)
        by_highdicom = highdicom.seg.segread(io.BytesIO(data))
        pixels = by_highdicom.get_pixels_by_source_instance([header.SOPInstanceUID])
        assert np.array_equal(pixels[0, :, :, 0], lung), path
        assert by_highdicom.StudyInstanceUID == header.StudyInstanceUID
        # What was lossy stays so (PS3.3, C.7.6.1.1.5).
        assert by_highdicom.LossyImageCompression == header.get("LossyImageCompression", "00")


def test_it_says_what_it_is() -> None:
    dataset = read(segmentation(source(), MASK, *MODEL))
    assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == uid.SegmentationStorage
    assert (dataset.Modality, dataset.SegmentationType, dataset.NumberOfFrames) == ("SEG", "BINARY", 1)
    assert (dataset.Columns, dataset.Rows) == MASK.size
    (segment,) = dataset.SegmentSequence
    category, kind = (
        segment.SegmentedPropertyCategoryCodeSequence[0],
        segment.SegmentedPropertyTypeCodeSequence[0],
    )
    assert (category.CodeValue, category.CodingSchemeDesignator) == ("91723000", "SCT")  # Anatomical Structure
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("39607008", "SCT")  # Lung
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("Lung", "AUTOMATIC")
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == MODEL
    assert "never a diagnosis" in dataset.ContentDescription


def test_it_refers_to_its_source() -> None:
    dataset = read(segmentation(source(), MASK, *MODEL))
    series = dataset.ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == IDENTIFIERS["SeriesInstanceUID"]
    derivation = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    for reference in (series.ReferencedInstanceSequence[0], derivation.SourceImageSequence[0]):
        assert reference.ReferencedSOPClassUID == uid.DigitalXRayImageStorageForPresentation
        assert reference.ReferencedSOPInstanceUID == IDENTIFIERS["SOPInstanceUID"]
        assert "ReferencedFrameNumber" not in reference
    assert dataset.SeriesInstanceUID != IDENTIFIERS["SeriesInstanceUID"]
    assert dataset.SOPInstanceUID != IDENTIFIERS["SOPInstanceUID"]
    assert "FrameOfReferenceUID" not in dataset


def test_it_lies_as_its_source_does() -> None:
    data = segmentation(source(lambda d: setattr(d, "PatientOrientation", ["L", "F"])), MASK, *MODEL)
    assert list(read(data).PatientOrientation) == ["L", "F"]
    assert read(segmentation(source(), MASK, *MODEL))["PatientOrientation"].is_empty


def test_a_frame_of_reference_is_kept() -> None:
    data = segmentation(source(lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3.13")), MASK, *MODEL)
    assert read(data).FrameOfReferenceUID == "1.2.3.13"
    assert highdicom.seg.segread(io.BytesIO(data)).FrameOfReferenceUID == "1.2.3.13"


def test_of_many_frames_the_first_is_referred_to() -> None:
    def many(dataset: Dataset) -> None:
        dataset.SOPClassUID, dataset.Modality = uid.SecondaryCaptureImageStorage, "OT"
        dataset.NumberOfFrames, dataset.PixelData = 2, PHANTOM.image.tobytes() * 2

    dataset = read(segmentation(source(many), MASK, *MODEL))
    derivation = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0]
    assert derivation.SourceImageSequence[0].ReferencedFrameNumber == 1


def test_the_same_mask_of_the_same_source_is_the_same_object() -> None:
    def uids(data: bytes) -> tuple[str, str]:
        dataset = read(data)
        return dataset.SeriesInstanceUID, dataset.SOPInstanceUID

    first = uids(segmentation(source(), MASK, *MODEL))
    assert uids(segmentation(source(), MASK, *MODEL)) == first
    assert uids(segmentation(source(), Image.new("1", MASK.size), *MODEL))[0] == first[0]
    others = [
        segmentation(source(), Image.new("1", MASK.size), *MODEL),
        segmentation(source(), MASK, MODEL[0], "another"),
        segmentation(source(lambda d: setattr(d, "SOPInstanceUID", "1.2.3.99")), MASK, *MODEL),
    ]
    assert len({first[1], *(uids(other)[1] for other in others)}) == 4


def test_it_carries_the_identifiers_that_filing_needs_and_no_other_text_of_the_patient() -> None:
    def tell_all(dataset: Dataset) -> None:
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            text = vr in ("LO", "SH", "PN", "LT", "ST", "UT", "UC", "AE") and keyword
            described = tag >> 16 in (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040)
            if text and described and keyword not in IDENTIFIERS:
                setattr(dataset, keyword, f"{NAME}^{tag:08x}")
        dataset.private_block(0x0009, NAME, create=True).add_new(1, "LO", NAME)

    data = source(tell_all)
    assert data.count(NAME.encode()) > 250
    dataset = read(segmentation(data, MASK, *MODEL))
    for keyword, value in IDENTIFIERS.items():
        if keyword not in ("SeriesInstanceUID", "SOPInstanceUID"):
            assert str(dataset[keyword].value) == value, keyword
    told = [element.keyword for element in dataset.iterall() if element.VR != "SQ" and NAME in str(element.value)]
    assert sorted(told) == sorted(keyword for keyword, value in IDENTIFIERS.items() if NAME in value)


def test_an_anonymised_source_gets_one_too() -> None:
    def forget(dataset: Dataset) -> None:
        for keyword in IDENTIFIERS:
            if not keyword.endswith("UID"):
                delattr(dataset, keyword)

    dataset = read(segmentation(source(forget), MASK, *MODEL))
    assert not dataset.PatientName
    assert not dataset.PatientID


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Rows"])
def test_a_source_without_what_the_standard_requires_is_refused(keyword: str) -> None:
    with pytest.raises(SegmentationRefused, match=keyword):
        segmentation(source(lambda d: delattr(d, keyword)), MASK, *MODEL)


@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": "1.2.3.4.5"},
        {"SOPClassUID": uid.XRayAngiographicImageStorage, "NumberOfFrames": 3},
        {"PatientSex": NAME},
        {"StudyDate": NAME},
    ],
    ids=str,
)
def test_what_highdicom_refuses_is_refused_without_quoting_a_tag(
    tags: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    data = source(lambda d: d.update(tags))
    with pytest.raises(SegmentationRefused) as caught:
        segmentation(data, MASK, *MODEL)
    assert NAME not in f"{caught.value}{caplog.text}"


def test_nothing_is_said_of_an_odd_name(recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture) -> None:
    dicom_seg.quiet_highdicom.cache_clear()  # pytest put its own filter of warnings over ours
    segmentation(source(lambda d: setattr(d, "PatientName", f"{NAME}-16d7f894")), MASK, *MODEL)
    assert NAME not in caplog.text
    assert not [warning for warning in recwarn if NAME in str(warning.message)]


@pytest.mark.parametrize("size", [(131, 117), (117, 130)])
def test_a_mask_of_another_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(SegmentationRefused, match="117 x 131"):
        segmentation(source(), Image.new("1", size), *MODEL)


@pytest.mark.parametrize("junk", [b"", b"no DICOM at all", source()[:300], source()[:600]], ids=["", "text", "a", "b"])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(SegmentationRefused):
        segmentation(junk, MASK, *MODEL)


def test_without_highdicom_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    dicom_seg.quiet_highdicom.cache_clear()
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UsageError) as caught:
        segmentation(source(), MASK, *MODEL)
    assert "cxr-edge[dicom-seg]" in caught.value.remedy
