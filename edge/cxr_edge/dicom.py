"""DICOM -> uint8[H, W] gray, where the `dicom` extra is installed. Pixels only: no tag of the patient is read."""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np

from cxr_edge.errors import ImageProblem, Reason, Status

if TYPE_CHECKING:
    from numpy.typing import NDArray


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the first frame: modality and VOI LUT applied, MONOCHROME1 inverted, windowed to 8 bits.

    Raises:
        ImageProblem: failed; pydicom is not installed, or the pixels cannot be decoded.
    """
    try:
        import pydicom
        from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
    except ImportError as error:
        sentence = "DICOM needs an extra: pip install 'cxr-edge[dicom]'"
        raise ImageProblem(Status.FAILED, Reason.DICOM_EXTRA_MISSING, sentence) from error
    from cxr_edge.imaging import check_size, window

    # pydicom quotes what it stumbles over, which may be a patient's name: nothing of that may reach a log or a row.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module="pydicom")
    try:
        # The file meta lies before everything else and is never compressed; what follows may inflate without bound.
        if pydicom.uid.DeflatedExplicitVRLittleEndian.encode() in data[:2048]:
            raise ImageProblem(Status.FAILED, Reason.UNSUPPORTED, "a deflated DICOM data set is not read")
        dataset = pydicom.dcmread(io.BytesIO(data))
        # Before decoding: the header says how much memory the pixels will take.
        check_size(int(dataset.Columns), int(dataset.Rows))
        pixels = pixel_array(dataset, index=0)
        if pixels.ndim == 3:
            pixels = pixels.mean(axis=-1)
        else:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        gray = window(np.asarray(pixels))
        return np.asarray(255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray)
    except ImageProblem:
        raise
    except Exception as error:  # pydicom and its decoders raise anything on damaged files
        sentence = f"the DICOM file cannot be decoded ({type(error).__name__})"
        raise ImageProblem(Status.FAILED, Reason.DAMAGED, sentence) from error
