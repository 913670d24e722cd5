from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from cxr_edge.errors import UsageError
from cxr_train import backbones, network
from cxr_train.presets import PRESETS, Settings

SMALL = Settings(size=64, alpha=0.35, weights=None)


def test_outputs_are_probabilities_and_a_mask_at_a_quarter_of_the_size() -> None:
    model = network.build(replace(SMALL, size=96), 3).model
    outputs = model.predict_on_batch(np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 1)).astype(np.float32))
    assert outputs["probabilities"].shape == (2, 3)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, rtol=1e-5)
    assert outputs["mask"].shape == (2, 24, 24, 1)
    assert outputs["mask"].min() >= 0
    assert outputs["mask"].max() <= 1


def test_the_activation_judges_each_cell_by_what_judges_the_picture() -> None:
    model = network.build(replace(SMALL, size=96), 3).model
    outputs = model.predict_on_batch(np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 1)).astype(np.float32))
    assert outputs["activation"].shape == (2, 6, 6, 3)
    np.testing.assert_allclose(outputs["activation"].sum(axis=-1), 1, rtol=1e-5)
    inner = keras.Model(model.input, model.get_layer("evidence_cells").output)
    cells = inner.predict_on_batch(np.zeros((1, 96, 96, 1), np.float32))
    kernel, bias = model.get_layer("logits").get_weights()
    expected = keras.ops.softmax(cells @ kernel[0, 0] + bias)
    activation = model.predict_on_batch(np.zeros((1, 96, 96, 1), np.float32))["activation"]
    np.testing.assert_allclose(activation, expected, atol=1e-5)


def test_only_what_lies_in_the_lungs_counts() -> None:
    """Every cell says the same, loudly: where no lung is seen, nothing of it reaches the verdict."""
    model = network.build(replace(SMALL, size=96), 3).model
    kernel, bias = model.get_layer("evidence_deep").get_weights()
    model.get_layer("evidence_deep").set_weights([kernel, np.full_like(bias, 5)])
    kernel, bias = model.get_layer("mask").get_weights()
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 96, 96, 1)).astype(np.float32)
    spread = {}
    for seen in (-100, 100):
        model.get_layer("mask").set_weights([np.zeros_like(kernel), np.full_like(bias, seen)])
        spread[seen] = float(np.ptp(model.predict_on_batch(picture)["probabilities"]))
    assert spread[-100] < 1e-6
    assert spread[100] > 1e-2


def test_the_label_does_not_bend_the_mask() -> None:
    net = network.build(SMALL, 2)
    net.model.compile(optimizer="sgd", loss={"probabilities": "categorical_crossentropy"})
    before = net.model.get_layer("mask").get_weights()
    x = np.random.default_rng(2).uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    net.model.train_on_batch(x, {"probabilities": np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]})
    for now, then in zip(net.model.get_layer("mask").get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_embedding_is_one_row_a_picture() -> None:
    outputs = network.build(SMALL, 2).model.output
    assert outputs["embedding"].shape[0] is None
    assert len(outputs["embedding"].shape) == 2


def test_one_gray_channel_gives_what_three_would(tmp_path: Path) -> None:
    published = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None)
    published.save_weights(tmp_path / "three.weights.h5")
    gray = np.random.default_rng(1).uniform(-1, 1, (1, 96, 96, 1)).astype(np.float32)
    one = backbones.mobilenet_v2(96, 0.35, str(tmp_path / "three.weights.h5")).predict_on_batch(gray)
    np.testing.assert_allclose(one, published.predict_on_batch(np.repeat(gray, 3, axis=-1)), atol=1e-4)


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    published = keras.applications.MobileNetV2(input_shape=(96, 96, 3), alpha=0.35, include_top=False, weights=None)
    published.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(UsageError, match="alpha"):
        backbones.mobilenet_v2(96, 1.0, str(tmp_path / "w.weights.h5"))
    with pytest.raises(UsageError, match="does not exist"):
        backbones.mobilenet_v2(96, 1.0, str(tmp_path / "absent.h5"))


def test_batch_normalisation_stays_as_it_was_while_fine_tuning() -> None:
    net = network.build(SMALL, 2)
    net.set_trainable(fine_tune=True)
    model = net.model
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
    net = network.build(SMALL, 2)
    net.set_trainable(fine_tune=False)
    names = {weight.path.split("/")[0] for weight in net.model.trainable_weights}
    assert names
    assert all(name.startswith(("decoder_", "evidence_", "logits", "mask")) for name in names)


def test_the_four_convolutions_have_the_published_number_of_parameters() -> None:
    model = network.build(PRESETS["cnn-4conv"].settings, 2).model
    assert model.count_params() == 1_993_729
    assert model.input_shape == (None, 150, 150, 1)
    megabytes = sum(weight.numpy().nbytes for weight in model.weights) / 2**20
    assert round(megabytes, 2) == 7.61


def test_the_two_phase_preset_frees_the_last_twenty_layers_but_batch_normalisation() -> None:
    settings = replace(PRESETS["two-phase"].settings, weights=None)
    net = network.build(settings, 3)
    net.set_trainable(fine_tune=True, fine_layers=settings.fine_layers)
    free = [layer for layer in net.backbone if layer.trainable]
    assert set(free) <= set(net.backbone[-20:])
    assert {type(layer).__name__ for layer in net.backbone[-20:] if layer not in free} == {"BatchNormalization"}


@pytest.mark.parametrize(("preset", "published"), [("resnet50", "resnet"), ("vgg16", "vgg16")])
def test_gray_is_prepared_as_the_backbone_was_trained(preset: str, published: str) -> None:
    settings = replace(PRESETS[preset].settings, weights=None, size=64)
    net = network.build(settings, 2)
    gray = np.random.default_rng(3).uniform(-1, 1, (1, 64, 64, 1)).astype(np.float32)
    prepared = keras.Model(net.model.input, net.model.get_layer("caffe_preprocessing").output)
    colour = np.repeat((gray + 1) * 127.5, 3, axis=-1)
    expected = getattr(keras.applications, published).preprocess_input(colour.copy())
    np.testing.assert_allclose(prepared.predict_on_batch(gray), expected, atol=1e-3)
    assert net.model.output["probabilities"].shape == (None, 1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_probabilities_of_every_task(name: str) -> None:
    for task, labels, width in (("softmax", 3, 3), ("sigmoid", 2, 1)):
        settings = replace(PRESETS[name].settings, weights=None, size=64, alpha=0.35, task=task)
        model = network.build(settings, labels).model
        p = model.predict_on_batch(np.zeros((1, 64, 64, 1), np.float32))["probabilities"]
        assert p.shape == (1, width)
        assert p.min() >= 0
        assert p.max() <= 1


@pytest.mark.parametrize(
    ("settings", "labels", "sentence"),
    [
        (replace(SMALL, task="sigmoid"), 3, "one sigmoid tells two labels apart, the table has 3"),
        (replace(SMALL, size=100), 2, "multiple of 32"),
        (replace(SMALL, backbone="vgg16"), 2, "no backbone"),
        (replace(SMALL, network="cnn-4conv", size=47), 2, "below 48"),
        (replace(SMALL, network="transfer", size=31), 2, "below 32"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: Settings, labels: int, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        network.build(settings, labels)
