"""Pictures in `X.npy`, labels in `y.npy`: each picture becomes a PNG, since everything downstream reads files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr_edge.errors import ImageProblem, OutputUnwritable, UsageError
from cxr_edge.imaging import check_size
from cxr_train.layouts import Listing

_CHUNK = 64
"""Pictures looked at in one go; only these are in memory."""


def listing(source: Path, pictures: Path) -> Listing:
    """Write the pictures of `source/X.npy` as lossless PNGs into `pictures`, and list them with the labels of `y.npy`.

    X is memory-mapped: uint8, or float in [0, 1] or [0, 255], of shape [N, H, W], [N, H, W, 1] or [N, H, W, 3]. y is
    N whole numbers or strings, or one-hot [N, labels].

    Raises:
        UsageError: X or y is of another kind, or their lengths differ.
        OutputUnwritable: a picture cannot be written.
    """
    x, y = _load(source / "X.npy"), _load(source / "y.npy")
    shape = f"X.npy has the shape {x.shape}"
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] not in (1, 3)):
        raise UsageError(f"{source}: {shape}", "pictures must be of shape N,H,W or N,H,W,1 or N,H,W,3")
    labels = _labels(y, source / "y.npy")
    if len(labels) != len(x):
        raise UsageError(f"{source}: {len(x)} pictures in X.npy, but {len(labels)} labels in y.npy", "make them one")
    try:
        check_size(x.shape[2], x.shape[1])
    except ImageProblem as problem:
        raise UsageError(f"{source}: X.npy: {problem.sentence}", "give larger pictures") from problem
    scale = _scale(source / "X.npy")
    names = [f"{number:06}.png" for number in range(len(x))]
    try:
        pictures.mkdir(parents=True, exist_ok=True)
        each = (values for chunk in _chunks(source / "X.npy") for values in chunk)
        for name, values in zip(names, each, strict=True):
            pixels = values if scale is None else np.rint(values.astype(np.float64) * scale).astype(np.uint8)
            # The fastest level of compression: they are read more often than stored.
            Image.fromarray(np.asarray(pixels).squeeze()).save(pictures / name, compress_level=1)
    except OSError as error:
        raise OutputUnwritable(
            f"{pictures} cannot be written ({error.strerror or error})", "free some space, or choose another --out"
        ) from error
    rows = pd.DataFrame({"path": names, "label": labels}, dtype=str)
    note = f"the pictures of X.npy were written to {pictures}/"
    return Listing("arrays", rows, pictures, at=lambda index, _: f"X.npy[{index}]: ", notes=[note])


def _load(file: Path) -> NDArray[np.generic]:
    try:
        return np.asanyarray(np.load(file, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{file}: cannot be read ({error})", "save plain arrays with numpy.save") from error


def _labels(y: NDArray[np.generic], file: Path) -> list[str]:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 2 and y.dtype.kind in "biuf" and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    if y.dtype.kind == "f" and y.ndim == 1 and (y == np.rint(y)).all():
        y = y.astype(np.int64)  # Keras stores 0.0 and 1.0
    if y.ndim != 1 or y.dtype.kind not in "biuUS":
        raise UsageError(
            f"{file}: {y.dtype} of shape {y.shape} are no labels",
            "give N whole numbers or strings, or one-hot N,labels",
        )
    return [item.decode() if isinstance(item, bytes) else str(item) for item in y.tolist()]


def _scale(file: Path) -> float | None:
    """What brings the values to [0, 255]; None where they are uint8 already."""
    dtype = _load(file).dtype
    if dtype == np.uint8:
        return None
    if dtype.kind != "f":
        raise UsageError(f"{file}: its values are {dtype}", "give uint8, or float in [0, 1] or [0, 255]")
    ranges = np.array([(chunk.min(), chunk.max()) for chunk in _chunks(file)], dtype=np.float64).reshape(-1, 2)
    low, high = (float(ranges[:, 0].min()), float(ranges[:, 1].max())) if len(ranges) else (0.0, 0.0)
    if not (low >= 0 and high <= 255):  # not a number is neither
        raise UsageError(f"{file}: its values go from {low:g} to {high:g}", "scale them to [0, 1] or [0, 255]")
    return 255.0 if high <= 1 else 1.0


def _chunks(file: Path) -> Iterator[NDArray[Any]]:
    for start in range(0, len(_load(file)), _CHUNK):
        # Mapped anew each time: pages that one map has touched stay in memory as long as it does.
        yield np.array(_load(file)[start : start + _CHUNK])
