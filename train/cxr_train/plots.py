"""Pictures of a run, as PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CURVES = {"loss": "loss", "accuracy": "accuracy", "auc": "AUC", "mask_dice": "mask Dice"}
"""Columns of `training_log.csv` that are drawn, and their titles."""


def curves(log: Path, out: Path) -> None:
    """Draw loss, accuracy, AUC and, where there is one, mask Dice of each epoch from `training_log.csv`."""
    epochs = pd.read_csv(log)
    # Keras names metrics with their output only where a network has several.
    names = {column.removeprefix("probabilities_"): column for column in epochs.columns}
    names |= {column: column for column in epochs.columns}
    panels = [(names[key], title) for key, title in CURVES.items() if key in names]
    figure, axes = plt.subplots(1, len(panels), figsize=(4 * len(panels), 3.6), layout="constrained")
    for axis, (column, title) in zip(axes, panels, strict=True):
        axis.plot(epochs["epoch"] + 1, epochs[column], label="training (augmented)")
        axis.plot(epochs["epoch"] + 1, epochs[f"val_{column}"], label="validation")
        if (frozen := (epochs["phase"] == "frozen").sum()) not in (0, len(epochs)):
            axis.axvline(frozen + 0.5, color="gray", linestyle=":", label="fine-tuning starts")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)
