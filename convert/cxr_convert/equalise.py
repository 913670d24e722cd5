"""Even out the ranges of a network's channels before it is quantised, without changing what it computes.

An int8 tensor has one scale for all its channels. After a ReLU6 that is 6/255, whether a channel ever reaches 6 or
never exceeds 0.1, so that a quiet channel is told in four steps. Batch normalisation can make it louder, and the
convolution behind it quieter by as much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from cxr_edge.preprocess import scale

POWER = 0.3
"""Share, on a logarithmic scale, of what would make every channel reach the ReLU's top. All of it would cost the
convolution's weights as many steps as it wins the channels; of 0, 0.2, 0.3, 0.5 and 1 this was best (mean error of the
probabilities 0.0176, 0.0129, 0.0114, 0.0131 and 0.0170, on a MobileNetV2 of alpha 1 that had finished training)."""
LOUDER = 64.0
"""At most, before `POWER`: a channel that is almost never on has no range to go by."""
_BATCH = 16

Triple = tuple[Any, Any, Any]


def equalised(model: keras.Model, pictures: Iterable[NDArray[np.uint8]]) -> keras.Model:
    """Return a copy of `model` with channels made louder wherever a batch normalisation, a ReLU with a top and a
    convolution follow each other and nothing else reads between them; `model` itself where that is nowhere.

    Args:
        model: input float32[B, H, W, 1] in [-1, 1].
        pictures: whose channels' ranges count, each uint8[1, H, W, 1]. On pictures that go beyond, the louder channels
            meet the ReLU's top, as int8 would cut them.

    Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, with
    ranges measured on pictures in place of those of the weights, since the weights here have a scale for each channel.
    """
    if not any(True for _ in _triples(model)):
        return model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    triples = list(_triples(copy))
    ranges = _ranges(copy, [relu for _, relu, _ in triples], pictures)
    for (norm, relu, convolution), highest in zip(triples, ranges, strict=True):
        louder = np.clip(relu.max_value / np.maximum(highest, 1e-6), 1, LOUDER) ** POWER
        gamma, beta, *moving = norm.get_weights()
        norm.set_weights([gamma * louder, beta * louder, *moving])
        kernel, *bias = convolution.get_weights()
        convolution.set_weights([kernel / louder[:, np.newaxis], *bias])
    return copy


def _triples(model: keras.Model) -> Iterator[Triple]:
    """Each batch normalisation, ReLU and convolution [kh, kw, in, out] that follow each other alone."""
    made_by: dict[int, Any] = {}
    readers: Counter[int] = Counter(id(output) for output in keras.tree.flatten(model.output))
    for layer in model.layers:
        if len(layer._inbound_nodes) == 1:
            made_by[id(layer.output)] = layer
        for node in layer._inbound_nodes:
            readers.update(id(tensor) for tensor in node.input_tensors)
    for layer in model.layers:
        if type(layer) is not layers.Conv2D or len(layer._inbound_nodes) != 1 or layer.groups != 1:
            continue
        relu: Any = made_by.get(id(layer.input))
        if type(relu) is not layers.ReLU or not relu.max_value or relu.negative_slope or relu.threshold:
            continue
        norm: Any = made_by.get(id(relu.input))
        scaled = type(norm) is layers.BatchNormalization and norm.scale and norm.center and norm.axis in (-1, 3)
        if scaled and readers[id(relu.input)] == readers[id(relu.output)] == 1:
            yield norm, relu, layer


def _ranges(model: keras.Model, relus: list[Any], pictures: Iterable[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """The highest value of each channel behind each ReLU, float32[channels], a batch of pictures at a time."""
    probe = keras.Model(model.input, [keras.ops.max(relu.output, axis=(0, 1, 2)) for relu in relus])
    highest = [np.zeros(relu.output.shape[-1], np.float32) for relu in relus]
    batch: list[NDArray[np.uint8]] = []

    def look() -> None:
        outputs = keras.tree.flatten(probe(scale(np.concatenate(batch)), training=False))
        for index, output in enumerate(outputs):
            highest[index] = np.maximum(highest[index], np.asarray(output))
        batch.clear()

    for pixels in pictures:
        batch.append(pixels)
        if len(batch) == _BATCH:
            look()
    if batch:
        look()
    return highest
