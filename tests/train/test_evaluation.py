from __future__ import annotations

import pandas as pd

from cxr_train.evaluation import figures

LABELS = ["normal", "pneumonia", "covid19"]


def predictions() -> pd.DataFrame:
    pairs = [("normal", "normal")] * 6 + [("normal", "covid19")] * 2 + [("pneumonia", "pneumonia")] * 3
    pairs += [("pneumonia", "normal")]
    frame = pd.DataFrame(pairs, columns=["label", "predicted"])
    frame["origin"] = ["a"] * 8 + ["b"] * 4
    frame["dice"] = [0.9, 0.8] + [float("nan")] * 10
    return frame


def test_figures_by_hand() -> None:
    whole = figures(predictions(), LABELS)
    assert whole["accuracy"] == 0.75
    assert whole["sensitivity"] == {"normal": 0.75, "pneumonia": 0.75, "covid19": None}
    assert whole["balanced_accuracy"] == 0.75
    assert whole["confusion_matrix"] == [[6, 0, 2], [1, 3, 0], [0, 0, 0]]
    assert (whole["dice"], whole["masks"]) == (0.85, 2)
    assert whole["by_origin"]["b"]["pictures"] == 4
    assert whole["by_origin"]["b"]["dice"] is None


def test_order_does_not_matter() -> None:
    frame = predictions()
    assert figures(frame, LABELS) == figures(frame.sample(frac=1, random_state=3), LABELS)
