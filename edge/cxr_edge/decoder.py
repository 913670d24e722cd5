"""One file, step by step: look at its header, read it, prepare it for the model.

Between the steps a worker waits for the memory that the picture needs, and asks whether its content is known. The
steps run here (`LocalDecoder`) or in a process of their own (`isolate.py`), with the same results.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Protocol

from cxr_edge import dicom, gates, imaging, preprocess
from cxr_edge.discover import FoundFile
from cxr_edge.preprocess import InputSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


PIECE_BYTES = 2**20


class Left(Enum):
    """Why a file found gets no row tonight."""

    VANISHED = "vanished"
    CHANGING = "still changing"
    KNOWN = "known"


class FileLeft(Exception):
    """A file gets no row tonight: it has vanished, or somebody is writing it."""

    def __init__(self, left: Left) -> None:
        super().__init__(left.value)
        self.left = left


@dataclass(frozen=True)
class Prepared:
    """A picture, ready for the model: `pixels` uint8[1, h, w, 1]; `width` and `height` are the file's, in pixels.

    `brightness` is the mean gray level of the picture as decoded, 0 to 255.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    brightness: float


class Decoder(Protocol):
    """The steps, to be taken in this order for one file after another. One thread at a time."""

    def look(self, found: FoundFile) -> int:
        """Open a file; return the bytes of memory that reading, decoding and drawing its mask will take at the peak.

        Raises:
            FileLeft: it has vanished, or is not what was found.
            ImageProblem: it cannot be opened, or is too large a file.
        """

    def digest(self) -> str:
        """The SHA-256 of a file that is too much to read: piece by piece. Raises as `read` does."""

    def read(self) -> str:
        """Read the file; return its SHA-256. Raises FileLeft if it changed meanwhile, ImageProblem."""

    def prepare(self) -> Prepared:
        """Decode what was read, let it pass the gates that need no model, prepare it. Raises ImageProblem."""

    def segment(self, mask: Image.Image, model_name: str, model_version: str) -> bytes:
        """A DICOM Segmentation of the mask, mode "1", that refers to the file; b"" where the file is no DICOM.

        Raises SegmentationRefused.
        """

    def close(self) -> None:
        """Release what the last file took."""


class LocalDecoder:
    """A `Decoder` in this process."""

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec
        self._wanted = (spec.width, spec.height)
        self._file: BinaryIO | None = None
        self._data = b""

    def look(self, found: FoundFile) -> int:
        """See `Decoder`."""
        self.close()
        self._found = found
        try:
            # What was a file when it was found may be a link or a pipe by now.
            self._file = os.fdopen(os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
            self._check_unchanged()
            if found.size:  # of an empty one, the digest can be told
                imaging.check_file_size(found.size)
            return found.size + imaging.memory_needed(self._file, self._wanted)
        except FileNotFoundError as error:
            raise FileLeft(Left.VANISHED) from error
        except OSError as error:
            raise imaging.unreadable(error) from error

    def digest(self) -> str:
        """See `Decoder`."""
        assert self._file
        sha256 = hashlib.sha256()
        try:
            self._file.seek(0)
            while piece := self._file.read(PIECE_BYTES):
                sha256.update(piece)
            self._check_unchanged()
        except OSError as error:
            raise imaging.unreadable(error) from error
        return sha256.hexdigest()

    def read(self) -> str:
        """See `Decoder`."""
        assert self._file
        try:
            self._file.seek(0)
            self._data = self._file.read(self._found.size)
            self._check_unchanged()
        except OSError as error:
            raise imaging.unreadable(error) from error
        self._file.close()
        return hashlib.sha256(self._data).hexdigest()

    def prepare(self) -> Prepared:
        """See `Decoder`."""
        imaging.check_file_size(len(self._data))
        picture = imaging.decode(self._data, self._wanted)
        gates.check_picture(picture)
        pixels = preprocess.to_input(picture.gray, self._spec)
        # Every eighth pixel each way is mean enough, and costs a sixty-fourth.
        brightness = float(picture.gray[::8, ::8].mean())
        return Prepared(pixels, picture.width, picture.height, brightness)

    def segment(self, mask: Image.Image, model_name: str, model_version: str) -> bytes:
        """See `Decoder`."""
        if not dicom.is_dicom(self._data):
            return b""
        from cxr_edge.dicom_seg import segmentation

        return segmentation(self._data, mask, model_name, model_version)

    def close(self) -> None:
        """See `Decoder`."""
        self._data = b""
        if self._file:
            self._file.close()

    def _check_unchanged(self) -> None:
        assert self._file
        now = os.fstat(self._file.fileno())
        if not stat.S_ISREG(now.st_mode) or (now.st_size, now.st_mtime_ns) != (self._found.size, self._found.mtime_ns):
            raise FileLeft(Left.CHANGING)
