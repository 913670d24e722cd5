"""Pictures of an evaluation, as PNG, each drawn from rows of `predictions.csv`. Colours: Okabe and Ito, 2008."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from cxr_edge import preprocess
from cxr_edge.preprocess import InputSpec
from cxr_train import metrics
from cxr_train.data import read_gray

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by all kinds of colour vision."""
RIGHT, WRONG = COLOURS[:2]
DPI = 120
GRID_COLUMNS, GRID_ROWS = 6, 4
THUMBNAIL = 192
"""Short side of the grid's pictures, pixels."""
KINDS = {
    "confusion": "Confusion matrix",
    "roc": "ROC curves",
    "precision_recall": "Precision-recall curves",
    "calibration": "Reliability diagram",
    "grid": "Pictures, worst errors first",
}
"""Stems of the PNG files and their titles."""


def draw(predictions: pd.DataFrame, figures: dict[str, Any], labels: list[str], split: str, out: Path) -> None:
    """Draw all plots of one split: `<kind>_<split>.png` for each of `KINDS`.

    Args:
        predictions: rows of `predictions.csv`.
        figures: `metrics.report` of them.
        labels: in the order in which they are shown.
    """
    title = f"{split}: {len(predictions)} pictures"
    confusion(figures["confusion_matrix"], labels, out / f"confusion_{split}.png", title)
    curves(predictions, labels, out / f"roc_{split}.png", title, precision_recall=False)
    curves(predictions, labels, out / f"precision_recall_{split}.png", title, precision_recall=True)
    calibration(predictions, labels, out / f"calibration_{split}.png", f"{title}, ECE {figures['ece']:.3f}")
    grid(predictions, out / f"grid_{split}.png", split)


def confusion(matrix: list[list[int]], labels: list[str], out: Path, title: str) -> None:
    """Draw a confusion matrix; rows are the truth, columns the prediction, int[labels][labels]."""
    side = 2.4 + 0.9 * len(labels)
    figure, axis = plt.subplots(figsize=(side + 0.4, side), layout="constrained")
    axis.imshow(matrix, cmap="Blues")
    for row, counts in enumerate(matrix):
        for column, count in enumerate(counts):
            dark = count > max(map(max, matrix)) / 2
            axis.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(labels)), labels)
    axis.set_yticks(range(len(labels)), labels, rotation=90, va="center")
    axis.set(xlabel="predicted", ylabel="truth", title=title)
    _save(figure, out)


def curves(predictions: pd.DataFrame, labels: list[str], out: Path, title: str, *, precision_recall: bool) -> None:
    """Draw ROC or precision-recall curves of each label against the rest, and of each label by origin.

    A label or an origin without positives or without negatives has no curve. Of two labels, the second is drawn.
    """
    shown = labels[1:] if len(labels) == 2 else labels
    origins = {str(name): part for name, part in predictions.groupby("origin")}
    panels: list[tuple[str, dict[str, tuple[pd.DataFrame, str]]]] = [
        ("all origins", {label: (predictions, label) for label in shown})
    ]
    if len(origins) > 1:
        panels += [(f"{label}, by origin", {name: (part, label) for name, part in origins.items()}) for label in shown]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    size = (4.6 * columns, 4.8 * rows + 0.4)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="compressed", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (name, lines) in zip(axes.flat, panels, strict=False):
        styles = cycle([(colour, style) for style in ("-", "--", ":") for colour in COLOURS])
        for (line, (part, label)), (colour, style) in zip(lines.items(), styles, strict=False):
            _curve(axis, part, label, line, precision_recall, color=colour, linestyle=style)
        if not axis.lines:
            axis.text(0.5, 0.5, "no label has both\npositives and negatives", ha="center", va="center")
        else:
            axis.legend(loc="best" if precision_recall else "lower right", fontsize=8)
        if not precision_recall:
            axis.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), title=name, box_aspect=1)
        axis.set_xlabel("recall (sensitivity)" if precision_recall else "1 - specificity")
        axis.set_ylabel("precision" if precision_recall else "sensitivity")
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, out)


def _curve(axis: Axes, rows: pd.DataFrame, label: str, name: str, precision_recall: bool, **style: Any) -> None:
    positive, p = (rows["label"] == label).to_numpy(), rows[f"p_{label}"].to_numpy(np.float64)
    (roc,), (average_precision,) = metrics.areas(rows["label"].to_numpy(str), p[:, np.newaxis], [label])
    if roc is None or average_precision is None:
        return
    if precision_recall:
        precision, recall, _ = precision_recall_curve(positive, p)
        axis.step(recall, precision, where="post", label=f"{name}, AUC {average_precision:.3f}", **style)
    else:
        false_positives, true_positives, _ = roc_curve(positive, p)
        axis.plot(false_positives, true_positives, label=f"{name}, AUC {roc:.3f}", **style)


