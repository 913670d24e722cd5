"""A lung mask as a DICOM Segmentation that refers to its source, where the `dicom-seg` extra is installed.

A segmentation is filed beside its source, so by the standard it carries the identifiers of its source's patient and
study. It is the one output that does, and is written only where somebody asked for it. Free text does not pass: only
the tags in `_COPIED` and `_IMAGE` are read.
"""

from __future__ import annotations

import functools
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_edge import __version__
from cxr_edge.dicom import quiet_pydicom, read_tags
from cxr_edge.errors import ImageProblem, UsageError

if TYPE_CHECKING:
    from PIL import Image
    from pydicom import Dataset

LABEL = "Lung"
SERIES_NUMBER = 900
"""Behind the numbers that a modality gives its own series."""
NOTE = "Research and triage aid, never a diagnosis"

_REQUIRED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Type 2 in the Patient and General Study modules (PS3.3, C.7.1.1 and C.7.2.1): must be there, may be empty.
_COPIED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_IMAGE = (
    *("SpecificCharacterSet", "Modality", "Rows", "Columns", "NumberOfFrames", "InstanceNumber", "PatientOrientation"),
    *("FrameOfReferenceUID", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)


class SegmentationRefused(ValueError):
    """No segmentation can be made of this source: its text is one sentence for a person, without any tag's value."""


@functools.cache
def quiet_highdicom() -> Any:
    """highdicom, told to say nothing: it warns of odd patients' names by quoting them.

    Raises:
        UsageError: the `dicom-seg` extra is not installed.
    """
    try:
        import highdicom
    except ImportError as error:
        raise UsageError("DICOM segmentations need an extra", "pip install 'cxr-edge[dicom-seg]'") from error
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="highdicom")
    return highdicom


def segmentation(source: bytes, mask: Image.Image, model_name: str, model_version: str) -> bytes:
    """Make a binary DICOM Segmentation with one segment, the lung, of the source's first frame.

    The same source, mask and model give the same UIDs, so that a PACS which gets it twice files it once.

    Args:
        source: bytes of the DICOM file that was judged.
        mask: mode "1", of the source's Columns x Rows pixels.
        model_name: at most 64 characters, as DICOM has it; longer is cut.
        model_version: what tells this model file from others, for example the first digits of its digest.

    Returns:
        Bytes of a DICOM file, Segmentation Storage, Explicit VR Little Endian.

    Raises:
        SegmentationRefused: the source lacks what the standard requires, or the mask is of another size.
        UsageError: the `dicom-seg` extra is not installed.
    """
    highdicom, pydicom = quiet_highdicom(), quiet_pydicom()
    try:
        reference = _reference(source)
        columns, rows = int(reference.Columns), int(reference.Rows)
        if mask.size != (columns, rows):
            raise SegmentationRefused(
                f"the mask has {mask.width} x {mask.height} pixels, its source {columns} x {rows}"
            )
        dataset = _build(highdicom, pydicom, reference, mask, model_name[:64], model_version[:64])
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()
    except SegmentationRefused:
        raise
    except ImageProblem as problem:
        raise SegmentationRefused(problem.sentence) from problem
    except Exception as error:  # highdicom raises anything on odd tags; its text quotes them
        sentence = f"no DICOM segmentation can refer to this kind of file ({type(error).__name__})"
        raise SegmentationRefused(sentence) from error


def _reference(source: bytes) -> Dataset:
    """The tags of the source that its segmentation may know."""
    tags, _ = read_tags(source, (*_REQUIRED, *_COPIED, *_IMAGE))
    missing = [keyword for keyword in (*_REQUIRED, "Rows", "Columns") if not tags.get(keyword)]
    if missing:
        raise SegmentationRefused(f"no DICOM segmentation can refer to a file without {' and '.join(missing)}")
    for keyword in _COPIED:
        if tags.get(keyword) is None:
            setattr(tags, keyword, "")
    return tags


def _build(
    highdicom: Any, pydicom: Any, source: Dataset, mask: Image.Image, model_name: str, model_version: str
) -> Any:
    uid, codes = pydicom.uid.generate_uid, pydicom.sr.codedict.codes
    # highdicom takes a frame of reference for a position in space, which a projection lacks; and it wants one mask for
    # each frame, of which only the first was judged.
    frame_of_reference, frames = source.get("FrameOfReferenceUID"), int(source.get("NumberOfFrames") or 1)
    source.pop("FrameOfReferenceUID", None)
    source.NumberOfFrames = 1
    lung = highdicom.seg.SegmentDescription(
        segment_number=1,
        segment_label=LABEL,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Lung,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=model_name, family=codes.DCM.ArtificialIntelligence, version=model_version
        ),
    )
    model = [model_name, model_version]
    dataset = highdicom.seg.Segmentation(
        source_images=[source],
        pixel_array=np.asarray(mask, dtype=bool),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[lung],
        series_instance_uid=uid(entropy_srcs=["series", str(source.SeriesInstanceUID), *model]),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid(entropy_srcs=["image", str(source.SOPInstanceUID), *model, mask.tobytes().hex()]),
        instance_number=max(1, int(source.get("InstanceNumber") or 1)),
        manufacturer="cxr-edge",
        manufacturer_model_name=model_name,
        software_versions=__version__,
        # Required, and a box has none: what did the work is the model file.
        device_serial_number=model_version,
        content_label="LUNG",
        content_description=NOTE,
        series_description=f"{LABEL} mask of cxr-edge",
        omit_empty_frames=False,
    )
    # A projection has no slice thickness, without which highdicom refuses to read what it wrote; where a segmentation
    # names its source's pixels, Pixel Measures may be absent (PS3.3, A.51).
    for group in dataset.SharedFunctionalGroupsSequence:
        if "PixelMeasuresSequence" in group:
            del group.PixelMeasuresSequence
    # Type 2C where no position in space is known (PS3.3, C.7.6.1.1.1); highdicom leaves it out.
    dataset.PatientOrientation = source.get("PatientOrientation") or ""
    if frame_of_reference:
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = frame_of_reference, ""
    if frames > 1:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = 1
    return dataset
