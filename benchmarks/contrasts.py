"""How well a model tells labels apart inside one origin: contrasts.py PREDICTIONS SOURCE

PREDICTIONS is the predictions.csv of `cxr-train evaluate`, of which `test` and `external` count. SOURCE is the table
that `cxr-train table` was made from, with the columns `file` and `rsna_class`, what radiologists later called some of
NIH's pictures. Inside one origin no difference between hospitals can tell the labels apart.
"""

from __future__ import annotations

import sys
from pathlib import Path, PurePath

import pandas as pd
from rich.console import Console
from rich.table import Table

from cxr_train import audit_figures

HELD_OUT = ("test", "external")
CONTRASTS = {
    "kermany": ("normal", "pneumonia"),
    "nih": ("normal", "pneumonia"),
    "actualmed": ("normal", "covid19"),
    "ieee8023": ("pneumonia", "covid19"),
}
"""Origins, and the labels (a, b) whose b is told from a there."""
RSNA = {"normal": "Normal", "pneumonia": "Lung Opacity"}
"""What the radiologists' class must be to agree with a label; it is empty where they did not judge."""


def joined(predictions: pd.DataFrame, source: pd.DataFrame) -> pd.DataFrame:
    """Held-out predictions with their `rsna_class`, found by the file's name; its folder must end alike.

    Raises:
        ValueError: a picture does not stand in the source, or stands there twice.
    """
    rows = predictions[predictions["split"].isin(HELD_OUT)].copy()
    rows["name"] = [PurePath(path).name for path in rows["path"]]
    source = source[["file", "rsna_class"]].assign(name=[PurePath(file).name for file in source["file"]])
    found = rows.merge(source, on="name", how="left", validate="many_to_one")
    for path, file in zip(found["path"], found["file"], strict=True):
        if not isinstance(file, str) or not f"/{path}".endswith(f"/{file}"):
            raise ValueError(f"{path} is not in the source's column 'file'")
    return found


def chosen(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each contrast; NIH's also without the labels that radiologists dispute, or do not confirm."""
    parts = {origin: rows[rows["origin"] == origin] for origin in CONTRASTS}
    nih = parts["nih"]
    judged, agree = nih["rsna_class"] != "", nih["rsna_class"] == nih["label"].map(RSNA)
    # Normals were hardly ever judged again, so an unjudged one counts as confirmed.
    return parts | {
        "nih, label not disputed": nih[agree | ~judged],
        "nih, pneumonia confirmed": nih[agree | (~judged & (nih["label"] == "normal"))],
    }


def main(predictions: Path, source: Path) -> None:
    """Print the table."""
    rows = joined(pd.read_csv(predictions), pd.read_csv(source, dtype=str, keep_default_na=False))
    listing = Table("origin", "told apart", "pictures", "AUC", "95 % interval", box=None, pad_edge=False)
    for name, part in chosen(rows).items():
        a, b = CONTRASTS[name.split(",")[0]]
        told = audit_figures.told_apart(part, a, b)
        counts = " + ".join(str(int((part["label"] == label).sum())) for label in (b, a))
        if told is None:
            listing.add_row(name, f"{b} from {a}", counts, "-", f"fewer than {audit_figures.CONTRAST} pictures of one")
        else:
            low, high = told["interval"]
            listing.add_row(name, f"{b} from {a}", counts, f"{told['auc']:.3f}", f"{low:.3f} to {high:.3f}")
    Console(width=120).print(listing)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
