"""Back-ups of a running phase, so that a killed run goes on from its last whole epoch.

    backup/epoch-0007.weights.h5   weights and optimizer at the end of epoch 7 (from 0), renamed into place when whole

Keras's own BackupAndRestore overwrites its only file in place: a run killed at that moment cannot be resumed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import keras
import pandas as pd


class Backup(keras.callbacks.Callback):
    """Saves the model at the end of each epoch; put it last, so that what it has, the log has as well."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, then remove the epoch before."""
        self.folder.mkdir(exist_ok=True)
        unfinished = self.folder / "unfinished.weights.h5"
        self.model.save_weights(unfinished, overwrite=True)
        unfinished.replace(self.folder / f"epoch-{epoch:04}.weights.h5")
        for older in self.folder.glob("epoch-*"):
            if _epoch(older) < epoch:
                older.unlink()


def resume(model: keras.Model, folder: Path, log: Path, first: int) -> int:
    """Bring a compiled model to its last back-up, and cut from `log` what a killed run logged after that.

    Returns:
        The epoch to go on with: the one after the back-up, or `first`, with the model unchanged, where there is none.
    """
    backups = sorted(folder.glob("epoch-*"))
    if backups:
        # Its variables must exist before they can be loaded.
        model.optimizer.build(model.trainable_variables)
        model.load_weights(backups[-1])
        first = _epoch(backups[-1]) + 1
    if log.exists():
        lines = pd.read_csv(log, dtype=str)
        lines[lines["epoch"].astype(int) < first].to_csv(log, index=False)
    return first


def clear(folder: Path) -> None:
    """Remove the back-ups of a phase that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def _epoch(file: Path) -> int:
    return int(file.name.removeprefix("epoch-").split(".")[0])
