from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from cxr_convert import equalise
from cxr_edge.preprocess import scale

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 1, 24, 24, 1), dtype=np.uint8)


def block(x: Any, relu: Any) -> tuple[Any, Any]:
    """Depthwise convolution, batch normalisation and ReLU; channels of very different ranges."""
    x = layers.DepthwiseConv2D(3, use_bias=False)(layers.Conv2D(8, 3)(x))
    norm = layers.BatchNormalization()
    x = norm(x)
    gamma, beta, mean, variance = norm.get_weights()
    norm.set_weights([gamma * np.logspace(-2, 0.5, 8), beta + 0.01, mean, variance * 0.01])
    return norm, relu(x)


def network(relu: Any, last: Any = None, *, read_twice: bool = False) -> tuple[keras.Model, Any, Any]:
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 1))
    norm, x = block(image, relu)
    convolution = last or layers.Conv2D(5, 1)
    outputs = [convolution(x)] + ([x] if read_twice else [])
    return keras.Model(image, outputs), norm, convolution


def answers(model: keras.Model) -> np.ndarray:  # type: ignore[type-arg]
    outputs = keras.tree.flatten(model(scale(PICTURES[:, 0]), training=False))
    return np.concatenate([np.asarray(output).ravel() for output in outputs])


def test_the_network_computes_the_same_with_evener_channels() -> None:
    model, norm, _ = network(layers.ReLU(6.0))
    before = [values.copy() for values in model.get_weights()]
    evener = equalise.equalised(model, PICTURES)
    assert evener is not model
    for old, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, now)
    np.testing.assert_allclose(answers(evener), answers(model), rtol=1e-4, atol=1e-4)

    def spread(of: keras.Model) -> float:
        probe = keras.Model(of.input, of.get_layer(norm.name).output)
        highest = np.asarray(probe(scale(PICTURES[:, 0]))).max(axis=(0, 1, 2)).clip(0, 6)
        return float(highest.max() / highest.min())

    assert spread(evener) < 0.8 * spread(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: network(layers.ReLU()),
        lambda: network(layers.ReLU(6.0, negative_slope=0.1)),
        lambda: network(layers.ReLU(6.0), layers.SeparableConv2D(5, 1)),
        lambda: network(layers.ReLU(6.0), layers.Conv2D(4, 1, groups=2)),
        lambda: network(layers.ReLU(6.0), read_twice=True),
    ],
    ids=["no top", "leaky", "separable", "groups", "read twice"],
)
def test_where_it_would_change_something_nothing_is_changed(make: Callable[[], tuple[keras.Model, Any, Any]]) -> None:
    model = make()[0]
    assert equalise.equalised(model, PICTURES) is model


def test_a_channel_that_is_never_on_stays_finite() -> None:
    model, norm, _ = network(layers.ReLU(6.0))
    gamma, beta, mean, variance = norm.get_weights()
    gamma[0], beta[0] = 0, -1
    norm.set_weights([gamma, beta, mean, variance])
    evener = equalise.equalised(model, PICTURES)
    assert all(np.isfinite(values).all() for values in evener.get_weights())
    np.testing.assert_allclose(answers(evener), answers(model), rtol=1e-4, atol=1e-4)


def test_mobilenet_v2_is_evened_out_in_every_block() -> None:
    backbone = keras.applications.MobileNetV2((64, 64, 1), alpha=0.35, include_top=False, weights=None)
    assert len(list(equalise._triples(backbone))) == 17
