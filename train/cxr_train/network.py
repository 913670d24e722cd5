"""The networks: a backbone with a label head, with or without a lung mask decoder, and two plain CNNs.

Input: float32[B, H, W, 1] in [-1, 1], that is `cxr_edge.preprocess.to_input(...) / 127.5 - 1`.
Outputs, a dict: `probabilities` float32[B, labels] (softmax) or float32[B, 1] (sigmoid: of the second label), and of
the multi-task network

    mask        float32[B, H/4, W/4, 1], the probability of lung
    activation  float32[B, H/16, W/16, labels or 1], the probability of each label by what lies in that cell alone
    embedding   float32[B, channels], what the picture looks like half-way through the backbone: for the box's gate
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import layers

from cxr_edge.errors import UsageError
from cxr_train import backbones
from cxr_train.presets import Settings

TAUGHT = ("probabilities", "mask")
LOOK = "block_9_add"
"""The layer whose spatial mean is the embedding. Early enough to see what kind of picture it is, not what is found."""
SKIPS = ("block_12_add", "block_5_add", "block_2_add")
"""Backbone layers that the decoder reads besides the last one: 1/16, 1/8 and 1/4 of the input's size."""
EVIDENCE = 128
"""Channels of the cells, 1/16 of the input's size, that the label is judged by."""


@dataclass(frozen=True)
class Network:
    """A Keras model, and which of its layers are the backbone (none of a plain CNN's)."""

    model: keras.Model
    backbone: list[keras.layers.Layer]

    @property
    def taught(self) -> keras.Model:
        """The same layers with the outputs that have a truth: Keras fits no model of which an output has none."""
        outputs = {name: output for name, output in self.model.output.items() if name in TAUGHT}
        return keras.Model(self.model.input, outputs)

    def set_trainable(self, *, fine_tune: bool, fine_layers: int = 0) -> None:
        """Freeze the backbone, or free its last `fine_layers` layers (0: all) except for its batch normalisation.

        A frozen Keras batch normalisation also runs in inference mode. Keras's MobileNetV2 has momentum 0.999: with
        the few steps of a fine-tuning its moving statistics go stale, and validation collapses while the loss falls.
        """
        first_free = len(self.backbone) - fine_layers if fine_layers else 0
        for number, layer in enumerate(self.backbone):
            free = fine_tune and number >= first_free
            layer.trainable = free and not isinstance(layer, layers.BatchNormalization)


def build(settings: Settings, labels: int) -> Network:
    """Build the network that the settings name, for a number of labels.

    Raises:
        UsageError: weights cannot be had, or the size or the number of labels does not fit the network.
    """
    if settings.task == "sigmoid" and labels != 2:
        raise UsageError(
            f"one sigmoid tells two labels apart, the table has {labels}",
            "give --task softmax, or a table of two labels",
        )
    if settings.network == "multitask":
        return _multitask(settings, labels)
    if settings.network == "transfer":
        return _transfer(settings, labels)
    if settings.size < 48:
        raise UsageError(f"the input's side of {settings.size} pixels is below 48", "set --size")
    make = _cnn_4conv if settings.network == "cnn-4conv" else _cnn_bn
    image = keras.Input((settings.size, settings.size, 1), name="image")
    return Network(_model(image, _head(make(image, settings.dropout), settings.task, labels), settings), [])


def _model(image: Any, probabilities: Any, settings: Settings, **more: Any) -> keras.Model:
    name = settings.network.replace("-", "_")
    return keras.Model(image, {"probabilities": probabilities, **more}, name=name)


def _head(features: Any, task: str, labels: int) -> Any:
    units, activation = (1, "sigmoid") if task == "sigmoid" else (labels, "softmax")
    return layers.Dense(units, activation=activation, name="probabilities")(features)


