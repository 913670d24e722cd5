"""Figures of the shortcut audit: rows of its `predictions.csv` and embeddings in, plain numbers out. Pure functions.

Figures are rounded to 4 decimals, None where one cannot be. Intervals are 95 %: of accuracies Wilson's, of areas
Newcombe's, which take pictures as independent; of shares and of the origin's balanced accuracy by resampling groups.
"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cxr_train import metrics
from cxr_train.audit_views import VIEWS, WHOLE

AGES = {"under 18": 18, "18 to 39": 40, "40 to 64": 65, "65 and over": 121}
"""Age groups, and the age in years that each ends before. None that lives is older than 120: 999 is no age."""
UNKNOWN_AGE = "not known"
CONTRAST = 5
"""Pictures of each of two labels that an origin must have for a contrast: with fewer, its interval says nothing."""
RESAMPLES = 1000
FOLDS = 5
PROBED = 2 * FOLDS
"""Groups that an origin must have, so that each fold of the probe has some of it to learn from and to judge."""


def figures(predictions: pd.DataFrame, labels: list[str], embedding: NDArray[np.float32] | None) -> dict[str, Any]:
    """All figures of an audit.

    Args:
        predictions: rows as `audit.judge` returns them.
        labels: of the model, in the order of its outputs.
        embedding: float32[pictures, d], by the column `picture`; None where the model's is not known.

    Returns:
        `guessing`, `views`, `contrasts`, each as the function of its name returns them; `lungs`, the pictures whose
        lungs are known from a truth mask or the model's own; `by_origin` and `by_age`, for each origin and age group
        its `guessing` and `views` (`by_age` is None where no age is known); `origin_rule` and `age_rule`, see
        `rule_of`; `embedding`, see `probe`, of `all` pictures and `by_label`, or None.
    """
    whole = predictions[predictions["view"] == WHOLE]
    aged = predictions[~predictions["age_group"].isin(["", UNKNOWN_AGE])]
    by_age = [(name, aged[aged["age_group"] == name]) for name in AGES if name in set(aged["age_group"])]
    return {
        "guessing": guessing(whole),
        "lungs": {str(name) or "unknown": int(count) for name, count in whole["lungs"].value_counts().items()},
        "views": views(predictions, labels),
        "origin_rule": rule_of(whole, "origin"),
        "by_origin": {str(name): _part(part, labels) for name, part in predictions.groupby("origin")},
        "contrasts": contrasts(predictions, labels),
        "age_rule": rule_of(aged[aged["view"] == WHOLE], "age_group") if by_age else None,
        "by_age": {name: _part(part, labels) for name, part in by_age} or None,
        "age_unknown": int((whole["age_group"] == UNKNOWN_AGE).sum()),
        "embedding": None if embedding is None else _probes(whole, embedding),
    }


def age_group(age: str) -> str:
    """The age group of a cell: years ('58', '58.5', '058Y'), or months, weeks, days as in DICOM ('006M')."""
    number, unit = age.strip().rstrip("YyMmWwDd"), age.strip().lstrip("0123456789.").upper()
    try:
        years = float(number) / {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}[unit]
    except (ValueError, KeyError):
        return UNKNOWN_AGE
    return next((name for name, end in AGES.items() if 0 <= years < end), UNKNOWN_AGE)


def guessing(whole: pd.DataFrame) -> dict[str, Any]:
    """What always answering the commonest label gives: `label`, `share` (its accuracy); and `chance`, 1 / labels there.

    Args:
        whole: one row a picture, at least one.
    """
    counts = whole["label"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    share = float(counts.iloc[0]) / len(whole)
    return {"label": str(counts.index[0]), "share": round(share, 4), "chance": round(1 / len(counts), 4)}


def rule_of(whole: pd.DataFrame, column: str) -> float:
    """Accuracy of a rule that sees no picture: of each origin or age group, answer the commonest label.

    It is counted on the very pictures that it is made from, so it is the most that such a rule can give.
    """
    commonest = whole.groupby(column)["label"].agg(lambda part: int(part.value_counts().iloc[0]))
    return round(float(commonest.sum()) / len(whole), 4)


def views(predictions: pd.DataFrame, labels: list[str]) -> dict[str, dict[str, Any]]:
    """Figures of each view that there is: `metrics.figures`, and what remains of the whole picture's.

    `remaining` compares with the whole of the same pictures; None of the whole itself. It has `excess`, by which the
    accuracy of the whole exceeds guessing; `left`, the same of the view; `share`, left / excess, and its 95 %
    `interval` over groups; and `area_share`, the same of ROC AUC over 0.5. Shares are None where the whole's own
    interval reaches down to guessing or 0.5. `roc_auc_interval` is the mean of the labels' intervals, which is wider
    than it need be.
    """
    whole = predictions[predictions["view"] == WHOLE].set_index("picture")
    answer: dict[str, dict[str, Any]] = {}
    for name in VIEWS:
        view = predictions[predictions["view"] == name].set_index("picture")
        if view.empty:
            continue
        found = metrics.figures(view, labels)
        answer[name] = found | {"roc_auc_interval": _macro_interval(view, labels), "remaining": None}
        if name != WHOLE:
            answer[name]["remaining"] = _remaining(whole.loc[view.index], view, labels)
    return answer


def _remaining(whole: pd.DataFrame, view: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    guess = guessing(whole)
    found, shown = metrics.figures(whole, labels), metrics.figures(view, labels)
    share = interval = area_share = None
    if found["accuracy_interval"][0] > guess["share"]:
        right = [part["label"] == part["predicted"] for part in (whole, view)]
        counted = np.stack([*right, whole["label"] == guess["label"]], axis=1).astype(np.float64)
        sums = resampled(counted, whole["group"].to_numpy(str))
        above = sums[sums[:, 0] > sums[:, 2]]
        shares = (above[:, 1] - above[:, 2]) / (above[:, 0] - above[:, 2])
        share = (shown["accuracy"] - guess["share"]) / (found["accuracy"] - guess["share"])
        interval = [round(float(end), 4) for end in np.percentile(shares, (2.5, 97.5))]
    area = _macro_interval(whole, labels)
    if area is not None and area[0] > 0.5:
        area_share = (shown["roc_auc_macro"] - 0.5) / (found["roc_auc_macro"] - 0.5)
    return {
        "excess": round(found["accuracy"] - guess["share"], 4),
        "left": round(shown["accuracy"] - guess["share"], 4),
        "share": None if share is None else round(share, 4),
        "interval": interval,
        "area_share": None if area_share is None else round(area_share, 4),
    }


def resampled(values: NDArray[np.float64], groups: NDArray[np.str_]) -> NDArray[np.float64]:
    """Sums of float64[rows, k] over 1,000 resamples of whole groups, float64[1000, k]; the same in every run.

    Source: the cluster bootstrap, Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8.
    """
    _, numbers = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(numbers, weights=column) for column in values.T], axis=1)
    rng = np.random.default_rng(0)
    return np.stack([sums[rng.integers(len(sums), size=len(sums))].sum(axis=0) for _ in range(RESAMPLES)])


def _macro_interval(view: pd.DataFrame, labels: list[str]) -> list[float] | None:
    areas, _ = metrics.areas(view["label"].to_numpy(str), metrics.probabilities(view, labels), labels)
    counts = [int((view["label"] == label).sum()) for label in labels]
    bounds = [newcombe(a, n, len(view) - n) for a, n in zip(areas, counts, strict=True) if a is not None]
    return [round(float(end), 4) for end in np.mean(bounds, axis=0)] if bounds else None


def newcombe(area: float, positives: int, negatives: int) -> list[float]:
    """95 % interval of an area under a ROC curve, [low, high] in [0, 1]; as Wilson's, it has a width at 0 and 1 too.

    Source: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006, method 5.
    """
    z = float(norm.ppf(0.5 + metrics.CONFIDENCE / 2))
    middle = (positives + negatives) / 2 - 1

    def beyond(theta: float) -> float:
        spread = 1 + middle * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (theta - area) ** 2 - z * z * theta * (1 - theta) * spread / (positives * negatives)

    # Exactly 0 and 1 are roots of their own, but not the ones that are looked for.
    low = float(brentq(beyond, 0, min(area, 1 - 1e-9))) if area > 0 else 0.0
    high = float(brentq(beyond, max(area, 1e-9), 1)) if area < 1 else 1.0
    return [round(low, 4), round(high, 4)]


def _part(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    parts = dict(list(predictions.groupby("view")))
    whole = parts[WHOLE]
    return {
        "guessing": guessing(whole),
        "support": {label: int((whole["label"] == label).sum()) for label in labels},
        "views": {name: _short(metrics.figures(parts[name], labels)) for name in VIEWS if name in parts},
    }


def _short(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("pictures", "accuracy", "accuracy_interval", "balanced_accuracy")}


def contrasts(predictions: pd.DataFrame, labels: list[str]) -> list[dict[str, Any]]:
    """How well the model tells two labels apart inside one origin: what no shortcut between hospitals can inflate.

    Returns:
        For each origin and pair of labels that both have at least 5 pictures there: `origin`, `labels` (a, b),
        `pictures` (of a, of b), and for each view `auc`, of p_b / (p_a + p_b) telling b from a, with its `interval`.
        A view has it only where both labels have 5 pictures in it, too.
    """
    answer = []
    for origin, part in predictions.groupby("origin"):
        for a, b in combinations(labels, 2):
            views = {name: told_apart(part[part["view"] == name], a, b) for name in VIEWS}
            found = {name: told for name, told in views.items() if told is not None}
            if WHOLE in found:
                pictures = found[WHOLE]["pictures"]
                answer.append({"origin": str(origin), "labels": [a, b], "pictures": pictures, "views": found})
    return answer


def told_apart(rows: pd.DataFrame, a: str, b: str) -> dict[str, Any] | None:
    """How well label b is told from label a: `auc` of p_b / (p_a + p_b), its `interval`, `pictures` (of a, of b).

    None where either label has fewer than 5 pictures.
    """
    rows = rows[rows["label"].isin((a, b))]
    positive = (rows["label"] == b).to_numpy()
    counts = [int((~positive).sum()), int(positive.sum())]
    if min(counts) < CONTRAST:
        return None
    p_a, p_b = (rows[f"p_{label}"].to_numpy(np.float64) for label in (a, b))
    # Both may be 0 where a third label has all: then neither is likelier.
    odds = np.where(p_a + p_b > 0, p_b / np.maximum(p_a + p_b, 1e-300), 0.5)
    area = float(roc_auc_score(positive, odds))
    return {"auc": round(area, 4), "interval": newcombe(area, *counts), "pictures": counts}


def _probes(whole: pd.DataFrame, embedding: NDArray[np.float32]) -> dict[str, Any]:
    values = embedding[whole["picture"].to_numpy(np.int64)]
    origins, groups = whole["origin"].to_numpy(str), whole["group"].to_numpy(str)
    by_label = {}
    for label in sorted(set(whole["label"])):
        chosen = (whole["label"] == label).to_numpy()
        if found := probe(values[chosen], origins[chosen], groups[chosen]):
            by_label[str(label)] = found
    return {"dimensions": values.shape[1], "all": probe(values, origins, groups), "by_label": by_label}


def probe(values: NDArray[np.float32], origins: NDArray[np.str_], groups: NDArray[np.str_]) -> dict[str, Any] | None:
    """How well origin can be told from embeddings: logistic regression, judged on groups that it did not learn from.

    Args:
        values: float32[rows, d]; standardised here, on the rows that are learnt from.
        origins: str[rows]. Those with fewer than 10 groups are left out.
        groups: str[rows].

    Returns:
        `origins` (pictures of each), `balanced_accuracy` of 5 folds together with its 95 % `interval` over groups, and
        `chance`, 1 / origins. None where fewer than two origins are left.

    Source: Alain and Bengio, "Understanding intermediate layers using linear classifier probes", 2016.
    """
    sizes = {str(name): len(set(groups[origins == name])) for name in np.unique(origins)}
    names = [name for name, size in sizes.items() if size >= PROBED]
    if len(names) < 2:
        return None
    chosen = np.isin(origins, names)
    values, origins, groups = values[chosen], origins[chosen], groups[chosen]
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    # Strongly regularised: embeddings have more dimensions than many tables have pictures.
    regression = LogisticRegression(C=0.01, class_weight="balanced", max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        told = cross_val_predict(make_pipeline(StandardScaler(), regression), values, origins, groups=groups, cv=folds)
    member = np.stack([origins == name for name in names], axis=1)
    right = member & (told == origins)[:, np.newaxis]
    sums = resampled(np.concatenate([right, member], axis=1).astype(np.float64), groups)
    recalls = sums[:, : len(names)] / np.maximum(sums[:, len(names) :], 1)
    return {
        "origins": {name: int(count) for name, count in zip(names, member.sum(axis=0), strict=True)},
        "balanced_accuracy": round(float((right.sum(axis=0) / member.sum(axis=0)).mean()), 4),
        "interval": [round(float(end), 4) for end in np.percentile(recalls.mean(axis=1), (2.5, 97.5))],
        "chance": round(1 / len(names), 4),
    }
