"""Loss and metric of the mask head, which count judged pixels only.

The truth of a mask is float32[B, h, w, 2]: the share of lung in each cell and the share of it that somebody judged,
both in [0, 1]. A picture without a mask has a judged share of 0 everywhere, and so costs nothing.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("cxr_train")
class JudgedMaskLoss(keras.losses.Loss):
    """Binary cross-entropy plus soft Dice loss, over the judged pixels of the batch; 0 where there is none."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Scalar loss of one batch; `y_pred` float32[B, h, w, 1] in [0, 1]."""
        truth, judged = y_true[..., :1], y_true[..., 1:]
        p = ops.clip(y_pred, 1e-6, 1 - 1e-6)
        entropy = -(truth * ops.log(p) + (1 - truth) * ops.log(1 - p))
        pixels = ops.sum(judged)
        overlap = ops.sum(judged * truth * p)
        total = ops.sum(judged * (truth + p))
        soft_dice = 1 - (2 * overlap + 1) / (total + 1)
        return ops.sum(judged * entropy) / ops.maximum(pixels, 1.0) + ops.where(pixels > 0, soft_dice, 0.0)


@keras.saving.register_keras_serializable("cxr_train")
class JudgedDice(keras.metrics.Metric):
    """Dice of the thresholded mask over all judged cells of an epoch, 0 to 1."""

    def __init__(self, name: str = "dice", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.overlap = self.add_variable((), "zeros", name="overlap")
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:  # noqa: ARG002
        """Add one batch; shapes as the loss's."""
        judged = ops.cast(y_true[..., 1:] > 0.5, "float32")
        truth = ops.cast(y_true[..., :1] > 0.5, "float32") * judged
        lung = ops.cast(y_pred > 0.5, "float32") * judged
        self.overlap.assign_add(2 * ops.sum(truth * lung))
        self.total.assign_add(ops.sum(truth) + ops.sum(lung))

    def result(self) -> Any:
        """Dice so far, 0 where nothing was judged."""
        return self.overlap / ops.maximum(self.total, 1.0)
