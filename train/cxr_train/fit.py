"""Two-phase fitting: the heads on a frozen backbone, then everything but batch normalisation at a low rate.

A run folder holds, besides `model.keras` and `model.json` (what `cxr-convert` needs to know of it):

    training_log.csv      one line for each epoch of both phases
    curves.png            loss and accuracy, training and validation
    frozen.weights.h5     the end of the frozen phase; a run that is started again goes on from here
    backup/               the running phase at its last whole epoch, from which a killed run goes on
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import pandas as pd

from cxr_edge import __version__
from cxr_edge.errors import UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import backup, network, plots, table
from cxr_train.data import Radiographs
from cxr_train.losses import JudgedDice, JudgedMaskLoss


@dataclass(frozen=True)
class Settings:
    """What a run is made with; rates are Adam's, the fine-tuning's falls to zero along a cosine."""

    labels: tuple[str, ...] = ()
    size: int = 224
    alpha: float = 1.0
    weights: str | None = "imagenet"
    batch: int = 32
    frozen_epochs: int = 3
    frozen_rate: float = 1e-3
    fine_epochs: int = 20
    fine_rate: float = 2e-4
    dropout: float = 0.2
    seed: int = 0


def fit(table_file: Path, out: Path, settings: Settings) -> Path:
    """Train on the table's `train` rows, keep the epoch with the lowest validation loss, return `out/model.keras`.

    Raises:
        UsageError: the size does not fit the network, a split is empty, or a label of the table is unknown.
    """
    if settings.size % 32 or settings.size < 64:
        raise UsageError(f"the input's side of {settings.size} pixels is no multiple of 32 from 64 on", "set --size")
    rows = table.read(table_file)
    training, validation = (rows[rows["split"] == name] for name in ("train", "validation"))
    labels = list(settings.labels) or sorted(training["label"].unique())
    _check(training, validation, labels, table_file)
    keras.utils.set_random_seed(settings.seed)
    spec = InputSpec(settings.size, settings.size)
    model = network.build(
        len(labels), size=settings.size, alpha=settings.alpha, weights=settings.weights, dropout=settings.dropout
    )
    out.mkdir(parents=True, exist_ok=True)
    description = describe(table_file, rows, labels, spec, settings)
    _refuse_other_run(out / "model.json", description)
    (out / "model.json").write_text(json.dumps(description, indent=2) + "\n")

    batches = Radiographs(training, labels, spec, batch=settings.batch, seed=settings.seed, training=True)
    held_out = Radiographs(validation, labels, spec, batch=settings.batch)
    phase = Phase(model, batches, held_out, out)
    frozen = out / "frozen.weights.h5"
    if not frozen.exists():
        network.set_trainable(model, fine_tune=False)
        phase.run(keras.optimizers.Adam(settings.frozen_rate), 0, settings.frozen_epochs)
        model.save_weights(out / "unfinished.weights.h5")
        (out / "unfinished.weights.h5").replace(frozen)
    model.load_weights(frozen)

    last = settings.frozen_epochs + settings.fine_epochs
    losses = _logged_losses(out / "training_log.csv", settings.frozen_epochs)
    if last - 1 not in losses.index:
        network.set_trainable(model, fine_tune=True)
        rate = keras.optimizers.schedules.CosineDecay(settings.fine_rate, settings.fine_epochs * len(batches))
        best = keras.callbacks.ModelCheckpoint(
            out / "model.keras",
            monitor="val_loss",
            save_best_only=True,
            initial_value_threshold=None if losses.empty else float(losses.min()),
        )
        phase.run(keras.optimizers.Adam(rate), settings.frozen_epochs, last, best)
    plots.curves(out / "training_log.csv", out / "curves.png", settings.frozen_epochs)
    return out / "model.keras"


@dataclass(frozen=True)
class Phase:
    """What both phases share: model, data and run folder."""

    model: keras.Model
    batches: Radiographs
    held_out: Radiographs
    out: Path

    def run(
        self, optimizer: keras.optimizers.Optimizer, first: int, last: int, *more: keras.callbacks.Callback
    ) -> None:
        """Train the epochs `first` to `last` (counted from 0, the last excluded), resuming from a back-up if any."""
        self.model.compile(
            optimizer=optimizer,
            loss={
                "probabilities": keras.losses.CategoricalCrossentropy(label_smoothing=0.05),
                "mask": JudgedMaskLoss(),
            },
            metrics={"probabilities": ["accuracy"], "mask": [JudgedDice()]},
        )
        log, backups = self.out / "training_log.csv", self.out / "backup"
        self.model.fit(
            self.batches,
            initial_epoch=backup.resume(self.model, backups, log, first),
            epochs=last,
            validation_data=self.held_out,
            verbose=2,
            callbacks=[
                keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: self.batches.start(epoch)),
                # In this order a run that is killed while it saves a model has not logged the epoch yet, and runs it
                # again: a logged loss always has its model.
                *more,
                keras.callbacks.CSVLogger(log, append=True),
                backup.Backup(backups),
            ],
        )
        backup.clear(backups)


def describe(
    table_file: Path, rows: pd.DataFrame, labels: list[str], spec: InputSpec, settings: Settings
) -> dict[str, object]:
    """What must be known of a trained model besides its weights: labels, input, data with licences, settings."""
    seen = rows[rows["split"].isin(("train", "validation"))]
    weights = Path(settings.weights).name if settings.weights else None
    return {
        "labels": labels,
        "input": asdict(spec),
        "training": {**asdict(settings), "labels": labels, "weights": weights},
        "table_sha256": table.digest(table_file),
        "data": seen.groupby(["origin", "label", "split"]).size().rename("pictures").reset_index().to_dict("records"),
        "licences": seen.groupby(["origin", "licence"]).size().rename("pictures").reset_index().to_dict("records"),
        "tool": f"cxr-edge {__version__}, keras {keras.__version__} on {keras.backend.backend()}",
    }


def _logged_losses(log: Path, first: int) -> pd.Series:
    """Validation losses by epoch, from epoch `first` on, that a run before this one has logged."""
    if not log.exists():
        return pd.Series(dtype=float)
    losses = pd.read_csv(log).set_index("epoch")["val_loss"]
    return losses[losses.index >= first]


def _check(training: pd.DataFrame, validation: pd.DataFrame, labels: list[str], table_file: Path) -> None:
    for name, rows in (("train", training), ("validation", validation)):
        if rows.empty:
            raise UsageError(f"{table_file}: the split {name!r} is empty", "make the table with: cxr-train table")
        if unknown := sorted(set(rows["label"]) - set(labels)):
            raise UsageError(f"{table_file}: labels {unknown} are not among {labels}", "name them all in --labels")
    if absent := sorted(set(labels) - set(training["label"])):
        raise UsageError(f"{table_file}: no training picture has the label {absent}", "check --labels")


def _refuse_other_run(file: Path, description: dict[str, object]) -> None:
    if file.exists() and json.loads(file.read_text()) != json.loads(json.dumps(description)):
        raise UsageError(f"{file.parent} holds a run with another table or other settings", "choose another --out")
