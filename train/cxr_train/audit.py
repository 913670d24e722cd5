"""The shortcut audit: how far a model's accuracy rests on what is no lung. `predictions.csv` first, all else from it.

predictions.csv       one row for each picture and view: as of an evaluation, with picture, view, lungs, age_group
embedding.npy         float32[pictures, d], by the column `picture`; where the model's embedding can be read
audit.json            all figures, and the verdict
audit.png, views.png  accuracy by view; what the model was shown
audit.html            all of it on one page
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from cxr_edge import masks
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import audit_embedding, audit_figures, audit_page, audit_views, audit_words, evaluation, models
from cxr_train.audit_embedding import Embedding
from cxr_train.audit_views import VIEWS, WHOLE
from cxr_train.data import read_gray
from cxr_train.evaluation import BATCH, KEPT
from cxr_train.models import Predictor

Views = dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Judged:
    """`predictions`: one row for each picture and view; `embedding`: float32[pictures, d], or None.

    `examples`: of the first picture of each label its views, uint8[H, W], with the lungs known if there is such a one.
    """

    predictions: pd.DataFrame
    embedding: NDArray[np.float32] | None
    examples: dict[str, Views]


def audit(
    model_file: Path,
    table_file: Path,
    out: Path,
    splits: Sequence[str] = ("test",),
    labels: tuple[str, ...] = (),
    pixels: str = "",
) -> list[str]:
    """Judge every view of the rows of some splits with any model, and write all about it to `out`.

    Args:
        labels, pixels: of somebody else's Keras model, see `models.load`.

    Returns:
        The verdict, a sentence a line, and where the page lies.

    Raises:
        UsageError: the model, the table, a picture, a mask or a split cannot be used.
        ModelRefused: as `models.load`.
        OutputUnwritable: `out` cannot be written.
    """
    predictor = models.load(model_file, labels, pixels)
    rows = evaluation.choose(predictor, table_file, splits)
    about = evaluation.describe(model_file, predictor, pixels, table_file, rows)
    embedding = audit_embedding.load(model_file, pixels)
    about["embedding"] = embedding.meaning if embedding else None
    judged = judge(predictor, embedding, rows)
    return write(judged, list(predictor.labels), out, about)


def judge(predictor: Predictor, embedding: Embedding | None, rows: pd.DataFrame) -> Judged:
    """Judge all views of every row, a batch at a time; only the embeddings grow with the number of rows.

    The lungs are those of the truth mask, else of the model's own mask of the whole picture.

    Args:
        rows: of a table; a column `age` is put into groups.

    Returns:
        Predictions have `picture` (from 0, in the order of the rows sorted by path), `view`, `lungs` ('truth', 'model'
        or ''), `age_group` ('' without a column `age`), and the columns of `evaluation.predict`; Dice is not computed.

    Raises:
        UsageError: a picture or a mask cannot be read, or the model gives no probabilities.
    """
    rows = rows.sort_values(list(KEPT)).reset_index(drop=True)
    records: list[dict[str, Any]] = []
    embedded: list[NDArray[np.float32]] = []
    examples: dict[str, Views] = {}
    console = Console(stderr=True)
    starts = range(0, len(rows), BATCH)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in track(starts, "judging", console=console, transient=True, disable=not console.is_terminal):
            part = rows.iloc[start : start + BATCH].to_dict("records")
            read = pool.map(lambda row: predictor.prepare(read_gray(row["path"], predictor.spec)), part)
            pixels = np.concatenate(list(read))
            p, lungs = predictor.predict(pixels)
            if embedding is not None:
                embedded.append(embedding.embed(pixels))
            own = [None] * len(part) if lungs is None else list(lungs)
            kept, views = zip(*pool.map(_shown, range(start, len(rows)), part, pixels[..., 0], own), strict=True)
            records += _records(WHOLE, kept, p, predictor.labels)
            for name in VIEWS:
                if name != WHOLE and (there := [place for place, made in enumerate(views) if name in made]):
                    # Those without such a view only keep the batch at its size: each new one is traced anew.
                    p, _ = predictor.predict(np.stack([made.get(name, made[WHOLE]) for made in views])[..., np.newaxis])
                    records += _records(name, [kept[place] for place in there], p[there], predictor.labels)
            for row, made in zip(part, views, strict=True):
                if len(made) > len(examples.get(row["label"], {})):
                    examples[row["label"]] = made
    values = np.concatenate(embedded) if embedded else None
    return Judged(pd.DataFrame(records), values, dict(sorted(examples.items())))


def write(judged: Judged, labels: list[str], out: Path, about: dict[str, Any]) -> list[str]:
    """Write what was judged, and from these files alone figures, verdict, plot and page; return lines for the terminal.

    Args:
        labels: in the order in which figures show them.
        about: what was judged with what, for people.

    Raises:
        OutputUnwritable: `out` cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        evaluation.write_predictions(judged.predictions, out / "predictions.csv")
        (out / "embedding.npy").unlink(missing_ok=True)  # of an earlier audit, perhaps of another model
        if judged.embedding is not None:
            np.save(out / "embedding.npy", judged.embedding, allow_pickle=False)
        audit_page.draw_examples(judged.examples, out)
        figures = figures_of(out, labels)
        verdict = audit_words.verdict(figures)
        content: dict[str, Any] = {
            "about": about,
            "labels": labels,
            "verdict": {"level": audit_words.level(figures), "sentences": verdict},
            "figures": figures,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (out / "audit.json").write_text(text + "\n", encoding="utf-8")
        audit_page.draw(figures, out)
        audit_page.write(content, out)
    except OSError as error:
        raise OutputUnwritable(
            f"{out} cannot be written ({error})", "free some space, or choose another --out"
        ) from error
    return [*verdict, f"page: {out / 'audit.html'}"]


def figures_of(folder: Path, labels: list[str]) -> dict[str, Any]:
    """`audit_figures.figures` of the `predictions.csv` and, where there is one, the `embedding.npy` of a folder.

    Raises:
        OSError: they cannot be read.
    """
    file = folder / "embedding.npy"
    embedding = np.load(file, allow_pickle=False) if file.exists() else None
    return audit_figures.figures(evaluation.read_predictions(folder / "predictions.csv"), labels, embedding)


def _shown(
    number: int, row: dict[str, Any], gray: NDArray[np.uint8], own: NDArray[np.uint8] | None
) -> tuple[dict[str, Any], Views]:
    """What is kept of one row in each of its records, and the views of its picture, uint8[H, W]."""
    height, width = gray.shape
    source, lung = "truth", None
    if row["mask"]:
        try:
            lung = audit_views.truth_lungs(masks.read_mask(row["mask"]), width, height)
        except OSError as error:
            raise UsageError(f"{row['mask']}: {error}", "make the table again with: cxr-train table") from error
    if lung is None and own is not None:
        source, lung = "model", audit_views.own_lungs(own, width, height)
    kept = {"picture": number} | {name: row[name] for name in KEPT}
    kept["age_group"] = audit_figures.age_group(row["age"]) if "age" in row else ""
    kept["lungs"] = "" if lung is None else source
    return kept, audit_views.make(gray, lung)


def _records(
    view: str, kept: Sequence[dict[str, Any]], p: NDArray[np.float64], labels: tuple[str, ...]
) -> list[dict[str, Any]]:
    nothing = {"dice": float("nan"), "mask_entropy": float("nan")}
    return [
        row
        | {"view": view, "predicted": labels[int(np.argmax(one))]}
        | {f"p_{label}": float(value) for label, value in zip(labels, one, strict=True)}
        | nothing
        for row, one in zip(kept, p, strict=True)
    ]
