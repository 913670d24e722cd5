"""Which rule for `uncertain` would hold on an origin that training never saw: bands.py MODEL TABLE

MODEL is a model.keras of the network `multitask`, TABLE the one it was trained on, whose `external` rows are the origin
left out (see left_out.sh); without such rows only what a rule costs at home is printed. Every rule is fitted on
`validation` alone. `home` is the share of `test` that stays certain, and how much of that is right; `left out` the
share of the origin left out that is certain, and that is certain and wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cxr_convert import calibrate, gates
from cxr_edge import gates as edge_gates
from cxr_edge import judge, masks, preprocess
from cxr_edge.preprocess import InputSpec
from cxr_train import table
from cxr_train.data import read_gray

BATCH = 32
NEAREST = (0.95, 0.9, 0.8, 0.5)
"""Shares of `validation`, the nearest by the embedding, outside of which a verdict is uncertain."""
SLOPES = (4, 8, 12, 20)
"""By how much the log-odds of the confidence that is needed rise from the training pictures to the gate's limit."""
Values = NDArray[np.float64]


def judged(model: keras.Model, rows: pd.DataFrame) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Probabilities in units of 1/256, uint8[rows, labels], and embeddings, float32[rows, d]."""
    spec = InputSpec(*model.input_shape[1:3])
    units, embeddings = [], []
    for start in range(0, len(rows), BATCH):
        pixels = [preprocess.to_input(read_gray(path, spec), spec) for path in rows["path"].iloc[start : start + BATCH]]
        outputs = model.predict_on_batch(preprocess.scale(np.concatenate(pixels)))
        units.append(masks.quantise(outputs["probabilities"]))
        embeddings.append(outputs["embedding"])
    return np.concatenate(units), np.concatenate(embeddings)


def rules(
    confidence: Values, right: NDArray[np.bool_], away: Values, rows: pd.DataFrame
) -> Iterator[tuple[str, Values]]:
    """Each rule's name, and a score by row that a certain verdict has at 0 and above."""
    home = (rows["split"] == "validation").to_numpy()

    def reliable(score: Values, share: float) -> Values:
        """The score less the lowest from which on a share of the validation verdicts is right."""
        for least in np.unique(score[home]):
            if right[home & (score >= least)].mean() >= share:
                return np.asarray(score - least)
        return np.full(len(score), -1.0)

    for share in (0.98, 0.99):
        yield f"{share:.0%} of the certain right", reliable(confidence, share)
    known = reliable(confidence, 0.98)
    for share in NEAREST:
        yield f"98 %, and among the nearest {share:.0%}", np.minimum(known, np.quantile(away[home], share) - away)
    odds = np.log(confidence / np.maximum(1 - confidence, 1e-6))
    for slope in SLOPES:
        yield f"98 %, the limit rises by {slope} with the distance", reliable(odds - slope * away, 0.98)


def main(model_file: Path, table_file: Path) -> None:
    """Print the table."""
    model = keras.models.load_model(model_file, compile=False)
    rows = table.read(table_file)
    units, embeddings = judged(model, rows)
    labels = sorted(set(rows["label"]), key=["normal", "pneumonia", "covid19"].index)
    truth = np.array([labels.index(label) for label in rows["label"]])
    parts = {split: (rows["split"] == split).to_numpy() for split in ("train", "validation", "test", "external")}
    home = parts["validation"]
    probabilities = judge.calibrate(units, calibrate.temperature(units[home], truth[home]))
    familiar = gates.familiar(embeddings[parts["train"]], embeddings[home])
    away = np.array([edge_gates.distance(embedding, familiar) for embedding in embeddings]) / familiar.limit
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    listing = Table("a verdict is certain where", "home", "right", "left out", "and wrong", box=None, pad_edge=False)
    for name, score in rules(confidence, right, away, rows):
        certain = score >= 0
        test, out = certain[parts["test"]], certain[parts["external"]]
        cells = [f"{test.mean():.3f}", f"{right[parts['test']][test].mean():.3f}" if test.any() else "-"]
        if len(out):
            cells += [f"{out.mean():.3f}", f"{(out & ~right[parts['external']]).mean():.3f}"]
        listing.add_row(name, *cells)
    Console(width=120).print(listing)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