def _multitask(settings: Settings, labels: int) -> Network:
    """MobileNetV2 (Sandler et al., CVPR 2018), a label head, and a small decoder for the lung mask."""
    if settings.backbone != "mobilenet_v2":
        raise UsageError(f"the multitask network has no backbone {settings.backbone!r}", "leave --backbone out")
    if settings.size % 32 or settings.size < 64:
        raise UsageError(f"the input's side of {settings.size} pixels is no multiple of 32 from 64 on", "set --size")
    trunk = backbones.mobilenet_v2(settings.size, settings.alpha, settings.weights)
    deep = trunk.output
    mask = _decoder(trunk)
    # The label is judged by what lies in the lungs: cells are weighed by the mask, which the label must not bend.
    lung = layers.AveragePooling2D(4, name="lung_cells")(keras.ops.stop_gradient(mask))
    cells = layers.UpSampling2D(2, interpolation="bilinear", name="evidence_up")(
        layers.Conv2D(EVIDENCE, 1, name="evidence_deep")(deep)
    )
    side = layers.Conv2D(EVIDENCE, 1, name="evidence_skip")(trunk.get_layer(SKIPS[0]).output)
    cells = layers.ReLU(6.0, name="evidence_cells")(layers.Add(name="evidence_add")([cells, side]))
    pooled = layers.GlobalAveragePooling2D(keepdims=True, name="pool")(
        layers.Multiply(name="evidence_in_lung")([cells, lung])
    )
    # Lungs cover about a third of the frame: three times the frame's mean is about the lungs' mean.
    pooled = layers.Dropout(settings.dropout, name="dropout")(layers.Rescaling(3.0, name="lung_mean")(pooled))
    # A 1x1 convolution, not a dense layer: it keeps a scale for each channel (see cxr_convert.quantise), and the same
    # one judges each cell, so that the activation shows what the verdict adds up.
    logits = layers.Conv2D(1 if settings.task == "sigmoid" else labels, 1, name="logits")
    activation = "sigmoid" if settings.task == "sigmoid" else "softmax"
    probabilities = layers.Activation(activation, name="probabilities")(layers.Flatten(name="flat")(logits(pooled)))
    more = {
        "mask": mask,
        "activation": layers.Activation(activation, name="activation")(logits(cells)),
        "embedding": layers.GlobalAveragePooling2D(name="embedding")(trunk.get_layer(LOOK).output),
    }
    return Network(_model(trunk.input, probabilities, settings, **more), list(trunk.layers))


def _decoder(trunk: keras.Model) -> Any:
    """The lung mask, float32[B, H/4, W/4, 1], from the backbone's last layer and three earlier ones."""
    x = layers.Conv2D(64, 1, name="decoder_top")(trunk.output)
    for skip, filters in zip(SKIPS, (64, 48, 32), strict=True):
        step = f"decoder_{filters}_{skip}"
        x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{step}_up")(x)
        x = layers.Conv2D(filters, 1, name=f"{step}_project")(x) if x.shape[-1] != filters else x
        side = layers.Conv2D(filters, 1, name=f"{step}_skip")(trunk.get_layer(skip).output)
        x = layers.ReLU(6.0, name=f"{step}_relu")(layers.Add(name=f"{step}_add")([x, side]))
        x = layers.SeparableConv2D(filters, 3, padding="same", name=f"{step}_mix")(x)
        x = layers.ReLU(6.0, name=f"{step}_out")(x)
    return layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)


def _transfer(settings: Settings, labels: int) -> Network:
    """A backbone with a pooled head (dropout, dense) or a flattened one (dense 256, dropout, dense)."""
    if settings.size < 32:
        raise UsageError(f"the input's side of {settings.size} pixels is below 32", "set --size")
    image, deep, trunk = backbones.build(settings.backbone, settings.size, settings.alpha, settings.weights)
    if settings.head == "flatten":
        x = layers.Dense(256, activation="relu", name="dense")(layers.Flatten(name="flat")(deep))
    else:
        x = layers.GlobalAveragePooling2D(name="pool")(deep)
    x = layers.Dropout(settings.dropout, name="dropout")(x)
    return Network(_model(image, _head(x, settings.task, labels), settings), list(trunk))


def _cnn_4conv(image: Any, dropout: float) -> Any:
    """At 150 x 150 and with one sigmoid: 1,993,729 parameters."""
    x = image
    for filters in (32, 64, 128, 256):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"conv_{filters}")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{filters}")(x)
    x = layers.Dense(128, activation="relu", name="dense")(layers.Flatten(name="flat")(x))
    return layers.Dropout(dropout, name="dropout")(x)


def _cnn_bn(image: Any, dropout: float) -> Any:
    """Four blocks of convolution, batch normalisation, ReLU and pooling; then a dense layer likewise.

    Momentum 0.9: an epoch of 480 pictures has 15 steps, and Keras's 0.99 would still remember the random weights.
    """
    x = image
    for filters in (32, 64, 128, 256):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{filters}")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"bn_{filters}")(x)
        x = layers.MaxPooling2D(2, name=f"pool_{filters}")(layers.ReLU(name=f"relu_{filters}")(x))
    x = layers.Dense(128, use_bias=False, name="dense")(layers.Flatten(name="flat")(x))
    x = layers.ReLU(name="relu_dense")(layers.BatchNormalization(momentum=0.9, name="bn_dense")(x))
    return layers.Dropout(dropout, name="dropout")(x)
