"""Keras model -> int8 TFLite flatbuffer: uint8 in and out, batch of 1; convolutions per channel, dense layers not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from cxr_edge.preprocess import InputSpec, scale
from cxr_edge.runtime import Runtime


def to_int8(model: keras.Model, spec: InputSpec, pictures: Iterable[NDArray[np.uint8]]) -> bytes:
    """Quantise `model` after training.

    Args:
        model: input float32[B, H, W, 1] in [-1, 1], outputs named by a dict, all of them of a softmax or sigmoid.
        pictures: the representative set, each uint8[1, H, W, 1] as `cxr_edge.preprocess.to_input` makes them.

    Returns:
        A flatbuffer with uint8 input, outputs in units of 1/256, and the outputs' names in its signature.
    """

    def representative() -> Iterator[list[NDArray[np.float32]]]:
        for pixels in pictures:
            yield [scale(pixels)]

    with tempfile.TemporaryDirectory() as folder:
        # By way of a SavedModel with a fixed batch: from a concrete function, Keras 3 models fail (READ_VARIABLE).
        image = keras.InputSpec(shape=(1, spec.height, spec.width, 1), dtype="float32", name="image")
        model.export(folder, format="tf_saved_model", input_signature=[image], verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
        # Runtimes before 2.10 compute per-channel dense layers wrong and say nothing.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        return bytes(converter.convert())


def minimum_runtime(flatbuffer: bytes) -> str:
    """The TensorFlow Lite version from which on every operator of the flatbuffer is known, as the converter says."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(flatbuffer))
    for entry in model.metadata:
        if entry.name == b"min_runtime_version":
            return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()
    raise ValueError("the converter named no minimum runtime version")


def output_tensors(flatbuffer: bytes, runtime: Runtime) -> dict[str, str]:
    """Map the signature's output names (`probabilities`, `mask`) to the flatbuffer's tensor names."""
    runner = runtime.interpreter(model_content=flatbuffer).get_signature_runner()
    return {name: detail["name"] for name, detail in runner.get_output_details().items()}
