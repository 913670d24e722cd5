"""A data set of phantoms with labels, masks and patients: to try the whole line without any patient's picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr_edge import phantom
from cxr_edge.errors import UsageError


def write_dataset(folder: Path, count: int, seed: int = 0, side: int = 256) -> Path:
    """Write `count` phantoms, their masks and `source.csv` (path, label, mask, patient, origin); return the CSV.

    Every third patient has two pictures, every fourth picture has no mask, and two made-up clinics save differently:
    what a real table must survive. Labels: `normal`, and `pneumonia` for phantoms with an opacity.

    Raises:
        UsageError: the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", "choose another folder")
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for number in range(count):
        patient = number - 1 if number % 4 == 1 else number
        ill = number % 2 == 1
        clinic, suffix = ("clinic-a", "jpg") if patient % 3 else ("clinic-b", "png")
        drawn = phantom.draw(seed * 100_000 + patient, height=side, width=side + 8 * (number % 5), opacity=ill)
        path, mask = f"images/{number:04}.{suffix}", f"masks/{number:04}.png"
        Image.fromarray(drawn.image).save(folder / path)
        Image.fromarray(drawn.lung_mask.astype(np.uint8) * np.uint8(255)).save(folder / mask)
        rows.append(
            {
                "path": path,
                "label": "pneumonia" if ill else "normal",
                "mask": "" if number % 4 == 3 else mask,
                "patient": f"p{patient:04}",
                "origin": clinic,
            }
        )
    pd.DataFrame(rows).to_csv(folder / "source.csv", index=False)
    return folder / "source.csv"
