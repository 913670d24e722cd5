"""Keras model -> TFLite flatbuffer with a batch of 1, in one of four types.

int8     uint8 in and out, integers throughout; convolutions per channel, dense layers not
float32  as the Keras model computes
float16  weights in half precision: half the size, computed in float32
dynamic  weights in int8, computed in float32 or in part in int8: a quarter of the size
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cxr_convert.equalise import equalised
from cxr_edge.preprocess import InputSpec, scale
from cxr_edge.runtime import Runtime


def to_tflite(model: keras.Model, spec: InputSpec, kind: str, pictures: Sequence[NDArray[np.uint8]]) -> bytes:
    """Convert `model`, for int8 by quantisation after training.

    Args:
        model: input float32[B, H, W, 1] in [-1, 1], outputs named by a dict.
        kind: one of `options.TYPES`.
        pictures: the representative set, each uint8[1, H, W, 1] as `cxr_edge.preprocess.to_input` makes them; read
            for int8 only.

    Returns:
        A flatbuffer with the outputs' names in its signature; for int8 with uint8 input and probabilities in units of
        1/256.
    """

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for pixels in pictures:
            yield [scale(pixels)]

    if kind == "int8":
        model = equalised(model, pictures)
    with tempfile.TemporaryDirectory() as folder:
        # By way of a SavedModel with a fixed batch: from a concrete function, Keras 3 models fail (READ_VARIABLE).
        image = keras.InputSpec(shape=(1, spec.height, spec.width, 1), dtype="float32", name="image")
        model.export(folder, format="tf_saved_model", input_signature=[image], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if kind == "int8":
            converter.representative_dataset = representative
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = tf.uint8
            converter.inference_output_type = tf.uint8
        # Runtimes before 2.10 compute per-channel dense layers wrong and say nothing.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        return bytes(converter.convert())


def output_tensors(flatbuffer: bytes, runtime: Runtime) -> dict[str, str]:
    """Map the signature's output names (`probabilities`, `mask`, ...) to the flatbuffer's tensor names."""
    runner = runtime.interpreter(model_content=flatbuffer).get_signature_runner()
    return {name: detail["name"] for name, detail in runner.get_output_details().items()}
