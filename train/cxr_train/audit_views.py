"""What the shortcut audit shows a model: its own input, with a part of it hidden. Pure functions on uint8[H, W].

Views are made of what `Predictor.prepare` returns, after resizing and stretching, so that what is left looks exactly
as it does in the whole picture. What is hidden gets the mean gray of what is left: it depends on no hidden pixel, and
lies in the range that the model knows, which black does not.

Sources of the method: Maguolo and Nanni, "A critic evaluation of methods for COVID-19 automatic detection from X-ray
images", Information Fusion 76, 2021 (lungs blacked out); DeGrave, Janizek and Lee, "AI for radiographic COVID-19
detection selects shortcuts over signal", Nature Machine Intelligence 3, 2021.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from cxr_edge import masks, preprocess

WHOLE, NO_LUNGS, ONLY_LUNGS, BORDER, COARSE = "whole", "no_lungs", "only_lungs", "border", "coarse"
VIEWS = {
    WHOLE: "whole picture",
    NO_LUNGS: "lungs blacked out",
    ONLY_LUNGS: "only the lungs",
    BORDER: "only the border",
    COARSE: "32 x 32 pixels",
}
"""Names of the views in files, and what people call them."""
FRAME = 0.15
"""Width of the border, as a share of the picture's width and height."""
MARGIN = 0.03
"""By how much a lung mask is widened, as a share of the shorter side: masks end a little inside the lung."""
LUNG_SHARE = (0.05, 0.9)
"""Share of the frame that a widened mask must cover. Truth masks cover 0.19 to 0.62 before they are widened; one that
covers next to nothing, or all, hides nothing, or all, and would make false figures."""
COARSE_SIDE = 32
MASK_THRESHOLD = 0.5


def truth_lungs(mask: NDArray[np.uint8], width: int, height: int) -> NDArray[np.bool_] | None:
    """Lungs of a truth mask, uint8[h, w] (see `masks.read_mask`), widened: bool[height, width], or None if unusable.

    Pixels that nobody judged count as lung here: they may be.
    """
    lung = Image.fromarray((mask >= masks.UNJUDGED).astype(np.uint8) * np.uint8(255))
    return _widened(lung.resize((width, height), Image.Resampling.BILINEAR).point(lambda level: 255 * (level > 127)))


def own_lungs(lung: NDArray[np.uint8], width: int, height: int) -> NDArray[np.bool_] | None:
    """Lungs of a model's own mask, uint8[h, w] in units of 1/256, widened: bool[height, width], or None if unusable."""
    return _widened(Image.fromarray(masks.at_image_size(lung, width, height, MASK_THRESHOLD)).convert("L"))


def _widened(lung: Image.Image) -> NDArray[np.bool_] | None:
    reach = round(MARGIN * min(lung.size))
    wide = np.asarray(lung.filter(ImageFilter.MaxFilter(2 * reach + 1))) > 0
    return wide if LUNG_SHARE[0] <= wide.mean() <= LUNG_SHARE[1] else None


def make(gray: NDArray[np.uint8], lung: NDArray[np.bool_] | None) -> dict[str, NDArray[np.uint8]]:
    """All views of one picture, uint8[H, W] each, by the names of `VIEWS`; those of the lungs if they are known.

    Args:
        gray: uint8[H, W].
        lung: bool[H, W], or None. Lung that reaches into the border is hidden there as well.
    """
    inside = ~frame(gray.shape)
    views = {WHOLE: gray}
    if lung is not None:
        views |= {NO_LUNGS: hide(gray, lung), ONLY_LUNGS: hide(gray, ~lung)}
        inside |= lung
    return views | {BORDER: hide(gray, inside), COARSE: coarse(gray)}


def frame(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """The border of a picture of this shape (height, width): True in its outer 15 %, at least a pixel."""
    border = np.ones(shape, np.bool_)
    rows, columns = (max(1, round(FRAME * side)) for side in shape)
    border[rows:-rows, columns:-columns] = False
    return border


def hide(gray: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Fill `hidden`, bool[H, W], with the mean gray of the rest; where nothing is left, with middle gray."""
    kept = gray[~hidden]
    fill = round(float(kept.mean())) if kept.size else 128
    return np.where(hidden, np.uint8(fill), gray)


def coarse(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Reduce uint8[H, W] to 32 x 32 pixels and enlarge it again, [H, W]: brightness and layout, but no fine sign."""
    height, width = gray.shape
    return preprocess.resize(preprocess.resize(gray, COARSE_SIDE, COARSE_SIDE), width, height)