def calibration(predictions: pd.DataFrame, labels: list[str], out: Path, title: str) -> None:
    """Draw a reliability diagram: share right against confidence, and how many pictures each bin holds."""
    truth, p = predictions["label"].to_numpy(str), metrics.probabilities(predictions, labels)
    counts, confidence, accuracy = metrics.reliability(truth, p, labels)
    edges = np.arange(len(counts)) / len(counts)
    figure, (axis, below) = plt.subplots(
        2, 1, figsize=(4.6, 5.4), layout="constrained", sharex=True, height_ratios=(3, 1)
    )
    filled = counts > 0
    axis.bar(edges[filled], accuracy[filled], 1 / len(counts), align="edge", color=COLOURS[5], edgecolor="white")
    axis.plot(confidence[filled], accuracy[filled], "o", color=WRONG, markersize=5, label="mean of each bin")
    axis.plot([0, 1], [0, 1], color="gray", linestyle=":", label="as sure as right")
    axis.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="share right", title=title)
    axis.legend(loc="upper left", fontsize=8)
    bars = below.bar(edges, counts, 1 / len(counts), align="edge", color="gray", edgecolor="white")
    below.bar_label(bars, [str(count) if count else "" for count in counts], fontsize=7)
    below.margins(y=0.2)
    below.set(xlabel="confidence (probability of the top label)", ylabel="pictures")
    _save(figure, out)


def grid(predictions: pd.DataFrame, out: Path, split: str) -> None:
    """Draw 24 pictures with truth and prediction, those first whose true label got the lowest probability.

    Raises:
        UsageError: a picture cannot be read.
    """
    true_p = [row[f"p_{row['label']}"] for row in predictions.to_dict("records")]
    worst = predictions.assign(true_p=true_p).sort_values(["true_p", "path"]).head(GRID_COLUMNS * GRID_ROWS)
    lines = -(-len(worst) // GRID_COLUMNS)
    figure, axes = plt.subplots(
        lines, GRID_COLUMNS, figsize=(2.1 * GRID_COLUMNS, 2.6 * lines + 0.5), layout="constrained", squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    spec = InputSpec(THUMBNAIL, THUMBNAIL)
    for axis, row in zip(axes.flat, worst.to_dict("records"), strict=False):
        right = row["label"] == row["predicted"]
        verdict = "right" if right else f"taken for {row['predicted']}"
        gray = read_gray(row["path"], spec)
        shrink = min(1, THUMBNAIL / min(gray.shape))
        width, height = (max(1, round(shrink * side)) for side in gray.shape[::-1])
        axis.imshow(preprocess.resize(gray, width, height), cmap="gray", vmin=0, vmax=255)
        axis.set_title(
            f"{row['label']}\n{verdict} {row['p_' + row['predicted']]:.2f}\n{Path(row['path']).name[:26]}",
            fontsize=8,
            color=RIGHT if right else WRONG,
        )
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    figure.suptitle(f"{split}: {wrong} of {len(predictions)} wrong; the lowest probabilities of the true label first")
    _save(figure, out)


def comparison(
    rows: list[dict[str, Any]], predictions: dict[str, pd.DataFrame], positive: str, split: str, out: Path
) -> None:
    """Draw accuracy with its 95 % interval and AUC of several runs, and their ROC curves if they tell two labels apart.

    Args:
        rows: as in `comparison.csv`.
        predictions: of each run, by its name.
        positive: the label whose ROC is drawn; "" for none.
    """
    panels = 3 if positive else 2
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 1.6 + 0.4 * max(len(rows), 7)), layout="constrained")
    places = np.arange(len(rows))[::-1]
    accuracy, low, high = (
        np.array([row[name] for row in rows]) for name in ("accuracy", "accuracy low", "accuracy high")
    )
    axes[0].errorbar(
        accuracy, places, xerr=np.clip([accuracy - low, high - accuracy], 0, None), fmt="o", capsize=4, color=RIGHT
    )
    for place, value in zip(places, accuracy, strict=True):
        axes[0].annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes[0].set(title="accuracy, 95 % interval")
    areas = [(place, row["AUC"]) for place, row in zip(places, rows, strict=True) if row["AUC"] is not None]
    for place, value in areas:
        axes[1].plot(value, place, "s", color=WRONG)
        axes[1].annotate(f"{value:.3f}", (value, place), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes[1].set(title="ROC AUC, mean over labels" if not positive else "ROC AUC")
    for axis in axes[:2]:
        axis.set_yticks(places, [row["run"] for row in rows])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.margins(x=0.15)
        axis.grid(alpha=0.3, axis="x")
    if positive:
        styles = cycle([(colour, style) for style in ("-", "--", ":") for colour in COLOURS])
        for (name, part), (colour, style) in zip(predictions.items(), styles, strict=False):
            _curve(axes[2], part, positive, name, precision_recall=False, color=colour, linestyle=style)
        axes[2].set(title=f"ROC of {positive}", xlabel="1 - specificity", ylabel="sensitivity")
        axes[2].grid(alpha=0.3)
        if axes[2].lines:
            axes[2].legend(loc="lower right", fontsize=8)
    figure.suptitle(split)
    _save(figure, out)


def _save(figure: Figure, out: Path) -> None:
    figure.savefig(out, dpi=DPI)
    plt.close(figure)
