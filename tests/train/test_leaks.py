from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cxr_edge import phantom
from cxr_edge.imaging import decode, read_bytes
from cxr_train import leaks


def bits_apart(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> int:
    """How many pixels of two pictures' hashes differ."""
    first, second = (np.unpackbits(leaks.perceptual_hash(gray)) for gray in (one, other))
    return int((first != second).sum())


@pytest.fixture(scope="module")
def grays(radiographs: list[Path]) -> list[NDArray[np.uint8]]:
    return [decode(read_bytes(path), (320, 320)).gray for path in radiographs]


def test_a_changed_copy_is_near_and_another_picture_is_not(grays: list[NDArray[np.uint8]]) -> None:
    for gray in grays:
        image = Image.fromarray(gray)
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=30)
        copies = [image.resize((224, 224)), image.reduce(2), Image.open(jpeg), image.point(lambda v: int(v * 0.8) + 20)]
        assert all(bits_apart(gray, np.asarray(copy)) <= leaks.DISTANCE for copy in copies)
    apart = [bits_apart(one, other) for number, one in enumerate(grays) for other in grays[:number]]
    assert min(apart) > leaks.DISTANCE


def test_the_known_near_duplicates_of_real_data_are_found_and_no_others(data_dir: Path | None) -> None:
    # The first 400 pictures of a source and its squashed copies elsewhere; phantoms and their copies without data.
    if data_dir:
        rows = pd.read_csv(data_dir / "table.csv", dtype=str, keep_default_na=False)
        known = (
            rows[rows["origin"].isin(["kermany", "radiography"])]
            .groupby("duplicate_group")
            .filter(lambda g: len(g) > 1)
        )
        chosen = known[known["duplicate_group"].isin(known["duplicate_group"].unique()[:120])]
        grays = [decode(read_bytes(data_dir / file), (10**6, 10**6)).gray for file in chosen["file"]]
        truth = list(chosen["duplicate_group"])
    else:
        drawn = [phantom.draw(seed, height=200, width=260).image for seed in range(40)]
        grays = drawn + [np.asarray(Image.fromarray(image).resize((224, 224))) for image in drawn]
        truth = [str(number) for number in range(40)] * 2
    hashes = np.stack([leaks.perceptual_hash(gray) for gray in grays])
    sets = leaks.linked(len(hashes), leaks.near_pairs(hashes))
    assert pd.Series(truth).nunique() < len(truth)
    assert pd.Series(sets).groupby(truth).nunique().max() == 1
    assert pd.Series(truth).groupby(sets).nunique().max() == 1


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(0, 7))
def test_near_pairs_link_what_a_plain_comparison_links(values: list[int], distance: int) -> None:
    hashes = np.array(values, np.uint8)[:, None]
    plain = [
        (one, other)
        for other in range(len(values))
        for one in range(other)
        if (values[one] ^ values[other]).bit_count() <= distance
    ]
    pairs = leaks.near_pairs(hashes, distance)
    assert {tuple(pair) for pair in pairs.tolist()} <= set(plain)
    expected = leaks.linked(len(values), np.array(plain, np.int64).reshape(-1, 2))
    np.testing.assert_array_equal(leaks.linked(len(values), pairs), expected)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 8)), max_size=30))
def test_merged_groups_tear_neither_groups_nor_sets_and_join_no_more(things: list[tuple[str, int]]) -> None:
    groups, sets = [group for group, _ in things], [number for _, number in things]
    merged = leaks.merged(groups, sets)
    assert len(merged) == len(things)
    rows = pd.DataFrame({"group": groups, "set": sets, "merged": merged})
    for name in ("group", "set"):
        assert (rows.groupby(name)["merged"].nunique() <= 1).all()
    # The smallest closure, by repeated relabelling.
    reached = list(groups)
    for _ in things:
        for key in (groups, [str(number) for number in sets]):
            least = pd.Series(reached, dtype=object).groupby(pd.Series(key, dtype=object)).min()
            reached = [str(least[value]) for value in key]
    assert merged == reached


def test_a_thousand_copies_are_a_thousand_pairs() -> None:
    pairs = leaks.near_pairs(np.zeros((1000, leaks.BYTES), np.uint8))
    assert len(pairs) == 999
    assert len(set(leaks.linked(1000, pairs))) == 1


def table(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "label", "split", "pixels"])


def test_the_report_names_copies_near_duplicates_and_torn_sets() -> None:
    rows = table(
        ("a", "ill", "train", "1"),
        ("b", "ill", "test", "1"),
        ("c", "ill", "train", "2"),
        ("d", "well", "train", "3"),
        ("e", "well", "external", "4"),
        ("f", "well", "train", "5"),
        ("g", "well", "test", "6"),
    )
    lines = list(leaks.report(rows, np.array([0, 0, 1, 1, 2, 2, 3]), "resplit"))
    assert lines == [
        "identical pictures: 2, sets of them: 1, e.g. a and b",
        "near-duplicates: 4, sets of them: 2, e.g. c and d",
        "near-duplicates of two labels, sets: 1, e.g. c (ill) and d (well)",
        "LEAK: sets of one picture that lie in two splits: 1, e.g. a (train) and b (test): resplit",
        "LEAK: sets of one picture that lie in train and in external: 1, e.g. e (external) and f (train): "
        "leave them out by --where",
    ]
    (clean,) = leaks.report(rows[2:3], np.array([0]), "")
    assert clean.startswith("leaks: no picture")


def test_the_same_pixels_with_two_labels_contradict() -> None:
    rows = table(("a", "ill", "train", "1"), ("b", "well", "test", "1"), ("c", "ill", "train", "2"))
    found = leaks.contradictions(rows)
    assert set(found) == {0, 1}
    assert found[0] == "a: is labelled 'ill', but b, the same pixels, 'well'"
