from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from cxr_edge.errors import UsageError
from cxr_train import network


def test_outputs_are_probabilities_and_a_mask_at_a_quarter_of_the_size() -> None:
    model = network.build(3, size=96, alpha=0.35, weights=None)
    outputs = model.predict_on_batch(np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 1)).astype(np.float32))
    assert outputs["probabilities"].shape == (2, 3)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert outputs["mask"].shape == (2, 24, 24, 1)
    assert outputs["mask"].min() >= 0
    assert outputs["mask"].max() <= 1


def test_one_gray_channel_gives_what_three_would(tmp_path: Path) -> None:
    published = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None)
    published.save_weights(tmp_path / "three.weights.h5")
    gray = np.random.default_rng(1).uniform(-1, 1, (1, 96, 96, 1)).astype(np.float32)
    one = network.backbone(96, 0.35, str(tmp_path / "three.weights.h5")).predict_on_batch(gray)
    np.testing.assert_allclose(one, published.predict_on_batch(np.repeat(gray, 3, axis=-1)), atol=1e-4)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    published = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None)
    published.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UsageError, match="alpha"):
        network.backbone(96, 1.0, str(tmp_path / "w.weights.h5"))
    with pytest.raises(UsageError, match="does not exist"):
        network.backbone(96, 1.0, str(tmp_path / "absent.h5"))


def test_batch_normalisation_stays_as_it_was_while_fine_tuning() -> None:
    model = network.build(2, size=64, alpha=0.35, weights=None)
    network.set_trainable(model, fine_tune=True)
    model.compile(optimizer="sgd", loss={"probabilities": "categorical_crossentropy", "mask": "mse"})
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.get_weights() for layer in norms]
    kernel = model.get_layer("Conv1").get_weights()[0]
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    y = {"probabilities": np.eye(2, dtype=np.float32)[[0, 1, 0, 1]], "mask": np.zeros((4, 16, 16, 1), np.float32)}
    model.train_on_batch(x, y)
    assert norms
    for layer, weights in zip(norms, before, strict=True):
        for now, then in zip(layer.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
    assert not np.array_equal(model.get_layer("Conv1").get_weights()[0], kernel)


def test_the_frozen_phase_moves_the_heads_only() -> None:
    model = network.build(2, size=64, alpha=0.35, weights=None)
    network.set_trainable(model, fine_tune=False)
    names = {weight.path.split("/")[0] for weight in model.trainable_weights}
    assert names
    assert all(name.startswith(("decoder_", "logits", "mask")) for name in names)
