"""DICOM -> uint8[H, W] gray, where the `dicom` extra is installed. Pixels only: no tag of the patient is read."""

from __future__ import annotations

import io
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
        from pydicom.pixels import apply_modality_lut, apply_voi_lut
    except ImportError as error:
        sentence = "DICOM needs an extra: pip install 'cxr-edge[dicom]'"
        raise ImageProblem(Status.FAILED, Reason.DICOM_EXTRA_MISSING, sentence) from error
    from cxr_edge.imaging import check_size, window

    try:
        dataset = pydicom.dcmread(io.BytesIO(data))
        # Before decoding: the header says how much memory the pixels will take.
        check_size(int(dataset.Columns), int(dataset.Rows))
        pixels = dataset.pixel_array
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            pixels = pixels[0]
        if pixels.ndim == 3:
            pixels = pixels.mean(axis=-1)
        else:
            pixels = apply_voi_lut(apply_modality_lut(pixels, dataset), dataset)
        gray = window(np.asarray(pixels))
        return np.asarray(255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray)
    except ImageProblem:
        raise
    except Exception as error:  # pydicom and its decoders raise anything on damaged files
        detail = " ".join(str(error).split())[:120]
        raise ImageProblem(Status.FAILED, Reason.DAMAGED, f"the DICOM file cannot be decoded ({detail})") from error
