"""Every kind of model file through one face: ours, Keras 2's, somebody else's, and the box's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
import numpy as np
import pytest

from cxr_edge import judge, model_file, phantom, preprocess
from cxr_edge.errors import ModelRefused, UsageError
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime
from cxr_train import models

KERAS2 = Path(__file__).parent / "data" / "keras2.h5"
LABELS = ("normal", "pneumonia", "covid19")
SIDE = 16


def pixels(level: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((1, SIDE, SIDE, 1), level, np.uint8)


def test_a_run_of_ours_says_its_own_labels_and_input(brightness_run: Callable[..., Path], tmp_path: Path) -> None:
    predictor = models.load(brightness_run(tmp_path, mask=True))
    assert predictor.labels == ("bright", "dark")
    assert predictor.parameters == 4
    p, lung = predictor.predict(np.concatenate([pixels(255), pixels(0), pixels(191)]))
    assert p.dtype == np.float64
    assert p.sum(axis=1) == pytest.approx([1, 1, 1])
    assert p[:, 0] == pytest.approx([1 / (1 + np.exp(-12)), 1 / (1 + np.exp(12)), 0.9975], abs=1e-4)
    assert lung is not None
    assert lung.shape == (3, 4, 4)
    assert lung[:, 0, 0].tolist() == [255, 0, 192]
    gray = phantom.draw(1, height=96, width=120).image
    assert (predictor.prepare(gray) == preprocess.to_input(gray, predictor.spec)).all()


def test_one_sigmoid_is_the_probability_of_the_second_label(
    brightness_run: Callable[..., Path], tmp_path: Path
) -> None:
    predictor = models.load(brightness_run(tmp_path, sigmoid=True))
    assert predictor.labels == ("dark", "bright")
    p, lung = predictor.predict(pixels(255))
    assert p.tolist() == [pytest.approx([1 / (1 + np.exp(6)), 1 / (1 + np.exp(-6))], abs=1e-6)]
    assert lung is None


def test_a_model_in_memory_is_wrapped(brightness_network: Callable[..., keras.Model]) -> None:
    network = brightness_network(mask=True)
    listed = keras.Model(network.input, [network.output["mask"], network.output["probabilities"]])
    expected = models.wrap(network, ("a", "b"), InputSpec(SIDE, SIDE)).predict(pixels(150))
    found = models.wrap(listed, ("a", "b"), InputSpec(SIDE, SIDE)).predict(pixels(150))
    assert np.array_equal(expected[0], found[0])
    assert expected[1] is not None
    assert found[1] is not None
    assert np.array_equal(expected[1], found[1])
    single = keras.Model(network.input, network.output["probabilities"])
    assert models.wrap(single, ("a", "b"), InputSpec(SIDE, SIDE)).predict(pixels(150))[1] is None


def test_a_keras_2_file_gives_what_keras_2_gave() -> None:
    with pytest.raises((TypeError, ValueError)):  # else the file would prove nothing
        keras.models.load_model(KERAS2, compile=False)
    predictor = models.load(KERAS2, LABELS, "0..255")
    ramps = np.stack([np.tile(np.linspace(0, 255, 24), (24, 1)), np.tile(np.linspace(200, 0, 24), (24, 1)).T])
    p, _ = predictor.predict(np.rint(ramps)[..., np.newaxis].astype(np.uint8))
    # As tf-keras 2.21 printed them, see data/README.md.
    assert p[0] == pytest.approx([0.8907151222229004, 0.00103821384254843, 0.10824660956859589], abs=1e-6)
    assert p[1] == pytest.approx([0.7356030941009521, 0.005470036994665861, 0.2589268386363983], abs=1e-6)
    assert (predictor.spec.height, predictor.spec.width, predictor.parameters) == (24, 24, 255)


def test_an_early_keras_2_sequential_is_a_list_without_an_input(tmp_path: Path) -> None:
    shape = [None, SIDE, SIDE, 1]
    old = {"name": "flat", "batch_input_shape": shape, "data_format": "channels_last", "dtype": "float32"}
    dense = {"name": "out/dense", "units": 2, "activation": "softmax", "use_bias": True}
    file = tmp_path / "model.h5"
    layers = [keras.Input(shape[1:]), keras.layers.Flatten(name="flat"), keras.layers.Dense(2, "softmax", name="out")]
    network = keras.Sequential(layers)
    network.save(file)
    with h5py.File(file, "r+") as content:
        flat = [{"class_name": "Flatten", "config": old}, {"class_name": "Dense", "config": dense}]
        content.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": flat})
        content.attrs["keras_version"] = "2.1.6"
    p, _ = models.load(file, ("a", "b"), "0..1").predict(pixels(200))
    assert p == pytest.approx(network.predict(np.full((1, SIDE, SIDE, 1), 200 / 255), verbose=0), abs=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(("name", "white"), [("-1..1", 1.0), ("0..1", 1.0), ("0..255", 255.0)])
def test_pixels_say_the_range_of_somebody_elses_model(tmp_path: Path, suffix: str, name: str, white: float) -> None:
    head = keras.layers.Dense(1, activation="sigmoid")
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.GlobalMaxPooling2D(), head]
    keras.Sequential(layers).save(tmp_path / f"model{suffix}")
    predictor = models.load(tmp_path / f"model{suffix}", ("no", "yes"), name)
    kernel, bias = head.get_weights()
    logits = np.array([white, white * 51 / 255 if white > 1 or name == "0..1" else -0.6]) * kernel.sum() + bias
    p, _ = predictor.predict(np.concatenate([pixels(255), pixels(51)]))
    assert p[:, 1] == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-5)
    # Not stretched: other people's pipelines do not know of it.
    gray = np.full((40, 40), 90, np.uint8)
    gray[:20] = 120
    assert predictor.prepare(gray).min() == 90
    assert predictor.prepare(gray).max() == 120


def test_a_tflite_file_is_calibrated_as_the_box_calibrates_it() -> None:
    predictor = models.load(model_file.SHIPPED)
    shipped = model_file.read(model_file.SHIPPED)
    prepared = [predictor.prepare(phantom.draw(seed, height=256, width=256).image) for seed in (1, 2)]
    p, lung = predictor.predict(np.concatenate(prepared))
    engine = Engine(find_runtime(), shipped)
    for index, one in enumerate(prepared):
        alone = engine.infer(one)
        judgement = judge.judge(alone["probabilities"], shipped.manifest, "balanced")
        assert p[index] == pytest.approx(judgement.probabilities)
        assert lung is not None
        assert (lung[index] == alone["mask"]).all()
    assert (predictor.labels, predictor.parameters) == (shipped.manifest.labels, None)


def test_each_unusable_model_is_refused_with_one_sentence(brightness_run: Callable[..., Path], tmp_path: Path) -> None:
    ours = brightness_run(tmp_path / "ours")
    alone = tmp_path / "alone.keras"
    alone.write_bytes(ours.read_bytes())
    empty = brightness_run(tmp_path / "empty")
    empty.with_suffix(".json").write_text("{}")
    torn = tmp_path / "torn.keras"
    torn.write_bytes(ours.read_bytes()[:500])
    weights = tmp_path / "only.weights.h5"
    keras.models.load_model(ours).save_weights(weights)
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    many = tmp_path / "any.h5"
    image = keras.Input((None, None, 1))
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)).save(many)
    lists = tmp_path / "two.h5"
    image = keras.Input((SIDE, SIDE, 1))
    flat = keras.layers.Flatten()(image)
    keras.Model(image, [keras.layers.Dense(2)(flat), keras.layers.Dense(2)(flat)]).save(lists)
    strange = tmp_path / "strange.h5"
    strange.write_bytes(KERAS2.read_bytes())
    with h5py.File(strange, "r+") as content:
        config = content.attrs["model_config"].replace("math.truediv", "nn.gelu")
        content.attrs["model_config"] = config.replace('"RandomFlip"', '"Mine"').replace('"ReLU"', '"Lambda"')

    senseless = tmp_path / "senseless.h5"
    senseless.write_bytes(KERAS2.read_bytes())
    with h5py.File(senseless, "r+") as content:
        content.attrs["model_config"] = '{"class_name": "Functional", "config": {"layers": [{}]}}'

    cases: list[tuple[Path, tuple[str, ...], str, str]] = [
        (ours, ("a", "b"), "", "says its own labels"),
        (model_file.SHIPPED, (), "0..1", "says its own labels"),
        (alone, (), "", "has no model.json beside it"),
        (alone, ("a", "b"), "", "has no model.json beside it"),
        (KERAS2, (), "0..1", "has no model.json beside it"),
        (KERAS2, ("a", "b"), "0..1", "3 outputs for the labels a, b"),
        (torn, ("a", "b"), "0..1", "Keras cannot load it"),
        (weights, ("a", "b"), "0..1", "holds weights only"),
        (text, ("a", "b"), "0..1", "cannot be read as HDF5"),
        (many, ("a", "b"), "0..1", "is no picture of one size"),
        (lists, ("a", "b"), "0..1", "are not one row of probabilities"),
        (strange, LABELS, "0..1", "cannot read its layers Lambda, Mine, TFOpLambda(nn.gelu)"),
        (senseless, LABELS, "0..1", "describes no model that makes sense"),
        (tmp_path / "model.onnx", (), "", "is no .keras, .h5 or .tflite file"),
        (empty, (), "", "model.json: cannot be read ('labels')"),
    ]
    for file, labels, name, sentence in cases:
        with pytest.raises(UsageError) as caught:
            models.load(file, labels, name)
        assert sentence in caught.value.message, file
        assert "\n" not in caught.value.message
        assert caught.value.remedy
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(b"\0\0\0\0TFL3")
    with pytest.raises(ModelRefused, match="does not describe itself"):
        models.load(plain)


@pytest.mark.parametrize("level", [np.nan, 3.0])
def test_outputs_that_are_no_probabilities_are_refused(tmp_path: Path, level: float) -> None:
    image = keras.Input((SIDE, SIDE, 1))
    head = keras.layers.Dense(2)
    keras.Model(image, head(keras.layers.Flatten()(image))).save(tmp_path / "logits.h5")
    model = keras.models.load_model(tmp_path / "logits.h5")
    model.layers[-1].set_weights([np.full((SIDE * SIDE, 2), level), np.zeros(2)])
    model.save(tmp_path / "logits.h5")
    predictor = models.load(tmp_path / "logits.h5", ("a", "b"), "0..1")
    with pytest.raises(UsageError, match="are no probabilities"):
        predictor.predict(pixels(9))


def test_the_description_may_hold_more_than_is_needed(brightness_run: Callable[..., Path], tmp_path: Path) -> None:
    file = brightness_run(tmp_path)
    content = json.loads(file.with_suffix(".json").read_text())
    del content["task"]
    file.with_suffix(".json").write_text(json.dumps({**content, "of tomorrow": 1}))
    assert models.load(file).labels == ("bright", "dark")
