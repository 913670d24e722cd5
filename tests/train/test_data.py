from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_edge import imaging, preprocess
from cxr_edge.preprocess import InputSpec
from cxr_train import data, phantoms, table
from cxr_train.augment import augment
from cxr_train.table import Source

SPEC = InputSpec(64, 64)
LABELS = ["normal", "pneumonia"]
TARGET = data.Target(tuple(LABELS))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("data")
    source = phantoms.write_dataset(folder / "set", 48, side=128)
    meaning = Source(mask="mask", group="patient", origin="origin")
    table.build(source, folder / "table.csv", meaning, "", "", seed=0)
    return table.read(folder / "table.csv")


def test_held_out_pictures_come_once_in_order_and_as_the_box_sees_them(rows: pd.DataFrame) -> None:
    batches = data.Radiographs(rows, TARGET, SPEC, batch=8)
    pixels = np.concatenate([batch[0] for batch in batches.dataset().as_numpy_iterator()])
    truth = np.concatenate([batch[1]["probabilities"] for batch in batches.dataset().as_numpy_iterator()])
    assert [LABELS[index] for index in truth.argmax(axis=1)] == list(rows["label"])
    for index, path in enumerate(rows["path"]):
        box = preprocess.to_input(imaging.decode(Path(path).read_bytes(), (64, 64)).gray, SPEC)
        np.testing.assert_allclose((pixels[index] + 1) * 127.5, box[0], atol=1e-3)


def test_training_batches_depend_on_seed_and_epoch_alone(rows: pd.DataFrame) -> None:
    def batch(seed: int, epoch: int) -> np.ndarray:  # type: ignore[type-arg]
        batches = data.Radiographs(rows, TARGET, SPEC, batch=8, drawing=data.Drawing("origin", "strong", seed))
        return np.asarray(batches.load(epoch, 1)[0])

    np.testing.assert_array_equal(batch(1, 5), batch(1, 5))
    assert not np.array_equal(batch(1, 5), batch(1, 6))
    assert not np.array_equal(batch(1, 5), batch(2, 5))


def test_rows_without_a_mask_are_judged_nowhere(rows: pd.DataFrame) -> None:
    batches = data.Radiographs(rows, TARGET, SPEC, batch=len(rows))
    judged = batches.load(0, 0)[1]["mask"][..., 1].max(axis=(1, 2))
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


def test_a_mask_published_in_another_size_is_brought_to_its_picture(rows: pd.DataFrame, tmp_path: Path) -> None:
    masked = rows[rows["mask"] != ""].head(4).reset_index(drop=True)
    half = masked.copy()
    for index, mask in enumerate(masked["mask"]):
        with Image.open(mask) as image:
            image.resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / f"{index}.png")
        half.loc[index, "mask"] = str(tmp_path / f"{index}.png")
    drawing = data.Drawing("none", "light", 3)
    whole, small = (
        data.Radiographs(some, TARGET, SPEC, batch=4, drawing=drawing).load(0, 0)[1]["mask"] for some in (masked, half)
    )
    assert np.abs(whole - small).mean() < 0.03


def test_class_weights_weigh_the_label_and_never_the_mask(rows: pd.DataFrame) -> None:
    some = rows[(rows["label"] == "normal") | (rows.index % 4 == 1)].reset_index(drop=True)
    batches = data.Radiographs(some, TARGET, SPEC, batch=len(some), drawing=data.Drawing("class-weights", "none", 0))
    _, truth, weights = batches.load(0, 0)
    own = weights["probabilities"]
    ill = truth["probabilities"][:, 1] == 1
    assert own[ill].sum() == pytest.approx(own[~ill].sum())
    assert own.sum() == pytest.approx(len(some))
    assert set(weights["mask"]) == {1}


def test_a_sigmoid_is_taught_the_second_label(rows: pd.DataFrame) -> None:
    target = data.Target(tuple(LABELS), "sigmoid", mask=False)
    _, truth = data.Radiographs(rows, target, SPEC, batch=len(rows)).load(0, 0)
    assert set(truth) == {"probabilities"}
    assert [LABELS[int(value)] for value in truth["probabilities"][:, 0]] == list(rows["label"])


def test_no_augmentation_changes_nothing() -> None:
    gray = np.random.default_rng(0).integers(0, 256, (40, 30), dtype=np.uint8)
    same, mask = augment(gray, None, np.random.default_rng(1), "none")
    np.testing.assert_array_equal(same, gray)
    assert mask is None


@pytest.mark.parametrize("strength", ["light", "strong"])
def test_augmentation_moves_picture_and_mask_together(strength: str) -> None:
    # A picture that is its own mask must still be so after any geometry.
    square = np.zeros((200, 160), np.uint8)
    square[60:150, 40:110] = 255
    agreements = []
    for seed in range(20):
        gray, mask = augment(square, square.copy(), np.random.default_rng(seed), strength)
        assert mask is not None
        assert gray.shape == mask.shape == square.shape
        agreements.append(float(((gray > 127) == (mask > 127)).mean()))
    # Cut-out and blur change a little; a mask left behind would agree in about 80 %.
    assert min(agreements) > 0.9
    assert np.median(agreements) > 0.98
