"""The same picture twice: pixel for pixel, or so alike that one in training gives away the other in the test.

Near-duplicates are pictures whose perceptual hashes (`imagehash.phash`, 16 x 16 of the lowest frequencies of a 64 x 64
copy, 256 bits; Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010) differ in at most
`DISTANCE` bits. The copy is square, so a picture squashed to a square has the hash of its original.

Chosen on 11,575 chest radiographs (Kermany, NIH, ieee8023, COVID-CXNet, COVID-19 Radiography Database, squashed and
re-encoded copies among them) in which 1,739 pairs were known to be the same picture, of 67 million:

    bits differing, at most      20    30    36    38    40    46    50
    known pairs found, %         99.4  99.8  100   100   100   100   100
    other pairs found             1     3     7     9    16    35    77

All 7 other pairs up to 36 are, looked at, one picture after all (cropped by a few pixels, or framed). From 38 on,
children of one scanner who differ in nothing that a thumbnail shows are taken for one another. 64 bits find 99.2 %
with 18 others, 99.7 % with 345; difference, average and wavelet hashes of 256 bits are worse too.
253 brain MRI slices make 207 sets; all that were looked at (the 14 largest) are true. Nine more pairs of one head
(moved, cropped, the next slice) lie between 38 and 56 and are not found.

Found at 36, of 600 pictures changed on purpose: all after squashing, halving, JPEG at quality 30, gamma 0.7 and 1.4 or
stretched contrast; 99.5 % cropped by 1 % on each side, 60 % by 2 %, 1 % by 3 %; 97 % with letters drawn in or turned by
1 degree; 75 % with an equalised histogram. Not found: mirrored, inverted, padded, more cropped or turned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DISTANCE = 36
"""Bits of 256."""
_SIDE = 16
BYTES = _SIDE * _SIDE // 8
_CHUNK = 512
"""Pictures compared with all others in one go."""
_EXAMPLES = 3


def perceptual_hash(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The hash of a picture, uint8[H, W] -> uint8[32], 256 bits packed."""
    return np.packbits(imagehash.phash(Image.fromarray(gray), hash_size=_SIDE).hash)


def near_pairs(hashes: NDArray[np.uint8], distance: int = DISTANCE) -> NDArray[np.int64]:
    """Pairs that link all pictures whose hashes differ in at most `distance` bits.

    Pictures with one and the same hash are linked to the first of them only, so that a thousand copies are not half a
    million pairs. Memory: 4 bytes a bit and picture, and `_CHUNK` rows of distances.

    Args:
        hashes: uint8[N, bytes], packed bits.

    Returns:
        int64[pairs, 2], indices below N, the first of a pair before the second.
    """
    distinct, first, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    copies = np.flatnonzero(first[which.ravel()] != np.arange(len(hashes)))
    found = [np.column_stack([first[which.ravel()[copies]], copies])]
    # Bits as -1 and 1: their product is the number of bits less twice the distance.
    signs = np.unpackbits(distinct, axis=1).astype(np.float32) * 2 - 1
    for start in range(0, len(signs), _CHUNK):
        alike = signs[start : start + _CHUNK] @ signs[start:].T >= signs.shape[1] - 2 * distance
        one, other = np.nonzero(np.triu(alike, k=1))
        found.append(np.sort(np.column_stack([first[one + start], first[other + start]]), axis=1))
    return np.concatenate(found).astype(np.int64)


