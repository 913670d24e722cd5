"""Several runs side by side: one table and one plot, computed from each run's `predictions.csv`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import evaluation_plots, metrics
from cxr_train.evaluation import read_predictions

NAME = "predictions.csv"


@dataclass(frozen=True)
class Judged:
    """One run: its name, its predictions for the split, its labels, and its row of the table."""

    name: str
    predictions: pd.DataFrame
    labels: list[str]
    row: dict[str, Any]


def compare(runs: list[Path], out: Path, split: str) -> tuple[pd.DataFrame, str]:
    """Compare runs on one split; write `comparison.csv` and `comparison.png` to `out`.

    Args:
        runs: at least two run folders, or evaluation folders.
        split: rows to compare by.

    Returns:
        The table, one row a run, empty cells where a run does not say; and a sentence, empty if all runs were judged on
        the same pictures.

    Raises:
        UsageError: a folder is named twice, holds no evaluation, or nothing of the split.
        OutputUnwritable: `out` cannot be written.
    """
    if len(runs) < 2:
        raise UsageError("one run alone cannot be compared", "name two run folders or more")
    judged = [_read(folder, name, split) for folder, name in zip(runs, _names(runs), strict=True)]
    pictures = [frozenset(run.predictions["path"]) for run in judged]
    for run, own in zip(judged, pictures, strict=True):
        run.row["same pictures"] = "yes" if own == pictures[0] else "no"
    others = [run.name for run, own in zip(judged, pictures, strict=True) if own != pictures[0]]
    sentence = ""
    if others:
        verb = "were" if len(others) > 1 else "was"
        sentence = f"{', '.join(others)} {verb} judged on other pictures than {judged[0].name}: figures do not compare"
    # Integers stay integers beside empty cells.
    rows = pd.DataFrame([run.row for run in judged]).convert_dtypes()
    try:
        out.mkdir(parents=True, exist_ok=True)
        rows.to_csv(out / "comparison.csv", index=False)
        curves = {run.name: run.predictions for run in judged}
        alike = all(run.labels == judged[0].labels for run in judged)
        positive = judged[0].labels[1] if alike and len(judged[0].labels) == 2 else ""
        evaluation_plots.comparison([run.row for run in judged], curves, positive, split, out / "comparison.png")
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written ({error})", "choose another --out") from error
    return rows, sentence


def _names(runs: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell runs apart; `runs/a/evaluation` is called `a`."""
    parts = [run.resolve().parts for run in runs]
    parts = [part[:-1] if part[-1] == "evaluation" else part for part in parts]
    if len(set(parts)) < len(parts):
        raise UsageError("a run is named twice", "name each run once")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _read(folder: Path, name: str, split: str) -> Judged:
    own = folder if (folder / NAME).exists() else folder / "evaluation"
    try:
        content = json.loads((own / "evaluation.json").read_text(encoding="utf-8"))
        labels, about = list(content["labels"]), dict(content["about"])
        predictions = read_predictions(own / NAME)
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"{folder}: holds no whole evaluation ({error})", "make it with: cxr-train evaluate"
        ) from error
    chosen = predictions[predictions["split"] == split].reset_index(drop=True)
    if chosen.empty:
        there = ", ".join(sorted(predictions["split"].unique()))
        raise UsageError(f"{folder}: no picture of the split {split!r} was judged", f"choose --split among {there}")
    part = metrics.figures(chosen, labels)
    low, high = part["accuracy_interval"]
    run = own.parent if own.name == "evaluation" else own
    row = {
        "run": name,
        "pictures": part["pictures"],
        "accuracy": part["accuracy"],
        "accuracy low": low,
        "accuracy high": high,
        "balanced accuracy": part["balanced_accuracy"],
        "AUC": part["roc_auc_macro"],
        "ECE": part["ece"],
        "Dice": part["dice"],
        "parameters": about.get("parameters"),
        "size MiB": round(about["model_bytes"] / 2**20, 2) if about.get("model_bytes") else None,
        **_training(run),
    }
    return Judged(name, chosen, labels, row)


def _training(run: Path) -> dict[str, Any]:
    """Epochs and minutes from the logs of a run folder, None where it has none."""
    log, resources = (_logged(run / name) for name in ("training_log.csv", "resources.csv"))
    seconds = None if resources is None or "seconds" not in resources else float(resources["seconds"].sum())
    return {
        "epochs": None if log is None else len(log),
        "training minutes": None if seconds is None else round(seconds / 60, 1),
    }


def _logged(file: Path) -> pd.DataFrame | None:
    try:
        return pd.read_csv(file)
    except (OSError, ValueError):
        return None
