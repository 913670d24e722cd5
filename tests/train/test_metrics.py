from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_train import metrics

LABELS = ["normal", "pneumonia", "covid19"]


def predictions() -> pd.DataFrame:
    """12 pictures of two of three labels: 9 right, with probability 0.7; 3 wrong, whose true label got 0.2."""
    pairs = [("normal", "normal")] * 6 + [("normal", "covid19")] * 2 + [("pneumonia", "pneumonia")] * 3
    pairs += [("pneumonia", "normal")]
    frame = pd.DataFrame(pairs, columns=["label", "predicted"])
    told = {"normal": (0.7, 0.2, 0.1), "pneumonia": (0.2, 0.7, 0.1), "covid19": (0.2, 0.1, 0.7)}
    frame[[f"p_{label}" for label in LABELS]] = [told[predicted] for _, predicted in pairs]
    frame["origin"] = ["a"] * 8 + ["b"] * 4
    frame["dice"] = [0.9, 0.8] + [float("nan")] * 10
    frame["mask_entropy"] = [0.2, 0.4] + [float("nan")] * 10
    return frame


def test_figures_by_hand() -> None:
    whole = metrics.report(predictions(), LABELS)
    assert whole["accuracy"] == 0.75
    assert whole["sensitivity"] == {"normal": 0.75, "pneumonia": 0.75, "covid19": None}
    assert whole["specificity"] == {"normal": 0.75, "pneumonia": 1.0, "covid19": round(10 / 12, 4)}
    assert whole["precision"] == {"normal": round(6 / 7, 4), "pneumonia": 1.0, "covid19": 0.0}
    assert whole["f1"]["pneumonia"] == round(2 * 0.75 / 1.75, 4)
    assert whole["support"] == {"normal": 8, "pneumonia": 4, "covid19": 0}
    assert whole["balanced_accuracy"] == 0.75
    assert whole["confusion_matrix"] == [[6, 0, 2], [1, 3, 0], [0, 0, 0]]
    assert (whole["dice"], whole["masks"]) == (0.85, 2)
    assert whole["mask_entropy"] == 0.3
    loss = -(9 * np.log(0.7) + 3 * np.log(0.2)) / 12
    assert whole["log_loss"] == round(loss, 4)
    assert whole["total_loss"] == round(loss + 0.3, 4)
    assert whole["ece"] == 0.05
    assert whole["by_origin"]["b"]["pictures"] == 4
    assert whole["by_origin"]["b"]["dice"] is None
    assert whole["by_origin"]["b"]["total_loss"] is None


def test_a_label_without_positives_or_negatives_has_no_area_and_a_sentence() -> None:
    frame = predictions()
    whole = metrics.figures(frame, LABELS)
    assert whole["roc_auc"]["covid19"] is whole["pr_auc"]["covid19"] is None
    assert whole["sensitivity_interval"]["covid19"] is None
    assert whole["roc_auc_macro"] == round((whole["roc_auc"]["normal"] + whole["roc_auc"]["pneumonia"]) / 2, 4)
    (sentence,) = metrics.gaps(frame, LABELS)
    assert "no picture has the label 'covid19'" in sentence

    alone = frame[frame["label"] == "normal"]
    whole = metrics.figures(alone, LABELS)
    assert whole["roc_auc_macro"] is whole["pr_auc_macro"] is None
    assert whole["specificity"]["normal"] is whole["specificity_interval"]["normal"] is None
    assert any("all pictures have the label 'normal'" in sentence for sentence in metrics.gaps(alone, LABELS))
    assert metrics.gaps(frame, LABELS[:2]) == []


def test_order_does_not_matter() -> None:
    frame = predictions()
    assert metrics.report(frame, LABELS) == metrics.report(frame.sample(frac=1, random_state=3), LABELS)


@pytest.mark.parametrize(
    ("successes", "trials", "bounds"),
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17, 1998, table I.
    [(81, 263, [0.2553, 0.3662]), (15, 148, [0.0624, 0.1605]), (0, 20, [0.0, 0.1611]), (1, 29, [0.0061, 0.1718])],
)
def test_intervals_are_the_published_ones(successes: int, trials: int, bounds: list[float]) -> None:
    assert metrics.wilson(successes, trials) == pytest.approx(bounds, abs=1e-4)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_roc_area_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    truth = np.array(["ill" if ill else "well" for ill, _ in rows])
    p = np.array([[score / 5, 1 - score / 5] for _, score in rows])
    (area, other), _ = metrics.areas(truth, p, ["ill", "well"])
    positives, negatives = ([score for ill, score in rows if ill == wanted] for wanted in (True, False))
    pairs = [(a > b) + (a == b) / 2 for a in positives for b in negatives]
    expected = pytest.approx(np.mean(pairs)) if pairs else None
    assert area == expected
    assert other == expected


def test_calibration_error_by_hand() -> None:
    truth = np.array(["a", "a", "b", "a"])
    p = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.62, 0.38]])
    counts, confidence, accuracy = metrics.reliability(truth, p, ["a", "b"])
    assert counts[9] == 1
    assert counts[13] == 1
    assert counts[14] == 2
    assert (confidence[9], accuracy[9]) == (0.62, 1)
    # 0.9 sure and wrong, 0.62 sure and right, twice wholly sure and right; a quarter each.
    assert metrics.expected_calibration_error(truth, p, ["a", "b"]) == pytest.approx((0.9 + 0.38) / 4)


def test_folds_have_a_mean_and_a_deviation() -> None:
    frame = predictions()
    frame["fold"] = ["1", "2"] * 6
    whole = metrics.report(frame, LABELS)
    accuracies = [whole["by_fold"][name]["accuracy"] for name in ("1", "2")]
    assert accuracies[0] != accuracies[1]
    assert whole["fold_mean"]["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-4)
    assert whole["fold_std"]["accuracy"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5, abs=1e-4)
    frame["fold"] = "1"
    assert metrics.report(frame, LABELS)["fold_std"]["accuracy"] is None
