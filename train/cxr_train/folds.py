"""Cross-validation: every picture is judged once, by a model that never saw its group.

    fold-1/, fold-2/ ...   a run folder each; `judged.csv` there are the predictions for the fold
    evaluation/            of all folds together: predictions.csv with a column `fold`, and what is computed from it

In each fold the epoch is chosen on a tenth of the other folds' groups, never on the fold itself. Rows of the split
`external` take no part. A killed cross-validation goes on where it was.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import keras
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from cxr_edge.errors import UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import evaluation, fit, models, table
from cxr_train.presets import Settings

VALIDATION_PART = 10


def cross_validate(table_file: Path, out: Path, settings: Settings, by: str) -> list[str]:
    """Train and judge every fold.

    Args:
        by: a number of folds, made by group and stratified by label, or `origin`: each origin is a fold.

    Returns:
        Lines for the terminal.

    Raises:
        UsageError: `by` is neither, or there are too few groups, labels or origins.
    """
    rows = table.read(table_file)
    rows = rows[rows["split"] != "external"].reset_index(drop=True)
    digest = table.digest(table_file)
    # The same labels in each fold, whatever its training rows hold.
    labels = settings.labels or tuple(sorted(rows["label"].unique()))
    settings = replace(settings, labels=labels)
    judged = []
    for name, held_out in assign(rows, by, settings.seed):
        folder = out / f"fold-{name}"
        own = split(rows, held_out, settings.seed)
        model_file = fit.fit_rows(own, f"{table_file}, fold {name}", folder, settings, digest)
        if not (folder / "judged.csv").exists():
            predictor = models.wrap(
                keras.models.load_model(model_file, compile=False), labels, InputSpec(settings.size, settings.size)
            )
            part = evaluation.predict(predictor, own[own["split"] == "test"].reset_index(drop=True))
            part.insert(0, "fold", name)
            part.to_csv(folder / "unfinished.csv", index=False)
            (folder / "unfinished.csv").replace(folder / "judged.csv")
        judged.append(pd.read_csv(folder / "judged.csv", keep_default_na=False, dtype={"fold": str}))
    about = {
        "table": table_file.name,
        "table_sha256": digest,
        "folds": by,
        "settings": vars(settings),
        "parameters": json.loads(model_file.with_suffix(".json").read_text())["parameters"],
        "model_bytes": model_file.stat().st_size,
    }
    return evaluation.write(pd.concat(judged, ignore_index=True), list(labels), out / "evaluation", about)


def assign(rows: pd.DataFrame, by: str, seed: int) -> list[tuple[str, pd.Series]]:
    """Name each fold and mark its rows, bool[rows]; whole groups, so an origin that shares one loses it.

    Raises:
        UsageError: as `cross_validate`.
    """
    if by == "origin":
        origins = sorted(rows["origin"].unique())
        if len(origins) < 2:
            raise UsageError(f"all pictures are of the origin {origins[0]!r}", "make the table with --origin-column")
        return [(origin, rows["origin"] == origin) for origin in origins]
    if not by.isdecimal() or int(by) < 2:
        raise UsageError(f"--folds {by} is neither a number from 2 on nor 'origin'", "give --folds 5, for example")
    count = int(by)
    if rows.groupby("label")["group"].nunique().min() < count:
        raise UsageError(f"a label has fewer than {count} groups", "give fewer --folds, or add pictures")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(rows, rows["label"], rows["group"])
    return [(str(number), rows.index.isin(members)) for number, (_, members) in enumerate(folds, 1)]


def split(rows: pd.DataFrame, held_out: pd.Series, seed: int) -> pd.DataFrame:
    """Set `split` for one fold: `test` where held out, `validation` for a tenth of the other groups, else `train`.

    Rows of other folds that share a group with the held-out ones are left out.
    """
    own = rows.assign(split="train")
    own.loc[held_out, "split"] = "test"
    torn = own["group"].isin(own.loc[held_out, "group"]) & ~held_out
    own = own[~torn].reset_index(drop=True)
    training = own[own["split"] == "train"]
    parts = StratifiedGroupKFold(VALIDATION_PART, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A label with fewer pictures than parts is spread as evenly as it can be; nothing a user could mend.
        warnings.simplefilter("ignore", UserWarning)
        _, chosen = next(parts.split(training, training["label"], training["group"]))
    own.loc[training.index[chosen], "split"] = "validation"
    return own
