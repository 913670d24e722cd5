"""What a run keeps while it runs, so that a kill, a full disk or a diverging loss costs one epoch at most.

    model.keras             the epoch with the lowest validation loss so far
    backup/epoch-0007.npz   weights and optimizer at the end of epoch 7 (from 0) of the running phase

Both are written beside and renamed into place when whole: Keras's own ModelCheckpoint and BackupAndRestore overwrite
their only file, and a kill at that moment leaves nothing. At the end of an epoch the model is saved first, then the
epoch is logged, then it is backed up: what has a back-up is logged, and a logged loss always has its model.
"""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd


class Best(keras.callbacks.Callback):
    """Saves `whole`, which holds the model that is fitted, at each epoch whose `val_loss` is below `best` so far."""

    def __init__(self, whole: keras.Model, file: Path, best: float) -> None:
        super().__init__()
        self.whole, self.file, self.best = whole, file, best

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, if it is the best so far."""
        loss = float((logs or {})["val_loss"])
        if loss < self.best:
            unfinished = self.file.with_name(f"unfinished-{self.file.name}")
            self.whole.save(unfinished)
            unfinished.replace(self.file)
            self.best = loss


class Backup(keras.callbacks.Callback):
    """Saves weights and optimizer at the end of each epoch; put it last."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Save, then remove the epoch before."""
        self.folder.mkdir(exist_ok=True)
        save(self.folder / f"epoch-{epoch:04}.npz", [*self.model.variables, *self.model.optimizer.variables])
        for older in self.folder.glob("epoch-*"):
            if _epoch(older) < epoch:
                older.unlink()


def save(file: Path, variables: list[keras.Variable]) -> None:
    """Save the values of variables, in their order, whole or not at all.

    Not in HDF5: on a full disk its library prints thousands of lines from its destructors.
    """
    unfinished = file.with_name("unfinished.npz")
    np.savez(unfinished, **{f"{number:05}": variable.numpy() for number, variable in enumerate(variables)})
    unfinished.replace(file)


def load(file: Path, variables: list[keras.Variable]) -> None:
    """Give variables the values that `save` wrote of the same ones."""
    with np.load(file) as values:
        for variable, name in zip(variables, sorted(values), strict=True):
            variable.assign(values[name])


def resume(model: keras.Model, folder: Path, log: Path, first: int) -> int:
    """Bring a compiled model to its last back-up, and cut from `log` what a killed run logged after that.

    Returns:
        The epoch to go on with: the one after the back-up, or `first`, with the model unchanged, where there is none.
    """
    backups = sorted(folder.glob("epoch-*"))
    if backups:
        # Its variables must exist before they can be loaded.
        model.optimizer.build(model.trainable_variables)
        load(backups[-1], [*model.variables, *model.optimizer.variables])
        first = _epoch(backups[-1]) + 1
    lines = read_log(log)
    kept = lines[lines["epoch"].astype(int) < first]
    if kept.empty:
        log.unlink(missing_ok=True)
    else:
        unfinished = log.with_name(f"unfinished-{log.name}")
        # With the line ends that csv, and so CSVLogger, writes.
        kept.to_csv(unfinished, index=False, lineterminator="\r\n")
        unfinished.replace(log)
    return first


def read_log(log: Path) -> pd.DataFrame:
    """Whole lines of a `training_log.csv`, as text; none where there is no file, or a full disk left it empty."""
    text = log.read_text() if log.exists() else ""
    whole = text[: text.rfind("\n") + 1] or "epoch,phase,val_loss\n"
    return pd.read_csv(io.StringIO(whole), dtype=str, keep_default_na=False)


def clear(folder: Path) -> None:
    """Remove the back-ups of a phase that has ended."""
    shutil.rmtree(folder, ignore_errors=True)


def _epoch(file: Path) -> int:
    return int(file.name.removeprefix("epoch-").split(".")[0])
