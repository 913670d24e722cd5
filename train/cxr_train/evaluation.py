"""Evaluation: `predictions.csv` first, one row a picture; every figure and plot is computed from that file alone.

So a summary cannot contradict the pictures, and the order in which pictures are read cannot matter.

    predictions.csv       path, label, origin, group, split, predicted, p_<label>..., dice, mask_entropy; sorted
    evaluation.json       figures of each split, whole, by origin and by fold, and what was judged with what
    *_<split>.png         confusion matrix, curves, reliability diagram, and a grid of pictures, worst errors first
    report.html           all of it on one page
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cxr_edge import __version__, masks
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import evaluation_plots, metrics, models, report, table
from cxr_train.data import MASK_STRIDE, mask_truth, read_gray
from cxr_train.models import Predictor

SPLITS = ("validation", "test", "external")
"""Judged where there are such rows, unless others are asked for, and told in this order."""
BATCH = 32
MASK_THRESHOLD = 0.5
KEPT = ("path", "label", "origin", "group", "split")


def evaluate(
    model_file: Path,
    table_file: Path,
    out: Path,
    splits: Sequence[str] = (),
    labels: tuple[str, ...] = (),
    pixels: str = "",
) -> list[str]:
    """Judge rows of a table with any model and write all about it to `out`; return lines for the terminal.

    Args:
        splits: which rows; without any, validation, test and external where there are such.
        labels, pixels: of somebody else's Keras model, see `models.load`.

    Raises:
        UsageError: the model, the table, a picture or a split cannot be used.
        ModelRefused: as `models.load`.
        OutputUnwritable: `out` cannot be written.
    """
    predictor = models.load(model_file, labels, pixels)
    rows = choose(predictor, table_file, splits)
    about = describe(model_file, predictor, pixels, table_file, rows)
    return write(predict(predictor, rows), list(predictor.labels), out, about)


def choose(predictor: Predictor, table_file: Path, splits: Sequence[str]) -> pd.DataFrame:
    """Rows of a table that are to be judged: of `splits`, or without any of validation, test and external.

    Raises:
        UsageError: the table cannot be used, a split is empty, or the model lacks a label.
    """
    rows = _chosen(table.read(table_file), splits, table_file)
    if unknown := sorted(set(rows["label"]) - set(predictor.labels)):
        raise UsageError(f"{table_file}: the model has no label {unknown}", "give a table with the model's labels")
    return rows


def describe(
    model_file: Path, predictor: Predictor, pixels: str, table_file: Path, rows: pd.DataFrame
) -> dict[str, Any]:
    """What is judged with what, for people."""
    return {
        "model": model_file.name,
        "model_sha256": table.digest(model_file),
        "model_bytes": model_file.stat().st_size,
        "parameters": predictor.parameters,
        "input": f"{predictor.spec.width} x {predictor.spec.height} pixels" + (f", {pixels}" if pixels else ""),
        "table": table_file.name,
        "table_sha256": table.digest(table_file),
        "splits": sorted(rows["split"].unique()),
        "settings": _settings(model_file),
        "tool": f"cxr-edge {__version__}, keras {keras.__version__} on {keras.backend.backend()}",
    }


def predict(predictor: Predictor, rows: pd.DataFrame) -> pd.DataFrame:
    """Judge every row, a batch at a time; memory does not depend on their number.

    Returns:
        One row a picture, sorted by path: path, label, origin, group, split, predicted, p_<label>... (float, their sum
        is 1), dice and mask_entropy (NaN without a truth mask or a mask output).

    Raises:
        UsageError: a picture or a mask cannot be read, or the model gives no probabilities.
    """
    # Sorted, so that a picture shares its batch, and the last bits of its sums, with the same ones in every order.
    rows = rows.sort_values(list(KEPT)).reset_index(drop=True)
    records: list[dict[str, Any]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(rows), BATCH):
            part = rows.iloc[start : start + BATCH]
            read = pool.map(lambda path: predictor.prepare(read_gray(path, predictor.spec)), part["path"])
            probabilities, lungs = predictor.predict(np.concatenate(list(read)))
            scored = pool.map(score_mask, [None] * len(part) if lungs is None else lungs, part["mask"])
            for row, p, (dice, entropy) in zip(part.to_dict("records"), probabilities, scored, strict=True):
                record = {name: row[name] for name in KEPT}
                record["predicted"] = predictor.labels[int(np.argmax(p))]
                record |= {f"p_{label}": float(value) for label, value in zip(predictor.labels, p, strict=True)}
                records.append(record | {"dice": dice, "mask_entropy": entropy})
    return pd.DataFrame(records)


def score_mask(lung: NDArray[np.uint8] | None, truth_file: str) -> tuple[float, float]:
    """Compare the model's lung mask with a truth mask.

    Args:
        lung: uint8[h, w] in units of 1/256, or None.
        truth_file: see `masks.read_mask`; "" if there is none.

    Returns:
        Dice at the truth's size, and the mean binary cross-entropy over what is judged at the model's; NaN without
        either mask, or where nothing is judged.

    Raises:
        UsageError: the truth cannot be read.
    """
    if lung is None or not truth_file:
        return float("nan"), float("nan")
    try:
        truth = masks.read_mask(truth_file)
        dice = masks.score(lung, truth_file, MASK_THRESHOLD)
    except OSError as error:
        raise UsageError(f"{truth_file}: {error}", "make the table again with: cxr-train table") from error
    height, width = (side * MASK_STRIDE for side in lung.shape)
    share, judged = np.moveaxis(mask_truth(truth, InputSpec(height, width)).astype(np.float64), -1, 0)
    if not judged.any():
        return float("nan"), float("nan")
    # 0 and 255 stand for what lies within half a unit of the ends.
    p = np.clip(lung / 256, 0.5 / 256, 255.5 / 256)
    entropy = -(share * np.log(p) + (1 - share) * np.log(1 - p))
    return dice, float((judged * entropy).sum() / judged.sum())


def write(predictions: pd.DataFrame, labels: list[str], out: Path, about: dict[str, Any]) -> list[str]:
    """Write predictions, and from their file alone figures, plots and report; return lines for the terminal.

    Args:
        predictions: as `predict` returns them, in any order; a column `fold` adds figures by fold, others are kept.
        labels: in the order in which figures and plots show them.
        about: what was judged with what, for people.

    Raises:
        OutputUnwritable: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_predictions(predictions, out / "predictions.csv")
        judged = read_predictions(out / "predictions.csv")
        by_split = {str(name): part for name, part in judged.groupby("split")}
        names = sorted(by_split, key=lambda name: (SPLITS.index(name) if name in SPLITS else -1, name))
        splits = {name: metrics.report(by_split[name], labels) for name in names}
        content = {"about": about, "labels": labels, "splits": splits}
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (out / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        for name in names:
            evaluation_plots.draw(by_split[name], splits[name], labels, name, out)
        notes = {name: metrics.gaps(by_split[name], labels) for name in names}
        report.write(splits, notes, labels, about, out)
    except OSError as error:
        raise OutputUnwritable(
            f"{out} cannot be written ({error})", "free some space, or choose another --out"
        ) from error
    lines = [line for name in names for line in _lines(name, splits[name], notes[name])]
    return [*lines, f"report: {out / 'report.html'}"]


def read_predictions(file: Path) -> pd.DataFrame:
    """Read a `predictions.csv`, sorted by its columns from `path` on, so that the order in the file does not matter.

    Raises:
        OSError: it cannot be read.
    """
    # A label 'NA' is a label, but an empty Dice is no number.
    options = {"keep_default_na": False, "na_values": {"dice": [""], "mask_entropy": [""]}}
    texts = dict.fromkeys((*KEPT, "predicted", "fold"), str)
    frame = pd.read_csv(file, dtype=texts, **options)
    return frame.sort_values(list(KEPT)).reset_index(drop=True)


def write_predictions(predictions: pd.DataFrame, file: Path) -> None:
    """Write a `predictions.csv`, sorted by its columns from `path` on, whole or not at all. Raises OSError."""
    ordered = predictions.sort_values(list(KEPT))
    figures = {name: pd.to_numeric(ordered[name]).round(4) for name in ("dice", "mask_entropy")}
    unfinished = file.with_name(f".{file.name}.tmp")
    # Nine digits are all that a 32-bit float has: fewer would make ties of confident pictures.
    ordered.assign(**figures).to_csv(unfinished, index=False, float_format="%.9g", encoding="utf-8")
    unfinished.replace(file)


def _chosen(rows: pd.DataFrame, splits: Sequence[str], table_file: Path) -> pd.DataFrame:
    there = list(rows["split"].unique())
    for name in splits:
        if name not in there:
            sentence = f"{table_file}: the split {name!r} is empty"
            raise UsageError(sentence, f"choose --split among {', '.join(there)}")
    chosen = rows[rows["split"].isin(tuple(splits) or SPLITS)]
    if chosen.empty:
        raise UsageError(f"{table_file}: no row is of validation, test or external", "choose rows with --split")
    return chosen


def _settings(model_file: Path) -> dict[str, Any]:
    """What a model of `fit` was trained with; empty for others."""
    file = model_file.with_suffix(".json")
    if model_file.suffix != ".keras" or not file.exists():
        return {}
    return dict(json.loads(file.read_text(encoding="utf-8")).get("training", {}))


def _lines(split: str, part: dict[str, Any], notes: list[str]) -> list[str]:
    def line(name: str, values: dict[str, Any]) -> str:
        recalls = "  ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in values["sensitivity"].items())
        area = "" if values["roc_auc_macro"] is None else f"  AUC {values['roc_auc_macro']:.3f}"
        dice = "" if values["dice"] is None else f"  Dice {values['dice']:.3f} ({values['masks']})"
        accuracy = f"{values['accuracy']:.3f} [{', '.join(format(v, '.3f') for v in values['accuracy_interval'])}]"
        return f"{name:24} {values['pictures']:5}  accuracy {accuracy}{area}  sensitivity: {recalls}{dice}"

    lines = [line(split, part)] + [line(f"  {origin}", values) for origin, values in part["by_origin"].items()]
    lines += [line(f"  fold {fold}", values) for fold, values in part.get("by_fold", {}).items()]
    if "fold_mean" in part:
        pairs = ((title, part["fold_mean"][name], part["fold_std"][name]) for name, title in metrics.SINGLE.items())
        told = (f"{title} {mean:.3f} ± {std:.3f}" for title, mean, std in pairs if mean is not None and std is not None)
        lines.append(f"  folds: {'; '.join(told)}")
    return lines + [f"{split}: {note}" for note in notes]