def linked(count: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the sets that `pairs`, int64[P, 2], link among `count` things: int64[count], from 0."""
    edges = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(edges, directed=False)[1], dtype=np.int64)


def merged(groups: Sequence[str], sets: Sequence[int]) -> list[str]:
    """Groups so large that neither a group nor a set is torn; each is named as the first of its groups, by alphabet."""
    by_group, by_set = pd.factorize(np.asarray(groups, dtype=object))[0], pd.factorize(np.asarray(sets))[0]
    # Pictures first, then one thing more for each group and each set.
    count = len(groups)
    pictures = np.arange(count)
    to_group = np.column_stack([pictures, count + by_group])
    to_set = np.column_stack([pictures, count + by_group.max(initial=-1) + 1 + by_set])
    total = count + by_group.max(initial=-1) + by_set.max(initial=-1) + 2
    whole = linked(int(total), np.concatenate([to_group, to_set]).astype(np.int64))[:count]
    return list(pd.Series(list(groups), dtype=object).groupby(whole).transform("min"))


def contradictions(rows: pd.DataFrame) -> dict[int, str]:
    """Rows, by index, whose very pixels stand in another row with another label; needs `path`, `label`, `pixels`."""
    sentences = {}
    for _, same in rows[rows["pixels"].duplicated(keep=False)].groupby("pixels", sort=False):
        if same["label"].nunique() > 1:
            for row in same.itertuples():
                other = same[same["label"] != row.label].iloc[0]
                twin = f"{other['path']}, the same pixels, {other['label']!r}"
                sentences[int(row.Index)] = f"{row.path}: is labelled {row.label!r}, but {twin}"
    return sentences


def report(rows: pd.DataFrame, sets: NDArray[np.int64], remedy: str) -> Iterator[str]:
    """Lines on what stands in the table twice, and on what of it lies in two splits.

    Args:
        rows: with `path`, `label`, `split` and `pixels`.
        sets: int64[rows], the number of each row's set of near-duplicates.
        remedy: for sets torn between train, validation and test.
    """
    marked = rows.assign(set=sets)
    copies = marked[marked["pixels"].duplicated(keep=False)]
    if len(copies):
        sets_of_copies = copies["pixels"].nunique()
        yield f"identical pictures: {len(copies)}, sets of them: {sets_of_copies}, {_example(copies, 'pixels')}"
    distinct = marked.drop_duplicates(["set", "pixels"])
    near = distinct[distinct["set"].duplicated(keep=False)]
    if len(near):
        yield f"near-duplicates: {len(near)}, sets of them: {near['set'].nunique()}, {_example(near, 'set')}"
    labels = marked.groupby("set")["label"].transform("nunique")
    if (labels > 1).any():
        two = marked[labels > 1]
        yield f"near-duplicates of two labels, sets: {two['set'].nunique()}, {_example(two, 'set', 'label')}"
    inside = marked[marked["split"] != "external"]
    outward = marked[marked["split"].isin(["train", "external"])]
    torn = [
        *_torn(inside, "LEAK: sets of one picture that lie in two splits", remedy),
        *_torn(outward, "LEAK: sets of one picture that lie in train and in external", "leave them out by --where"),
    ]
    yield from torn or ["leaks: no picture, nor a near-duplicate of it, lies in two splits"]


def torn_groups(rows: pd.DataFrame) -> tuple[int, str]:
    """How many values of `group` lie in two splits, and the first with one picture of each as an example."""
    marked = rows[rows.groupby("group")["split"].transform("nunique") > 1]
    if marked.empty:
        return 0, ""
    group = marked["group"].iloc[0]
    return marked["group"].nunique(), f"{group!r}: {_members(marked[marked['group'] == group], 'split')}"


def _torn(rows: pd.DataFrame, sentence: str, remedy: str) -> Iterator[str]:
    torn = rows[rows.groupby("set")["split"].transform("nunique") > 1]
    if len(torn):
        examples = [_members(members, "split") for _, members in torn.groupby("set")][:_EXAMPLES]
        yield f"{sentence}: {torn['set'].nunique()}, e.g. {'; '.join(examples)}: {remedy}"


def _example(rows: pd.DataFrame, key: str, differing: str = "path") -> str:
    return f"e.g. {_members(rows[rows[key] == rows[key].iloc[0]], differing)}"


def _members(rows: pd.DataFrame, differing: str) -> str:
    """Two rows that differ in a column, by path and, unless it is that, the column."""
    two = rows.drop_duplicates(differing).head(2)
    return " and ".join(
        row.path + (f" ({getattr(row, differing)})" * (differing != "path")) for row in two.itertuples()
    )
