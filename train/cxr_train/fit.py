"""Two-phase fitting: the heads on a frozen backbone, then the backbone but its batch normalisation at a low rate.

A run folder holds, besides `model.keras` and `model.json` (what `cxr-convert` and `evaluate` need to know of it):

    training_log.csv      one line for each epoch of both phases; the same in every run with the same seed
    resources.csv         seconds, images per second, CPU and memory of each epoch
    curves.png            loss and accuracy, training and validation
    frozen.npz            the best epoch of the frozen phase; fine-tuning starts from it
    backup/               the running phase at its last whole epoch, from which a killed run goes on
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from cxr_edge import __version__
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import backup, balance, callbacks, network, plots, table
from cxr_train.data import Drawing, Radiographs, Target
from cxr_train.losses import JudgedDice, JudgedMaskLoss
from cxr_train.monitor import ResourceMonitor
from cxr_train.presets import Settings


def fit(table_file: Path, out: Path, settings: Settings) -> Path:
    """Train on the table's `train` rows, keep the epoch with the lowest validation loss, return `out/model.keras`.

    Raises:
        UsageError: settings and table do not fit, a split or a label has no picture, or the loss is no number.
        OutputUnwritable: the run folder cannot be written; what was saved before stays.
    """
    return fit_rows(table.read(table_file), str(table_file), out, settings, table.digest(table_file))


def fit_rows(rows: pd.DataFrame, name: str, out: Path, settings: Settings, digest: str) -> Path:
    """`fit`, for rows already read: `name` is for messages, `digest` of the table's file."""
    training, validation = (rows[rows["split"] == split] for split in ("train", "validation"))
    labels = list(settings.labels) or sorted(training["label"].unique())
    _check(training, validation, labels, name)
    if not settings.fine_epochs and (not settings.frozen_epochs or settings.network.startswith("cnn")):
        raise UsageError("there is no epoch to train", "set --fine-epochs to 1 or more")
    if settings.balance == "undersample":
        training = balance.under_sample(training, settings.per_class, settings.seed)
    keras.backend.clear_session()
    keras.utils.set_random_seed(settings.seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    net = network.build(settings, len(labels))
    spec = InputSpec(settings.size, settings.size)
    target = Target(tuple(labels), settings.task, "mask" in net.model.output)
    if target.mask and not training["mask"].any():
        sentence = f"{name}: no training picture has a lung mask, which the network {settings.network} learns from"
        raise UsageError(sentence, "name --mask-column to cxr-train table, or take another preset")
    drawing = Drawing(settings.balance, settings.augmentation, settings.seed)
    run = Run(
        net,
        settings,
        Radiographs(training, target, spec, batch=settings.batch, drawing=drawing),
        Radiographs(validation, target, spec, batch=settings.batch),
        out,
    )
    seen = pd.concat([training, validation])
    try:
        _describe_run(out, describe(seen, digest, labels, spec, settings, net.model))
        run.phases()
    except OSError as error:
        raise OutputUnwritable(
            f"{out} cannot be written ({error.strerror or error}); what was saved before is whole",
            "free some space and start the same command again: it goes on from the last epoch",
        ) from error
    return out / "model.keras"


@dataclass(frozen=True)
class Run:
    """One run: a network, what it is taught with, and where it is kept."""

    net: network.Network
    settings: Settings
    training: Radiographs
    validation: Radiographs
    out: Path

    def phases(self) -> None:
        """Run both phases, or what a killed run left of them."""
        settings, frozen = self.settings, self.out / "frozen.npz"
        if self.net.backbone and settings.frozen_epochs:
            if not frozen.exists():
                self.net.set_trainable(fine_tune=False)
                self._phase("frozen", settings.frozen_epochs, settings.frozen_rate)
                self.net.model.load_weights(self.out / "model.keras")
                backup.save(frozen, self.net.model.variables)
                backup.clear(self.out / "backup")
            backup.load(frozen, self.net.model.variables)
        if settings.fine_epochs:
            self.net.set_trainable(fine_tune=True, fine_layers=settings.fine_layers)
            self._phase("fine", settings.fine_epochs, settings.fine_rate)
            backup.clear(self.out / "backup")
        plots.curves(self.out / "training_log.csv", self.out / "curves.png")

    def _phase(self, name: str, epochs: int, rate: float) -> None:
        """Train one phase to its end, resuming from a back-up if there is one."""
        log, backups, settings = self.out / "training_log.csv", self.out / "backup", self.settings
        if _ended(_losses(log, name), epochs, settings.patience):
            return
        schedule: Any = rate
        if settings.schedule == "cosine" and name == "fine":
            schedule = keras.optimizers.schedules.CosineDecay(rate, epochs * len(self.training))
        taught = self.net.taught
        self._compile(taught, keras.optimizers.Adam(schedule))
        first = len(_losses(log)) - len(_losses(log, name))
        start = backup.resume(taught, backups, log, first)
        past = _losses(log, name)
        adaptive: list[Any] = []
        if schedule is rate:
            adaptive.append(callbacks.Plateau(rate, past))
        if settings.patience:
            adaptive.append(callbacks.EarlyStopping(settings.patience, past))
        taught.fit(
            self.training.dataset(start),
            steps_per_epoch=len(self.training),
            shuffle=False,
            initial_epoch=start,
            epochs=first + epochs,
            validation_data=self.validation.dataset(),
            verbose=0,
            callbacks=[
                callbacks.Epoch(taught, settings.seed, name),
                callbacks.NoNan(self.out / "model.keras", rate),
                backup.Best(self.net.model, self.out / "model.keras", min(_losses(log), default=math.inf)),
                *adaptive,
                ResourceMonitor(self.out / "resources.csv", self.training, first + epochs),
                keras.callbacks.CSVLogger(log, append=True),
                backup.Backup(backups),
            ],
        )

    def _compile(self, taught: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        binary, smoothing = self.settings.task == "sigmoid", self.settings.label_smoothing
        entropy = keras.losses.BinaryCrossentropy if binary else keras.losses.CategoricalCrossentropy
        losses: dict[str, Any] = {"probabilities": entropy(label_smoothing=smoothing)}
        metrics: dict[str, list[Any]] = {
            "probabilities": [
                keras.metrics.BinaryAccuracy("accuracy") if binary else keras.metrics.CategoricalAccuracy("accuracy"),
                keras.metrics.Precision(name="precision"),
                keras.metrics.Recall(name="recall"),
                keras.metrics.AUC(name="auc"),
            ]
        }
        if "mask" in taught.output:
            losses["mask"] = JudgedMaskLoss()
            metrics["mask"] = [JudgedDice()]
        taught.compile(optimizer=optimizer, loss=losses, metrics=metrics)


def _losses(log: Path, phase: str = "") -> list[float]:
    """Validation losses that are logged, of one phase or of all."""
    lines = backup.read_log(log)
    return [float(loss) for loss in (lines["val_loss"][lines["phase"] == phase] if phase else lines["val_loss"])]


def _ended(losses: list[float], epochs: int, patience: int) -> bool:
    """Whether a phase with these validation losses has run all its epochs, or was stopped early."""
    if len(losses) >= epochs:
        return True
    return bool(losses and patience) and len(losses) - 1 - losses.index(min(losses)) >= patience


def describe(
    seen: pd.DataFrame, digest: str, labels: list[str], spec: InputSpec, settings: Settings, model: keras.Model
) -> dict[str, object]:
    """What must be known of a trained model besides its weights: labels, input, data with licences, settings."""
    weights = Path(settings.weights).name if settings.weights else None
    return {
        "labels": labels,
        "task": settings.task,
        "input": asdict(spec),
        "parameters": model.count_params(),
        "training": {**asdict(settings), "labels": labels, "weights": weights},
        "table_sha256": digest,
        "data": seen.groupby(["origin", "label", "split"]).size().rename("pictures").reset_index().to_dict("records"),
        "licences": seen.groupby(["origin", "licence"]).size().rename("pictures").reset_index().to_dict("records"),
        "tool": f"cxr-edge {__version__}, keras {keras.__version__} on {keras.backend.backend()}",
    }


def _describe_run(out: Path, description: dict[str, object]) -> None:
    """Write `model.json`, or refuse a folder that holds another run."""
    file = out / "model.json"
    if file.exists() and json.loads(file.read_text()) != json.loads(json.dumps(description)):
        raise UsageError(f"{out} holds a run with another table or other settings", "choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / "unfinished-model.json"
    unfinished.write_text(json.dumps(description, indent=2) + "\n")
    unfinished.replace(file)


def _check(training: pd.DataFrame, validation: pd.DataFrame, labels: list[str], name: str) -> None:
    for split, rows in (("train", training), ("validation", validation)):
        if rows.empty:
            raise UsageError(f"{name}: the split {split!r} is empty", "make the table with: cxr-train table")
        if unknown := sorted(set(rows["label"]) - set(labels)):
            raise UsageError(f"{name}: labels {unknown} are not among {labels}", "name them all in --labels")
        if absent := sorted(set(labels) - set(rows["label"])):
            raise UsageError(f"{name}: no picture of the split {split!r} has the label {absent}", "check --labels")
    if len(labels) < 2:
        raise UsageError(f"{name}: all training pictures have the label {labels[0]!r}", "add pictures of another label")
