"""From table rows to batches. Pictures are read by `cxr_edge`, so training sees the very pixels the box will see.

Only the batches in flight are in memory, whatever the size of the table. Every random number comes from
(seed, epoch, position), so neither the number of loading threads nor a resumed run changes what is drawn.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cxr_edge import imaging, preprocess
from cxr_edge.errors import ImageProblem, UsageError
from cxr_edge.masks import read_mask, split_mask
from cxr_edge.preprocess import InputSpec
from cxr_train.augment import augment

MASK_STRIDE = 4
"""Input pixels for each cell of the model's mask."""


def read_gray(path: str | Path, spec: InputSpec) -> NDArray[np.uint8]:
    """Decode one picture to uint8[H, W]. Raises UsageError, with its name, where it cannot be read."""
    try:
        return imaging.decode(imaging.read_bytes(Path(path)), (spec.width, spec.height)).gray
    except ImageProblem as problem:
        raise UsageError(f"{path}: {problem.sentence}", "make the table again with: cxr-train table") from problem


def mask_truth(mask: NDArray[np.uint8] | None, spec: InputSpec) -> NDArray[np.float32]:
    """The mask head's truth, float32[h, w, 2]: share of lung and share judged in each cell (zeros without a mask)."""
    height, width = spec.height // MASK_STRIDE, spec.width // MASK_STRIDE
    if mask is None:
        return np.zeros((height, width, 2), np.float32)
    lung, judged = (_shares(part, width, height) for part in split_mask(mask))
    return np.stack([np.where(judged > 0, lung / np.maximum(judged, 1e-6), 0).clip(0, 1), judged], axis=-1)


def _shares(part: NDArray[np.bool_], width: int, height: int) -> NDArray[np.float32]:
    image = Image.fromarray(part.astype(np.uint8) * np.uint8(255))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX), dtype=np.float32) / np.float32(255)


def balanced_weights(table: pd.DataFrame) -> NDArray[np.float64]:
    """Probability of each row to be drawn, float64[rows], sums to 1.

    Every (label, origin) cell is drawn in proportion to the square root of its size: a hospital with thirty times the
    pictures counts five times as much, and thirty pictures are not repeated until they are known by heart.
    """
    sizes = table.groupby(["label", "origin"], dropna=False)["path"].transform("size").to_numpy(np.float64)
    weights = 1 / np.sqrt(sizes)
    return np.asarray(weights / weights.sum())


class Radiographs(keras.utils.PyDataset):
    """Batches of (input, truths) from the rows of a table.

    Each item: float32[B, H, W, 1], and {"probabilities": float32[B, labels], "mask": float32[B, H/4, W/4, 2]}.
    With `training`, rows are drawn by `balanced_weights` and augmented; without, all rows once, in the table's order.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        labels: list[str],
        spec: InputSpec,
        *,
        batch: int,
        seed: int = 0,
        training: bool = False,
    ) -> None:
        super().__init__(workers=2, use_multiprocessing=False, max_queue_size=4)
        self.table = table.reset_index(drop=True)
        self.labels, self.spec, self.batch = labels, spec, batch
        self.seed, self.training, self.epoch = seed, training, 0
        self.weights = balanced_weights(self.table) if training else None
        self.rows = self._draw()

    def __len__(self) -> int:
        return -(-len(self.table) // self.batch)

    def start(self, epoch: int) -> None:
        """Draw the rows of an epoch (from 0); a resumed run so draws what it would have drawn."""
        self.epoch = epoch
        self.rows = self._draw()

    def _draw(self) -> NDArray[np.int64]:
        if self.weights is None:
            return np.arange(len(self.table))
        rng = np.random.default_rng((self.seed, self.epoch))
        return rng.choice(len(self.table), len(self.table), p=self.weights)

    def __getitem__(self, index: int) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
        positions = range(index * self.batch, min((index + 1) * self.batch, len(self.rows)))
        pixels, masks = zip(*(self._example(position) for position in positions), strict=True)
        names = self.table["label"].iloc[self.rows[positions.start : positions.stop]]
        truth = np.stack([np.eye(len(self.labels), dtype=np.float32)[self.labels.index(name)] for name in names])
        return preprocess.scale(np.concatenate(pixels)), {"probabilities": truth, "mask": np.stack(masks)}

    def _example(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        row = self.table.iloc[self.rows[position]]
        gray = read_gray(row["path"], self.spec)
        mask = read_mask(row["mask"]) if row["mask"] else None
        if self.training:
            gray, mask = augment(gray, mask, np.random.default_rng((self.seed, self.epoch, position)))
        return preprocess.to_input(gray, self.spec), mask_truth(mask, self.spec)
