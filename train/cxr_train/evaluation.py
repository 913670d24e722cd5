"""Evaluation: `predictions.csv` first, one row a picture; every figure and plot is computed from that file alone.

So a summary cannot contradict the pictures, and the order in which pictures are read cannot matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import accuracy_score, confusion_matrix, recall_score

from cxr_edge import masks, preprocess
from cxr_edge.errors import UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import plots, table
from cxr_train.data import read_gray

SPLITS = ("validation", "test", "external")
BATCH = 32


def evaluate(model_file: Path, table_file: Path, out: Path) -> list[str]:
    """Write `predictions.csv`, `evaluation.json` and confusion matrices to `out`; return lines for the terminal.

    Raises:
        UsageError: the model has no `model.json` beside it, or not the labels of the table.
    """
    description = read_description(model_file)
    model = keras.models.load_model(model_file, compile=False)
    rows = table.read(table_file)
    rows = rows[rows["split"].isin(SPLITS)].reset_index(drop=True)
    if unknown := sorted(set(rows["label"]) - set(description["labels"])):
        raise UsageError(f"{table_file}: the model has no label {unknown}", "give a table with the model's labels")
    out.mkdir(parents=True, exist_ok=True)
    predictions = predict(model, rows, description["labels"], InputSpec(**description["input"]))
    predictions.to_csv(out / "predictions.csv", index=False)

    predictions = pd.read_csv(out / "predictions.csv", keep_default_na=False, na_values={"dice": [""]})
    labels = description["labels"]
    by_split = dict(list(predictions.groupby("split")))
    report = {name: figures(by_split[name], labels) for name in SPLITS if name in by_split}
    content = {"model": model_file.name, "table_sha256": table.digest(table_file), "labels": labels, "splits": report}
    (out / "evaluation.json").write_text(json.dumps(content, indent=2) + "\n")
    for name, part in report.items():
        plots.confusion(
            part["confusion_matrix"], labels, out / f"confusion_{name}.png", f"{name}: {part['pictures']} pictures"
        )
    return [line for name, part in report.items() for line in _lines(name, part)]


def predict(model: keras.Model, rows: pd.DataFrame, labels: list[str], spec: InputSpec) -> pd.DataFrame:
    """One row a picture: path, label, origin, split, predicted, p_<label>..., dice (empty without a truth mask)."""
    records: list[dict[str, Any]] = []
    for start in range(0, len(rows), BATCH):
        part = rows.iloc[start : start + BATCH]
        pixels = np.concatenate([preprocess.to_input(read_gray(path, spec), spec) for path in part["path"]])
        outputs = model.predict_on_batch(preprocess.scale(pixels))
        for row, p, lung in zip(part.itertuples(), outputs["probabilities"], outputs["mask"], strict=True):
            record: dict[str, Any] = {name: getattr(row, name) for name in ("path", "label", "origin", "split")}
            record["predicted"] = labels[int(np.argmax(p))]
            record |= {f"p_{label}": round(float(value), 4) for label, value in zip(labels, p, strict=True)}
            record["dice"] = round(masks.score(masks.quantise(lung[..., 0]), row.mask, 0.5), 4) if row.mask else ""
            records.append(record)
    return pd.DataFrame(records)


def figures(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """Figures of some predictions, whole and by origin. Sensitivities are None where a label has no picture."""
    whole = _figures(predictions, labels)
    whole["by_origin"] = {origin: _figures(part, labels) for origin, part in predictions.groupby("origin")}
    return whole


def _figures(predictions: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    truth, predicted = predictions["label"], predictions["predicted"]
    present = [label for label in labels if (truth == label).any()]
    recalls = recall_score(truth, predicted, labels=present, average=None, zero_division=0.0)
    dice = pd.to_numeric(predictions["dice"]).dropna()
    return {
        "pictures": len(predictions),
        "accuracy": round(float(accuracy_score(truth, predicted)), 4),
        "balanced_accuracy": round(float(np.mean(recalls)), 4),
        "sensitivity": dict.fromkeys(labels)
        | {label: round(float(recall), 4) for label, recall in zip(present, recalls, strict=True)},
        "confusion_matrix": confusion_matrix(truth, predicted, labels=labels).tolist(),
        "dice": round(float(dice.mean()), 4) if len(dice) else None,
        "masks": len(dice),
    }


def read_description(model_file: Path) -> dict[str, Any]:
    """Read the `model.json` that `fit` wrote beside a model. Raises UsageError where there is none."""
    file = model_file.with_suffix(".json")
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read ({error})", "keep model.json beside model.keras") from error


def _lines(split: str, part: dict[str, Any]) -> list[str]:
    def line(name: str, values: dict[str, Any]) -> str:
        recalls = "  ".join(f"{k} {'-' if v is None else format(v, '.3f')}" for k, v in values["sensitivity"].items())
        dice = "" if values["dice"] is None else f"  Dice {values['dice']:.3f} ({values['masks']})"
        return f"{name:24} {values['pictures']:5}  accuracy {values['accuracy']:.3f}  sensitivity: {recalls}{dice}"

    return [line(split, part)] + [line(f"  {origin}", values) for origin, values in part["by_origin"].items()]
