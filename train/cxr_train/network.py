"""The multi-task network: a MobileNetV2 backbone, a softmax head for the label, a small decoder for the lung mask.

Input: float32[B, H, W, 1] in [-1, 1], that is `cxr_edge.preprocess.to_input(...) / 127.5 - 1`; H, W multiples of 32.
Outputs: `probabilities` float32[B, labels], and `mask` float32[B, H/4, W/4, 1], the probability of lung.
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
from keras import layers

from cxr_edge.errors import UsageError

SKIPS = ("block_12_add", "block_5_add", "block_2_add")
"""Backbone layers that the decoder reads besides the last one: 1/16, 1/8 and 1/4 of the input's size."""


def build(
    labels: int, *, size: int = 224, alpha: float = 1.0, weights: str | None = "imagenet", dropout: float = 0.2
) -> keras.Model:
    """Build the network.

    Args:
        labels: number of labels of the softmax head.
        size: side of the square input, pixels, a multiple of 32.
        alpha: width multiplier of MobileNetV2 (Sandler et al., CVPR 2018).
        weights: `imagenet` (Keras downloads it), a weights file of MobileNetV2 without top, or None for random.
        dropout: share of the pooled features dropped in training, [0, 1).

    Raises:
        UsageError: the weights file is missing or belongs to another alpha.
    """
    trunk = backbone(size, alpha, weights)
    deep = trunk.output
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(deep)
    pooled = layers.Dropout(dropout, name="dropout")(pooled)
    # A 1x1 convolution, not a dense layer: tflite-runtime 2.14 computes per-channel fully-connected layers wrong.
    logits = layers.Conv2D(labels, 1, name="logits")(pooled)
    probabilities = layers.Softmax(name="probabilities")(layers.Flatten(name="flat")(logits))

    x = layers.Conv2D(64, 1, name="decoder_top")(deep)
    for skip, filters in zip(SKIPS, (64, 48, 32), strict=True):
        step = f"decoder_{filters}_{skip}"
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{step}_up")(x)
        x = layers.Conv2D(filters, 1, name=f"{step}_project")(x) if x.shape[-1] != filters else x
        side = layers.Conv2D(filters, 1, name=f"{step}_skip")(trunk.get_layer(skip).output)
        x = layers.ReLU(6.0, name=f"{step}_relu")(layers.Add(name=f"{step}_add")([x, side]))
        x = layers.SeparableConv2D(filters, 3, padding="same", name=f"{step}_mix")(x)
        x = layers.ReLU(6.0, name=f"{step}_out")(x)
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    return keras.Model(trunk.input, {"probabilities": probabilities, "mask": mask}, name="multitask")


def backbone(size: int, alpha: float, weights: str | None) -> keras.Model:
    """MobileNetV2 without top for one gray channel, its layers named as Keras names them.

    Published weights expect the gray channel three times; summing the first convolution over its input channels
    gives the same numbers from one channel, at a third of the input's memory.
    """
    if weights not in (None, "imagenet") and not Path(str(weights)).is_file():
        raise UsageError(f"weights file {weights} does not exist", "give a file, 'imagenet' or 'none'")
    trunk = keras.applications.MobileNetV2(
        input_shape=(size, size, 1), alpha=alpha, include_top=False, weights=None, name="backbone"
    )
    if weights is None:
        return trunk
    try:
        published = keras.applications.MobileNetV2(
            input_shape=(size, size, 3), alpha=alpha, include_top=False, weights=weights
        )
    except ValueError as error:
        raise UsageError(f"{weights} does not fit MobileNetV2 with alpha {alpha}: {error}", "set --alpha") from error
    for target, source in zip(trunk.layers, published.layers, strict=True):
        values = source.get_weights()
        if target.name == "Conv1":
            values[0] = np.sum(values[0], axis=2, keepdims=True)
        target.set_weights(values)
    return trunk


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of `model` that belong to the backbone: all up to the last activation before the heads."""
    names = [layer.name for layer in model.layers]
    return list(model.layers[: names.index("out_relu") + 1])


def set_trainable(model: keras.Model, *, fine_tune: bool) -> None:
    """Freeze the backbone, or free it except for its batch normalisation.

    A frozen Keras batch normalisation also runs in inference mode. Keras's MobileNetV2 has momentum 0.999: with the
    few steps of a fine-tuning its moving statistics go stale, and validation collapses while the loss falls.
    """
    for layer in backbone_layers(model):
        layer.trainable = fine_tune and not isinstance(layer, layers.BatchNormalization)
