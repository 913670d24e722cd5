"""Pretrained backbones without top, all fed one gray channel in [-1, 1]; each does its own preprocessing inside.

Weights are `imagenet` (Keras downloads them), a file, or None for random ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from cxr_edge.errors import UsageError

_CAFFE_MEANS_BGR = (103.939, 116.779, 123.68)
"""What Keras's ResNet50 and VGG16 subtract from blue, green and red in [0, 255] (`imagenet_utils`, mode "caffe")."""


def build(name: str, size: int, alpha: float, weights: str | None) -> tuple[Any, Any, list[keras.layers.Layer]]:
    """Build a backbone.

    Args:
        name: one of `presets.BACKBONES`.
        size: side of the square input, pixels.
        alpha: width multiplier, of MobileNetV2 only.
        weights: `imagenet`, a weights file of the backbone without top, or None.

    Returns:
        Its input, float32[B, size, size, 1] in [-1, 1], its output, float32[B, h, w, C], and its layers in order.

    Raises:
        UsageError: the weights cannot be had or do not fit.
    """
    if name == "mobilenet_v2":
        trunk = mobilenet_v2(size, alpha, weights)
        return trunk.input, trunk.output, trunk.layers
    make = keras.applications.ResNet50 if name == "resnet50" else keras.applications.VGG16
    trunk = _published(make, weights, name, input_shape=(size, size, 3), name="backbone")
    gray = keras.Input((size, size, 1), name="image")
    channels = layers.Concatenate(name="channels")([gray, gray, gray])
    offsets = [127.5 - mean for mean in _CAFFE_MEANS_BGR]
    x = layers.Rescaling(127.5, offset=offsets, name="caffe_preprocessing")(channels)
    return gray, trunk(x), trunk.layers


def mobilenet_v2(size: int, alpha: float, weights: str | None) -> keras.Model:
    """MobileNetV2 without top for one gray channel, its layers named as Keras names them.

    Published weights expect the gray channel three times; summing the first convolution over its input channels
    gives the same numbers from one channel, at a third of the input's memory.
    """
    make = keras.applications.MobileNetV2
    trunk = make(input_shape=(size, size, 1), alpha=alpha, include_top=False, weights=None, name="backbone")
    if weights is None:
        return trunk
    published = _published(make, weights, f"MobileNetV2 with alpha {alpha}", input_shape=(size, size, 3), alpha=alpha)
    for target, source in zip(trunk.layers, published.layers, strict=True):
        values = source.get_weights()
        if target.name == "Conv1":
            values[0] = np.sum(values[0], axis=2, keepdims=True)
        target.set_weights(values)
    return trunk


def _published(make: Any, weights: str | None, title: str, **shape: Any) -> keras.Model:
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise UsageError(f"weights file {weights} does not exist", "give a file, 'imagenet' or 'none'")
    try:
        return make(include_top=False, weights=weights, **shape)
    except ValueError as error:
        raise UsageError(f"{weights} does not fit {title}: {error}", "set --alpha or --backbone to its own") from error
    except Exception as error:  # Keras's downloader raises a bare Exception
        raise UsageError(
            f"weights {weights!r} of {title} cannot be had ({error})", "give a weights file, or --weights none"
        ) from error
