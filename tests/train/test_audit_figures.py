"""Figures and words of the shortcut audit, from predictions whose every figure is known by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from cxr_train import audit_figures, audit_words
from cxr_train.audit_figures import UNKNOWN_AGE, age_group, newcombe, probe

LABELS = ["ill", "well"]


def rows(view: str, truth: str, told: str, origin: str = "a", first: int = 0, age: str = "") -> pd.DataFrame:
    """Rows of one view: a letter for each picture, i or w; the answers are certain to 0.9."""
    names = {"i": "ill", "w": "well"}
    p_ill = [0.9 if letter == "i" else 0.1 for letter in told]
    numbers = range(first, first + len(truth))
    return pd.DataFrame(
        {
            "picture": list(numbers),
            "view": view,
            "path": [f"{number:03}.png" for number in numbers],
            "label": [names[letter] for letter in truth],
            "predicted": [names[letter] for letter in told],
            "p_ill": p_ill,
            "p_well": [1 - p for p in p_ill],
            "origin": origin,
            "group": [f"g{number // 2}" for number in numbers],
            "split": "test",
            "lungs": "truth",
            "age_group": age,
            "dice": float("nan"),
            "mask_entropy": float("nan"),
        }
    )


def figures(*parts: pd.DataFrame, embedding: Any = None) -> dict[str, Any]:
    return audit_figures.figures(pd.concat(parts, ignore_index=True), LABELS, embedding)


def test_what_remains_by_hand() -> None:
    truth = "i" * 20 + "w" * 30
    seen = "i" * 20 + "w" * 25 + "i" * 5
    found = figures(
        rows("whole", truth, seen), rows("no_lungs", truth, "i" * 10 + "w" * 40), rows("border", truth, "w" * 50)
    )
    assert found["guessing"] == {"label": "well", "share": 0.6, "chance": 0.5}
    remaining = found["views"]["no_lungs"]["remaining"]
    assert (remaining["excess"], remaining["left"], remaining["share"]) == (0.3, 0.2, pytest.approx(2 / 3, abs=1e-4))
    low, high = remaining["interval"]
    assert 0 < low < 2 / 3 < high
    # ROC AUC: 1 - 5/60 of the whole, 0.75 with the lungs hidden.
    assert remaining["area_share"] == pytest.approx(0.25 / (1 - 5 / 60 - 0.5), abs=1e-3)
    assert found["views"]["border"]["remaining"]["share"] == 0
    assert found["views"]["whole"]["remaining"] is None
    assert audit_words.level(found) == "most"


def test_a_view_of_some_pictures_is_compared_with_the_whole_of_the_same() -> None:
    whole = rows("whole", "iw" * 20, "iw" * 10 + "wi" * 10)
    some = rows("no_lungs", "iw" * 10, "iw" * 10)
    remaining = figures(whole, some, rows("border", "iw" * 20, "w" * 40))["views"]["no_lungs"]["remaining"]
    assert (remaining["excess"], remaining["share"], remaining["interval"]) == (0.5, 1.0, [1.0, 1.0])


@pytest.mark.parametrize(
    ("kept", "expected"), [(0, "little"), (8, "little"), (60, "part"), (100, "most"), (200, "most")]
)
def test_the_level_follows_what_remains(kept: int, expected: str) -> None:
    truth = "iw" * 200
    left = "iw" * kept + "ww" * (200 - kept)
    found = figures(rows("whole", truth, truth), rows("border", truth, left))
    assert found["views"]["border"]["remaining"]["share"] == kept / 200
    assert audit_words.level(found) == expected
    sentences = audit_words.verdict(found)
    assert sentences[0].startswith(audit_words.LEVELS[expected])
    assert sentences[-1] == audit_words.LAST


def test_the_order_counts_where_every_answer_falls_to_one_label() -> None:
    truth = "i" * 30 + "w" * 30
    shifted = rows("border", truth, "w" * 60)
    shifted["p_ill"] = [0.2] * 30 + [0.1] * 30
    shifted["p_well"] = 1 - shifted["p_ill"]
    found = figures(rows("whole", truth, truth), shifted)
    assert found["views"]["border"]["remaining"]["share"] == 0
    assert audit_words.level(found) == "most"
    sentences = audit_words.verdict(found)
    assert "ROC AUC with only the border" in sentences[0]
    assert "nothing remains with only the border" in sentences[2]
    assert "ROC AUC is still 1.000, 100 % of what" in sentences[2]


def test_a_model_that_guesses_has_nothing_to_audit() -> None:
    truth = "iw" * 20
    found = figures(rows("whole", truth, "iiww" * 10), rows("border", truth, truth))
    assert audit_words.level(found) == "nothing"
    assert found["views"]["border"]["remaining"]["share"] is None
    assert any("No age of these pictures is known" in sentence for sentence in audit_words.verdict(found))


def test_one_label_costs_sentences_and_nothing_else() -> None:
    found = figures(rows("whole", "i" * 12, "i" * 11 + "w"), rows("border", "i" * 12, "w" * 12))
    assert audit_words.level(found) == "nothing"
    assert found["contrasts"] == []
    assert any("no contrast inside one origin" in sentence for sentence in audit_words.verdict(found))


def test_origins_and_what_knowing_them_gives() -> None:
    here = [rows(view, "i" * 18 + "w" * 2, "i" * 20, "here") for view in ("whole", "border")]
    there = [rows(view, "w" * 18 + "i" * 2, "w" * 20, "there", 20) for view in ("whole", "border")]
    found = figures(*here, *there)
    assert found["origin_rule"] == found["views"]["whole"]["accuracy"] == 0.9
    assert found["by_origin"]["here"]["guessing"]["share"] == 0.9
    assert found["by_origin"]["there"]["support"] == {"ill": 2, "well": 18}
    assert found["contrasts"] == []  # two pictures are too few
    assert any("0.900 at most: 100 % of what the model has" in sentence for sentence in audit_words.verdict(found))


def test_contrasts_stay_inside_one_origin() -> None:
    # Each origin is told perfectly, and inside an origin nothing is.
    here = rows("whole", "iiiiiwwwww", "iiiiiiiiii", "here")
    there = rows("whole", "iiiiiwwwww", "wwwwwwwwww", "there", 10)
    found = figures(here, there, rows("border", "iiiiww", "iiiiii", "here"))
    assert [(one["origin"], one["labels"], one["pictures"]) for one in found["contrasts"]] == [
        ("here", ["ill", "well"], [5, 5]),
        ("there", ["ill", "well"], [5, 5]),
    ]
    assert all(one["views"]["whole"]["auc"] == 0.5 and "border" not in one["views"] for one in found["contrasts"])
    assert sum("which may be chance" in sentence for sentence in audit_words.verdict(found)) == 2


def test_newcombe_is_wilsons_kin() -> None:
    low, high = newcombe(0.9, 50, 50)
    assert 0.8 < low < 0.9 < high < 0.96
    assert newcombe(0.1, 50, 50) == [pytest.approx(1 - high, abs=1e-4), pytest.approx(1 - low, abs=1e-4)]
    certain = newcombe(1.0, 10, 10)
    assert 0.7 < certain[0] < 0.95
    assert certain[1] == 1
    assert newcombe(0.0, 10, 10) == [0, pytest.approx(1 - certain[0], abs=1e-4)]
    assert newcombe(0.9, 500, 500)[0] > low


def test_newcombes_interval_covers_what_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        ill, well = rng.normal(1.2, 1, 25), rng.normal(0, 1, 40)
        low, high = newcombe(float((ill[:, None] > well).mean()), 25, 40)
        covered += low <= 0.8019 <= high  # of the normal distribution at 1.2 / sqrt(2)
    assert 0.92 < covered / 400 < 0.99


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("17", "under 18"),
        ("17.9", "under 18"),
        ("18", "18 to 39"),
        ("039Y", "18 to 39"),
        ("40.0", "40 to 64"),
        (" 65 ", "65 and over"),
        ("006M", "under 18"),
        ("300M", "18 to 39"),
        ("0", "under 18"),
        ("120", "65 and over"),
        *((cell, UNKNOWN_AGE) for cell in ("", "411", "-3", "old", "nan", "58X", "1e1", "Y")),
    ],
)
def test_ages_are_put_into_groups(cell: str, expected: str) -> None:
    assert age_group(cell) == expected


def test_accuracy_by_age() -> None:
    young = [rows(view, "iw" * 20, "iw" * 20, age="under 18") for view in ("whole", "border")]
    old = [rows(view, "iw" * 20, "iiww" * 10, first=40, age="65 and over") for view in ("whole", "border")]
    nobody = [rows(view, "iw", "iw", first=80, age=UNKNOWN_AGE) for view in ("whole", "border")]
    found = figures(*young, *old, *nobody)
    assert list(found["by_age"]) == ["under 18", "65 and over"]
    assert (found["age_unknown"], found["age_rule"]) == (2, 0.5)
    (told,) = (sentence for sentence in audit_words.verdict(found) if "by age" in sentence)
    assert told.startswith("Accuracy differs by age: 0.500")
    assert "of those aged 65 and over, 1.000" in told
    assert "the age of 2 pictures is not known" in told
    alike = (part.assign(age_group="40 to 64", picture=part["picture"] + 100) for part in young)
    assert "does not differ by age" in " ".join(audit_words.verdict(figures(*young, *alike)))
    assert "cannot be compared" in " ".join(audit_words.verdict(figures(*young, *nobody)))


def test_the_probe_finds_an_origin_that_is_there_and_none_that_is_not() -> None:
    rng = np.random.default_rng(0)
    origins = np.array(["a", "b"] * 60)
    groups = np.array([f"g{number // 2 % 30}{origins[number]}" for number in range(120)])
    noise = rng.normal(size=(120, 40)).astype(np.float32)
    marked = noise.copy()
    marked[:, 7] += 6 * (origins == "b")
    found = probe(marked, origins, groups)
    assert found is not None
    assert found["balanced_accuracy"] > 0.9
    assert found["chance"] == 0.5
    assert found["interval"][0] <= found["balanced_accuracy"] <= found["interval"][1]
    blind = probe(noise, origins, groups)
    assert blind is not None
    assert blind["interval"][0] < 0.5 < blind["interval"][1]


def test_the_probe_is_judged_on_groups_that_it_never_saw() -> None:
    # Every group has its own mark, and no origin has one: only a probe that saw the group could tell.
    rng = np.random.default_rng(1)
    groups = np.repeat([f"g{number}" for number in range(40)], 5)
    origins = np.repeat(rng.permutation(["a", "b"] * 20), 5)
    marks = np.repeat(rng.normal(size=(40, 60)), 5, axis=0).astype(np.float32)
    found = probe(marks, origins, groups)
    assert found is not None
    assert found["balanced_accuracy"] < 0.75


def test_origins_of_few_groups_are_not_probed() -> None:
    origins = np.array(["a"] * 40 + ["b"] * 40 + ["c"] * 9)
    values = np.random.default_rng(0).normal(size=(89, 3)).astype(np.float32)
    groups = np.array([str(number) for number in range(89)])
    found = probe(values, origins, groups)
    assert found is not None
    assert found["origins"] == {"a": 40, "b": 40}
    assert probe(values, origins, np.array(["one"] * 89)) is None


def test_origin_within_one_label_is_told_in_words() -> None:
    truth = "iw" * 40
    parts = [
        rows(view, truth, truth, origin, first)
        for view in ("whole", "border")
        for origin, first in (("here", 0), ("there", 80))
    ]
    embedding = np.repeat([[0.0], [1.0]], 80, axis=0).astype(np.float32)
    found = figures(*parts, embedding=embedding)
    assert found["embedding"]["dimensions"] == 1
    assert set(found["embedding"]["by_label"]) == {"ill", "well"}
    told = " ".join(audit_words.verdict(found))
    assert "the origin (here, there) can be told nearly always, balanced accuracy 1.000" in told
    assert "Within one label" in told
    blind = figures(*parts, embedding=np.zeros((160, 1), np.float32))
    assert "hardly better than by chance" in " ".join(audit_words.verdict(blind))
