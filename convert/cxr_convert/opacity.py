"""How well the affected area shows opacities that a radiologist outlined, where the table has such masks.

No model learns from them, and they choose nothing: the figures stand in the card, for each split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from cxr_convert.predict import read_input
from cxr_edge import judge
from cxr_edge.manifest import Manifest
from cxr_edge.masks import UNJUDGED, read_mask
from cxr_edge.runtime import Engine


def check(engine: Engine, rows: pd.DataFrame, manifest: Manifest) -> list[dict[str, Any]]:
    """Compare the activation with the outlines, for each split of the table that has some.

    Args:
        rows: of a table; those without `opacity` (paths by semicolons) are passed over.
        manifest: with `affected`.

    Returns:
        Records of `split`, `pictures`, `pixel_auc` (mean over pictures of the AUC of the probability of a finding for
        opacity against the rest of the lung), `peak_hit` (share of pictures in which the most suspicious lung pixel
        lies in an opacity) and `by_chance` (mean share of the lung that opacities cover: what a blind peak would hit).
        Pictures in which the opacities cover none or all of the found lung tell nothing and are not counted.
    """
    records = []
    for split, part in rows[rows["opacity"] != ""].groupby("split"):
        scores = [
            score
            for path, outlines in zip(part["path"], part["opacity"], strict=True)
            if (score := _score(engine, path, outlines.split(";"), manifest))
        ]
        if scores:
            auc, hit, share = np.mean(scores, axis=0)
            record = {"split": split, "pictures": len(scores), "pixel_auc": auc, "peak_hit": hit, "by_chance": share}
            records.append({key: round(v, 3) if isinstance(v, float) else v for key, v in record.items()})
    return records


def _score(engine: Engine, path: str, outlines: list[str], manifest: Manifest) -> tuple[float, float, float] | None:
    outputs = engine.infer(read_input(path, manifest.input))
    lung, _ = judge.affected_lung(outputs["activation"], outputs["mask"], manifest)
    heat = judge.heat(outputs["activation"], outputs["mask"], manifest)[lung]
    opaque = _union(outlines, (lung.shape[1], lung.shape[0]))[lung]
    if not opaque.any() or opaque.all():
        return None
    return float(roc_auc_score(opaque, heat)), float(opaque[heat.argmax()]), float(opaque.mean())


def _union(outlines: list[str], size: tuple[int, int]) -> NDArray[np.bool_]:
    """What any of the masks covers by more than half, bool[height, width]; `size` is (width, height)."""
    covered = np.zeros(size[::-1], dtype=bool)
    for outline in outlines:
        mask = Image.fromarray(((read_mask(Path(outline)) > UNJUDGED) * 255).astype(np.uint8))
        covered |= np.asarray(mask.resize(size, Image.Resampling.BOX)) > UNJUDGED
    return covered
