"""What happens around each epoch of a run: its randomness, its rate, its end. Saving is in `backup`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras

from cxr_edge.errors import UsageError

PLATEAU_EPOCHS, PLATEAU_FACTOR = 3, 0.5
"""Epochs without a better validation loss after which the rate is multiplied by the factor."""


class Epoch(keras.callbacks.Callback):
    """Sets all that is random in an epoch by its number, and names its phase and rate in the log."""

    def __init__(self, model: keras.Model, seed: int, phase: str) -> None:
        super().__init__()
        self.seed, self.phase = seed, phase
        self.dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        for number, layer in enumerate(self.dropouts):
            layer.seed_generator.state.assign([self.seed, 1000 * epoch + number])

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        assert logs is not None  # Keras hands every callback the same dict
        logs["phase"] = self.phase
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class NoNan(keras.callbacks.Callback):
    """Ends a run whose loss is no number any more, before it overwrites anything."""

    def __init__(self, best: Path, rate: float) -> None:
        super().__init__()
        self.best, self.rate, self.epoch = best, rate, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not math.isfinite((logs or {}).get("loss", 0.0)):
            kept = f"the best model so far stays in {self.best}" if self.best.exists() else "no epoch was saved yet"
            raise UsageError(
                f"the loss is no number any more in epoch {self.epoch + 1}, batch {batch + 1}; {kept}",
                f"start again in another --out with a lower rate than {self.rate:g}",
            )


class Plateau(keras.callbacks.ReduceLROnPlateau):
    """ReduceLROnPlateau that has seen the epochs before a kill."""

    def __init__(self, rate: float, past: list[float]) -> None:
        super().__init__(patience=PLATEAU_EPOCHS, factor=PLATEAU_FACTOR, mode="min")
        self.rate, self.past = rate, past

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self.model.optimizer.learning_rate = self.rate
        for epoch, loss in enumerate(self.past):
            self.on_epoch_end(epoch, {"val_loss": loss})


class EarlyStopping(keras.callbacks.EarlyStopping):
    """EarlyStopping that has seen the epochs before a kill."""

    def __init__(self, patience: int, past: list[float]) -> None:
        super().__init__(patience=patience, mode="min")
        self.past = past

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        for epoch, loss in enumerate(self.past):
            self.on_epoch_end(epoch, {"val_loss": loss})
