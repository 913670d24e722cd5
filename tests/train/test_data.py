from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr_edge import imaging, preprocess
from cxr_edge.preprocess import InputSpec
from cxr_train import data, phantoms, table
from cxr_train.augment import augment
from cxr_train.table import Source

SPEC = InputSpec(64, 64)
LABELS = ["normal", "pneumonia"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("data")
    source = phantoms.write_dataset(folder / "set", 48, side=128)
    meaning = Source(mask="mask", group="patient", origin="origin")
    table.build(source, folder / "table.csv", meaning, "", "", seed=0)
    return table.read(folder / "table.csv")


def test_held_out_pictures_come_once_in_order_and_as_the_box_sees_them(rows: pd.DataFrame) -> None:
    batches = data.Radiographs(rows, LABELS, SPEC, batch=8)
    pixels = np.concatenate([batches[index][0] for index in range(len(batches))])
    truth = np.concatenate([batches[index][1]["probabilities"] for index in range(len(batches))])
    assert [LABELS[index] for index in truth.argmax(axis=1)] == list(rows["label"])
    for index, path in enumerate(rows["path"]):
        box = preprocess.to_input(imaging.decode(Path(path).read_bytes(), (64, 64)).gray, SPEC)
        np.testing.assert_allclose((pixels[index] + 1) * 127.5, box[0], atol=1e-3)


def test_training_batches_depend_on_seed_and_epoch_alone(rows: pd.DataFrame) -> None:
    def batch(seed: int, epoch: int) -> np.ndarray:  # type: ignore[type-arg]
        batches = data.Radiographs(rows, LABELS, SPEC, batch=8, seed=seed, training=True)
        batches.start(epoch)
        return batches[1][0]

    np.testing.assert_array_equal(batch(1, 5), batch(1, 5))
    assert not np.array_equal(batch(1, 5), batch(1, 6))
    assert not np.array_equal(batch(1, 5), batch(2, 5))


def test_rows_without_a_mask_are_judged_nowhere(rows: pd.DataFrame) -> None:
    batches = data.Radiographs(rows, LABELS, SPEC, batch=len(rows))
    judged = batches[0][1]["mask"][..., 1].max(axis=(1, 2))
    assert list(judged > 0) == [mask != "" for mask in rows["mask"]]


def test_unjudged_pixels_are_not_truth() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 64:] = 255
    mask[:32] = 127
    truth = data.mask_truth(mask, SPEC)
    assert truth.shape == (16, 16, 2)
    assert truth[:4, :, 1].max() == 0
    assert truth[4:, :, 1].min() == 1
    np.testing.assert_array_equal(truth[4:, :8, 0], 0)
    np.testing.assert_array_equal(truth[4:, 8:, 0], 1)


def test_small_cells_count_more_but_not_as_much_as_large_ones() -> None:
    cells = pd.DataFrame({"label": ["a"] * 100 + ["b"] * 4, "origin": "x", "path": ""})
    weights = data.balanced_weights(cells)
    assert weights.sum() == pytest.approx(1)
    assert weights[100:].sum() == pytest.approx(2 / 12)


def test_augmentation_moves_picture_and_mask_together() -> None:
    # A picture that is its own mask must still be so after any geometry.
    square = np.zeros((200, 160), np.uint8)
    square[60:150, 40:110] = 255
    agreements = []
    for seed in range(20):
        gray, mask = augment(square, square.copy(), np.random.default_rng(seed))
        assert mask is not None
        assert gray.shape == mask.shape == square.shape
        agreements.append(float(((gray > 127) == (mask > 127)).mean()))
    # Cut-out and blur change a little; a mask left behind would agree in about 80 %.
    assert min(agreements) > 0.9
    assert np.median(agreements) > 0.98
