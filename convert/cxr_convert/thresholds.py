"""What a manifest holds that is chosen on the validation split, by the file's own outputs, and its figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_convert import calibrate, figures, gates, operating
from cxr_edge import judge
from cxr_edge.manifest import DEFAULT_POINT, OPERATING_POINTS, Manifest


def settle(draft: Manifest, predictions: pd.DataFrame, training: pd.DataFrame | None) -> Manifest:
    """Fill in temperature, operating points, the uncertain band, gates and affected area.

    Args:
        draft: of the file, with its outputs.
        predictions: the held-out rows of the table, as `predict.by_file` judged them.
        training: training rows likewise, where the model has an embedding.

    Raises:
        ModelRefused: an output is of no use.
    """
    validation = predictions[predictions["split"] == "validation"]
    truth = figures.truth(validation, draft.labels)
    manifest = replace(draft, temperature=calibrate.temperature(figures.quantised(validation), truth, draft.task))
    probabilities = figures.calibrated(validation, manifest)
    found = judge.finding(probabilities, manifest.labels, manifest.negative)
    points = operating.choose(found, truth != manifest.labels.index(manifest.negative))
    manifest = replace(manifest, operating_points=points)
    chosen, _ = figures.verdicts(probabilities, manifest)
    confidence = probabilities[np.arange(len(chosen)), chosen]
    manifest = replace(manifest, uncertain_below=calibrate.uncertain_below(confidence, chosen == truth))
    if "mask" in manifest.outputs:
        manifest = replace(manifest, lung_area_pct=gates.lung_area(validation))
    if "activation" in manifest.outputs:
        manifest = replace(manifest, affected=gates.affected(validation, manifest))
    if training is not None:
        embeddings = (np.stack(list(rows["embedding"])) for rows in (training, validation))
        manifest = replace(manifest, familiar=gates.familiar(*embeddings))
    return manifest


def told(manifest: Manifest, draft: Manifest, predictions: pd.DataFrame) -> dict[str, Any]:
    """Figures of a settled manifest, for its `about`: calibration error, operating points, coverage, by origin."""
    parts = {name: predictions[predictions["split"] == name] for name in ("validation", "test")}
    test_truth = figures.truth(parts["test"], manifest.labels)
    errors = [
        calibrate.expected_calibration_error(figures.calibrated(parts["test"], each), test_truth)
        for each in (draft, manifest)
    ]
    certain = {name: figures.verdicts(figures.calibrated(rows, manifest), manifest)[1] for name, rows in parts.items()}
    return {
        "ece_before": errors[0],
        "ece_after": errors[1],
        "reliable": calibrate.RELIABLE,
        "coverage_pct": {name: figures.pct(flags) for name, flags in certain.items()},
        "operating_points": {
            point: {name: _of_findings(rows, manifest, point) for name, rows in parts.items()}
            for point in OPERATING_POINTS
        },
        "default_point": DEFAULT_POINT,
        "figures": figures.by_origin(predictions, manifest),
    }


def _of_findings(rows: pd.DataFrame, manifest: Manifest, point: str) -> dict[str, float | None]:
    found = judge.finding(figures.calibrated(rows, manifest), manifest.labels, manifest.negative)
    truth = (rows["label"] != manifest.negative).to_numpy()
    return operating.figures(found, truth, manifest.operating_points[point])
