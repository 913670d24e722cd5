"""What can go wrong: exit codes, reason codes, and exceptions that say the remedy.

Two kinds of exception, and nothing else crosses a step's border:

- `CxrEdgeError` ends the command. It carries the exit code and a remedy; `cli.py` maps it, nobody else does.
- `ImageProblem` costs one image its verdict, and becomes that image's row.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class ExitCode(IntEnum):
    """Exit codes of every `cxr-*` command. Documented and stable: scripts depend on them."""

    OK = 0
    BUG = 1
    USAGE = 2
    SOME_FAILED = 3
    NOTHING_FOUND = 4
    MODEL_REFUSED = 5
    OUTPUT_UNWRITABLE = 6
    LOCKED = 7
    INTERRUPTED = 130


class Status(str, Enum):
    """The `status` column: whether the image was judged."""

    OK = "ok"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(str, Enum):
    """The `reason_code` column: stable words for why an image was failed, rejected, left uncertain or corrected."""

    # failed: the file could not be read
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    DAMAGED = "damaged"
    TOO_LARGE = "too_large"
    TIMED_OUT = "timed_out"
    DECODER_CRASHED = "decoder_crashed"
    UNREADABLE = "unreadable"
    UNSUPPORTED = "unsupported"
    DICOM_EXTRA_MISSING = "dicom_extra_missing"
    INTERNAL_ERROR = "internal_error"
    # rejected: the file was read, but is nothing to judge
    TOO_SMALL = "too_small"
    BLANK = "blank"
    SATURATED = "saturated"
    NOT_A_RADIOGRAPH = "not_a_radiograph"
    NOT_A_FRONTAL_CHEST = "not_a_frontal_chest"
    OUT_OF_DISTRIBUTION = "out_of_distribution"
    LUNGS_NOT_FOUND = "lungs_not_found"
    LUNGS_CUT_OFF = "lungs_cut_off"
    # uncertain: judged, but not clearly enough to name a label
    LOW_CONFIDENCE = "low_confidence"
    # judged, after a correction that a person should know of
    INVERTED = "inverted"


class CxrEdgeError(Exception):
    """Ends a command: `message` says what happened and to what, `remedy` what to do, `exit_code` how to leave."""

    exit_code = ExitCode.BUG

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class UsageError(CxrEdgeError):
    """The command line asks for something that cannot be."""

    exit_code = ExitCode.USAGE


class NothingFound(CxrEdgeError):
    """The folder holds no file, or none that is an image."""

    exit_code = ExitCode.NOTHING_FOUND


class ModelRefused(CxrEdgeError):
    """The model file, or the runtime that should run it, cannot be used."""

    exit_code = ExitCode.MODEL_REFUSED


class OutputUnwritable(CxrEdgeError):
    """A row, a mask or the ledger cannot be written."""

    exit_code = ExitCode.OUTPUT_UNWRITABLE


class OutputLocked(CxrEdgeError):
    """Another sweep holds the output folder."""

    exit_code = ExitCode.LOCKED


class ImageProblem(Exception):
    """One image gets no verdict: `status` is failed or rejected, `reason` the stable word, `sentence` for a person.

    `width` and `height` (pixels, as displayed) are 0 where the file did not get far enough to know them.
    """

    def __init__(self, status: Status, reason: Reason, sentence: str, width: int = 0, height: int = 0) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason
        self.sentence = sentence
        self.width = width
        self.height = height
