"""Figures of predictions: a table of rows in, plain numbers out. Pure functions; None where a figure cannot be.

The rows are those of `predictions.csv`: `label`, `predicted`, `p_<label>` of each label, `origin`, `dice`,
`mask_entropy`, and `fold` where the run was cross-validated. All figures are rounded to 4 decimals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

CONFIDENCE = 0.95
BINS = 15
SINGLE = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "roc_auc_macro": "ROC AUC, mean over labels",
    "pr_auc_macro": "PR AUC, mean over labels",
    "ece": "ECE",
    "log_loss": "log loss",
    "dice": "lung Dice",
    "mask_entropy": "mask entropy",
    "total_loss": "total loss",
}
"""Figures that are one number for all labels together, and their names for people."""


def report(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """`figures` of all rows, with those `by_origin` and, where there are folds, `by_fold` with mean and deviation."""
    whole = figures(predictions, labels)
    whole["by_origin"] = {str(name): figures(part, labels) for name, part in predictions.groupby("origin")}
    if "fold" in predictions:
        whole["by_fold"] = folds = {str(name): figures(part, labels) for name, part in predictions.groupby("fold")}
        columns = {name: [part[name] for part in folds.values() if part[name] is not None] for name in SINGLE}
        whole["fold_mean"] = {name: _mean(values) for name, values in columns.items()}
        # Of a sample: the folds stand for others that could have been drawn.
        whole["fold_std"] = {
            name: _rounded(np.std(values, ddof=1)) if len(values) > 1 else None for name, values in columns.items()
        }
    return whole


def figures(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """All figures of some rows (at least one).

    Sensitivity, specificity, precision, F1 and the areas under curves are of one label against the rest, a dict by
    label. `accuracy_interval`, `sensitivity_interval` and `specificity_interval` are 95 % Wilson intervals.
    `balanced_accuracy` is the mean sensitivity, `*_macro` the mean area, over the labels that have one. `total_loss` is
    `log_loss` plus `mask_entropy`, None where no mask was judged.
    """
    truth, predicted = predictions["label"].to_numpy(str), predictions["predicted"].to_numpy(str)
    matrix = confusion_matrix(truth, predicted, labels=labels)
    p = probabilities(predictions, labels)
    precision, _, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=labels, average=None, zero_division=np.nan
    )
    right = np.diag(matrix)
    negatives = len(truth) - support
    rejected = negatives - (matrix.sum(axis=0) - right)
    sensitivity = [_share(k, n) for k, n in zip(right, support, strict=True)]
    specificity = [_share(k, n) for k, n in zip(rejected, negatives, strict=True)]
    roc, average_precision = areas(truth, p, labels)
    dice, entropy = (pd.to_numeric(predictions[name]).dropna() for name in ("dice", "mask_entropy"))
    loss = log_loss(truth, p, labels)
    mask_entropy = _mean(entropy)

    def by_label(values: Iterable[Any]) -> dict[str, Any]:
        return dict(zip(labels, values, strict=True))

    return {
        "pictures": len(predictions),
        "accuracy": _share(int(right.sum()), len(truth)),
        "accuracy_interval": wilson(int(right.sum()), len(truth)),
        "balanced_accuracy": _mean([k / n for k, n in zip(right, support, strict=True) if n]),
        "sensitivity": by_label(sensitivity),
        "sensitivity_interval": by_label(wilson(int(k), int(n)) for k, n in zip(right, support, strict=True)),
        "specificity": by_label(specificity),
        "specificity_interval": by_label(wilson(int(k), int(n)) for k, n in zip(rejected, negatives, strict=True)),
        "precision": by_label(map(_rounded, precision)),
        "f1": by_label(map(_rounded, f1)),
        "support": by_label(map(int, support)),
        "confusion_matrix": matrix.tolist(),
        "roc_auc": by_label(map(_rounded, roc)),
        "roc_auc_macro": _mean(roc),
        "pr_auc": by_label(map(_rounded, average_precision)),
        "pr_auc_macro": _mean(average_precision),
        "ece": _rounded(expected_calibration_error(truth, p, labels)),
        "log_loss": _rounded(loss),
        "dice": _mean(dice),
        "masks": len(dice),
        "mask_entropy": mask_entropy,
        "total_loss": None if mask_entropy is None else _rounded(loss + float(entropy.mean())),
    }


def gaps(predictions: pd.DataFrame, labels: list[str]) -> list[str]:
    """A sentence for each label that these rows can say too little about: it has no picture, or all of them."""
    counts = predictions["label"].value_counts()
    sentences = []
    for label in labels:
        if label not in counts:
            sentences.append(f"no picture has the label {label!r}, so it has no sensitivity and no curves")
        elif counts[label] == len(predictions):
            sentences.append(f"all pictures have the label {label!r}, so it has no specificity and no curves")
    return sentences


def probabilities(predictions: pd.DataFrame, labels: list[str]) -> NDArray[np.float64]:
    """The columns `p_<label>`, float64[rows, labels]."""
    return np.asarray(predictions[[f"p_{label}" for label in labels]], dtype=np.float64)


def wilson(successes: int, trials: int) -> list[float] | None:
    """95 % interval of a share, [low, high] in [0, 1]; None without trials.

    Source: Wilson, E. B., "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the
    American Statistical Association 22, 1927. It takes pictures as independent: several of one patient are not.
    """
    if not trials:
        return None
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [round(float(interval.low), 4), round(float(interval.high), 4)]


def areas(
    truth: NDArray[np.str_], p: NDArray[np.float64], labels: list[str]
) -> tuple[list[float | None], list[float | None]]:
    """Areas under the ROC and the precision-recall curve of each label against the rest.

    Args:
        truth: str[rows], the true labels.
        p: float64[rows, labels], in the order of `labels`.

    Returns:
        ROC AUC, and average precision (the step-wise sum, without interpolation); None where a label has no positive
        or no negative row.
    """
    roc: list[float | None] = []
    average_precision: list[float | None] = []
    for column, label in enumerate(labels):
        positive = truth == label
        both = 0 < int(positive.sum()) < len(truth)
        roc.append(float(roc_auc_score(positive, p[:, column])) if both else None)
        average_precision.append(float(average_precision_score(positive, p[:, column])) if both else None)
    return roc, average_precision


def log_loss(truth: NDArray[np.str_], p: NDArray[np.float64], labels: list[str]) -> float:
    """Mean negative log-likelihood of the true labels, natural logarithm; probabilities below 1e-7 count as 1e-7."""
    return float(-np.log(np.maximum(p[np.arange(len(truth)), _indices(truth, labels)], 1e-7)).mean())


def reliability(
    truth: NDArray[np.str_], p: NDArray[np.float64], labels: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows, mean top probability and share right in each of 15 equal-width bins of the top probability.

    Returns:
        int64[15], and twice float64[15] in [0, 1], 0 where a bin is empty.
    """
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == _indices(truth, labels)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    sums = (np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right))
    means = [values / np.maximum(counts, 1) for values in sums]
    return counts, means[0], means[1]


def expected_calibration_error(truth: NDArray[np.str_], p: NDArray[np.float64], labels: list[str]) -> float:
    """ECE, in [0, 1]: the mean gap between confidence and accuracy over the bins of `reliability`.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    counts, confidence, accuracy = reliability(truth, p, labels)
    return float((counts * np.abs(accuracy - confidence)).sum() / counts.sum())


def _indices(truth: NDArray[np.str_], labels: list[str]) -> NDArray[np.int64]:
    return np.array([labels.index(label) for label in truth])


def _share(successes: int, trials: int) -> float | None:
    return round(int(successes) / int(trials), 4) if trials else None


def _rounded(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else round(float(value), 4)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(float(np.mean(known))) if known else None
