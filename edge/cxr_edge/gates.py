"""The gates before a verdict: what is no chest radiograph, or none that can be judged. Pure functions.

Simple facts of the picture come first and cost no inference: colour, contrast, clipping. Then the model's own outputs:
how far the picture lies from those it was trained on, and what it found of the lungs. Limits that depend on the model
are in its manifest; those here are facts of radiographs, each with what was measured on the data's held-out ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cxr_edge.errors import ImageProblem, Reason, Status
from cxr_edge.imaging import Radiograph
from cxr_edge.manifest import Familiar, Manifest
from cxr_edge.preprocess import percentile_levels

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outputs = dict[str, "NDArray[Any]"]


class Framed(Protocol):
    """A picture of which no more than its size is asked, in pixels."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...


BLANK_CONTRAST = 8
"""Gray levels between the 1st and 99th percentile below which a picture shows nothing. A radiograph has over 100."""
COLOURED = 0.05
"""Share of coloured pixels above which a picture is no radiograph. Radiographs: to 0.003, photographs: from 0.1."""
CLIPPED = 0.8
"""Share of pixels that are all black or all white above which nothing is left to see. Radiographs: to 0.51."""
CUT_OFF = 0.65
"""Share of one side of the frame that lies in lung above which the lungs go on outside it. Radiographs: to 0.63."""
DOUBTFUL = 0.7
"""Share of the limit from which on a picture is unfamiliar enough to look at its negative; of radiographs 6 %."""
NEARER = 0.75
"""An inverted radiograph's negative lies nearer to the training pictures than itself by at least this factor."""


def check_picture(picture: Radiograph) -> None:
    """Refuse what shows at a glance that it is no radiograph.

    Raises:
        ImageProblem: rejected; `not_a_radiograph` (colours), `blank` (one gray) or `saturated` (black and white only).
    """
    if picture.coloured > COLOURED:
        raise _rejected(Reason.NOT_A_RADIOGRAPH, f"{picture.coloured:.0%} of the picture is in colour", picture)
    step = max(1, min(picture.gray.shape) // 256)
    sample = picture.gray[::step, ::step]
    low, high = percentile_levels(sample, 1, 99)
    if high - low < BLANK_CONTRAST:
        raise _rejected(Reason.BLANK, "the picture is blank: almost all of it is one gray", picture)
    clipped = float(((sample == 0) | (sample == 255)).mean())
    if clipped > CLIPPED:
        raise _rejected(Reason.SATURATED, f"{clipped:.0%} of the picture is all black or all white", picture)


def check_outputs(outputs: Outputs, manifest: Manifest, picture: Framed) -> None:
    """Refuse what the model does not know, or where it finds no lungs to judge.

    Args:
        outputs: as `runtime.Engine.infer` returns them.
        picture: whose size a refusal tells.

    Raises:
        ImageProblem: rejected; `out_of_distribution`, `lungs_not_found` or `lungs_cut_off`.
    """
    if manifest.familiar is not None:
        away = distance(outputs["embedding"], manifest.familiar) / manifest.familiar.limit
        if away > 1:
            sentence = "it does not look like the frontal chest radiographs that the model knows"
            sentence += f" ({away:.2f} times as far from them as any that it may judge)"
            raise _rejected(Reason.OUT_OF_DISTRIBUTION, sentence, picture)
    if manifest.lung_area_pct is None:
        return
    lung = outputs["mask"] >= manifest.mask_threshold * 256
    low, high = manifest.lung_area_pct
    area = 100 * float(lung.mean())
    if not low <= area <= high:
        sentence = f"lungs were found on {area:.0f} % of the frame, a chest radiograph has {low:.0f} to {high:.0f} %"
        raise _rejected(Reason.LUNGS_NOT_FOUND, sentence, picture)
    side = max(float(edge.mean()) for edge in (lung[0], lung[-1], lung[:, 0], lung[:, -1]))
    if side > CUT_OFF:
        raise _rejected(Reason.LUNGS_CUT_OFF, f"the lungs are cut off: they fill {side:.0%} of one side", picture)


def may_be_inverted(outputs: Outputs, manifest: Manifest) -> bool:
    """Whether the picture is odd enough for its negative to be worth a second inference."""
    familiar = manifest.familiar
    return familiar is not None and distance(outputs["embedding"], familiar) > DOUBTFUL * familiar.limit


def is_inverted(outputs: Outputs, of_negative: Outputs, manifest: Manifest) -> bool:
    """Whether the picture's negative is the radiograph: familiar, and much more so than the picture itself."""
    if manifest.familiar is None:
        return False
    itself, negative = (distance(each["embedding"], manifest.familiar) for each in (outputs, of_negative))
    return negative <= manifest.familiar.limit and negative < NEARER * itself


def distance(embedding: NDArray[np.float32], familiar: Familiar) -> float:
    """Distance of an embedding, float[d], from the training pictures', in their standard deviations: see `Familiar`."""
    mean, whitening = familiar.arrays
    return float(np.linalg.norm((embedding - mean) @ whitening))


def _rejected(reason: Reason, sentence: str, picture: Framed) -> ImageProblem:
    return ImageProblem(Status.REJECTED, reason, sentence, picture.width, picture.height)
