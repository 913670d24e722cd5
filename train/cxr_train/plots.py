"""Pictures of a run, as PNG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def curves(log: Path, out: Path, frozen_epochs: int) -> None:
    """Draw loss, accuracy and mask Dice of each epoch, training and validation, from `training_log.csv`."""
    epochs = pd.read_csv(log)
    panels = (("loss", "loss"), ("probabilities_accuracy", "accuracy"), ("mask_dice", "mask Dice"))
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.6), layout="constrained")
    for axis, (column, title) in zip(axes, panels, strict=True):
        axis.plot(epochs["epoch"] + 1, epochs[column], label="training (augmented)")
        axis.plot(epochs["epoch"] + 1, epochs[f"val_{column}"], label="validation")
        axis.axvline(frozen_epochs + 0.5, color="gray", linestyle=":", label="fine-tuning starts")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def confusion(matrix: list[list[int]], labels: list[str], out: Path, title: str) -> None:
    """Draw a confusion matrix; rows are the truth, columns the prediction, int[labels][labels]."""
    figure, axis = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
    axis.imshow(matrix, cmap="Blues")
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            dark = count > max(map(max, matrix)) / 2
            axis.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(labels)), labels)
    axis.set_yticks(range(len(labels)), labels)
    axis.set(xlabel="predicted", ylabel="truth", title=title)
    figure.savefig(out, dpi=120)
    plt.close(figure)
