"""From table rows to batches. Pictures are read by `cxr_edge`, so training sees the very pixels the box will see.

Only the batches in flight are in memory, whatever the size of the table. Every random number comes from
(seed, epoch, position), so neither the number of loading threads nor a resumed run changes what is drawn.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from keras import tree
from numpy.typing import NDArray
from PIL import Image

from cxr_edge import imaging, preprocess
from cxr_edge.errors import ImageProblem, UsageError
from cxr_edge.masks import read_mask, split_mask
from cxr_edge.preprocess import InputSpec
from cxr_train import balance
from cxr_train.augment import augment

MASK_STRIDE = 4
"""Input pixels for each cell of the model's mask."""

LOADERS, BATCHES_AHEAD = 2, 3
"""Threads that read pictures, and batches that they may be ahead of the network."""

Batch = tuple[Any, ...]


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


@dataclass(frozen=True)
class Target:
    """What a network is taught: labels in the order of its outputs, `softmax` or `sigmoid`, with a mask or without."""

    labels: tuple[str, ...]
    task: str = "softmax"
    mask: bool = True

    def truth(self, label: str) -> NDArray[np.float32]:
        """One picture's truth for `probabilities`: one-hot float32[labels], or float32[1] of a sigmoid."""
        index = self.labels.index(label)
        if self.task == "sigmoid":
            return np.array([index], np.float32)
        return np.asarray(np.eye(len(self.labels), dtype=np.float32)[index])


@dataclass(frozen=True)
class Drawing:
    """How training rows are drawn and varied: see `balance` and `augment`."""

    balance: str
    augmentation: str
    seed: int


class Radiographs:
    """Batches of (input, truths), and weights where the balance asks for them, from the rows of a table.

    Each: float32[B, H, W, 1], {"probabilities": float32[B, labels or 1], "mask": float32[B, H/4, W/4, 2]}, and with
    class weights {"probabilities": float32[B], "mask": ones}. With a `Drawing`, each epoch draws rows and augments
    them; without, it has all rows once, in the table's order.

    Not a `keras.utils.PyDataset`: Keras starts to read its next epoch before it says that this epoch begins, so what
    an epoch draws would depend on whether the run was resumed.
    """

    def __init__(
        self, rows: pd.DataFrame, target: Target, spec: InputSpec, *, batch: int, drawing: Drawing | None = None
    ) -> None:
        self.rows = rows.reset_index(drop=True)
        self.target, self.spec, self.batch, self.drawing = target, spec, batch, drawing
        weighs = drawing is not None and drawing.balance == "class-weights"
        self.weights = balance.class_weights(rows) if weighs else None
        self._drawn = lru_cache(maxsize=2)(self._draw)
        self.pictures = len(self._drawn(0))

    def __len__(self) -> int:
        """Batches of one epoch."""
        return -(-self.pictures // self.batch)

    def dataset(self, epoch: int = 0) -> tf.data.Dataset:
        """Batches for Keras: without end from the start of `epoch` (from 0) where rows are drawn, else one pass."""
        example = self.load(epoch, 0)
        signature = tree.map_structure(lambda array: tf.TensorSpec((None, *array.shape[1:]), tf.float32), example)
        batches = tf.data.Dataset.from_generator(lambda: self._stream(epoch), output_signature=signature)
        # Keras averages losses over one batch too many where it must find the end by itself.
        length = tf.data.INFINITE_CARDINALITY if self.drawing else len(self)
        return batches.apply(tf.data.experimental.assert_cardinality(length)).prefetch(1)

    def _stream(self, epoch: int) -> Iterator[Batch]:
        numbers = itertools.count() if self.drawing else iter(range(len(self)))
        with ThreadPoolExecutor(LOADERS) as pool:
            loading: deque[Future[Batch]] = deque()
            for number in itertools.islice(numbers, BATCHES_AHEAD):
                loading.append(pool.submit(self.load, epoch + number // len(self), number % len(self)))
            while loading:
                ready = loading.popleft().result()
                for number in itertools.islice(numbers, 1):
                    loading.append(pool.submit(self.load, epoch + number // len(self), number % len(self)))
                yield ready

    def load(self, epoch: int, index: int) -> Batch:
        """Load one batch; nothing but its epoch and its index in it (both from 0) decides what it holds."""
        positions = range(index * self.batch, min((index + 1) * self.batch, self.pictures))
        pixels, masks = zip(*(self._example(epoch, position) for position in positions), strict=True)
        labels = list(self.rows["label"].iloc[self._drawn(epoch)[positions.start : positions.stop]])
        truth = {"probabilities": np.stack([self.target.truth(label) for label in labels])}
        if self.target.mask:
            truth["mask"] = np.stack(masks)
        batch = preprocess.scale(np.concatenate(pixels)), truth
        if self.weights is None:
            return batch
        weights = dict.fromkeys(truth, np.ones(len(labels), np.float32))
        own = np.array([self.weights[label] for label in labels], np.float32)
        return *batch, weights | {"probabilities": own}

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        if self.drawing is None:
            return np.arange(len(self.rows))
        return balance.draw(self.rows, self.drawing.balance, np.random.default_rng((self.drawing.seed, epoch)))

    def _example(self, epoch: int, position: int) -> tuple[NDArray[np.uint8], NDArray[np.float32] | None]:
        row = self.rows.iloc[self._drawn(epoch)[position]]
        gray = read_gray(row["path"], self.spec)
        mask = _mask_of(row["mask"], gray) if self.target.mask and row["mask"] else None
        if self.drawing is not None:
            rng = np.random.default_rng((self.drawing.seed, epoch, position))
            gray, mask = augment(gray, mask, rng, self.drawing.augmentation)
        return preprocess.to_input(gray, self.spec), mask_truth(mask, self.spec) if self.target.mask else None


def _mask_of(path: str, gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Read a mask at its picture's size: some data sets publish both in the same shape but in two sizes."""
    mask = read_mask(path)
    if mask.shape == gray.shape:
        return mask
    image = Image.fromarray(mask).resize((gray.shape[1], gray.shape[0]), Image.Resampling.NEAREST)
    return np.asarray(image)
