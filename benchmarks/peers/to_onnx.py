"""The shipped .tflite as ONNX, with the same weights and scales, of which every convolution runs in int8.

python -m benchmarks.peers.to_onnx MODEL.tflite MODEL.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import tf2onnx.convert
from onnx import numpy_helper

OPSET = 17


def unsigned(network: onnx.ModelProto) -> onnx.ModelProto:
    """Move activations from int8 to uint8, by their zero points; the numbers they stand for stay the same.

    On x86 ONNX Runtime's kernels take uint8 activations with int8 weights. Left to itself it moves only some of them,
    and a convolution between the two kinds falls back to float: 4.2 ms a picture where 2.1 are needed.
    """
    graph = network.graph
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in constants:
            continue
        zero_point = numpy_helper.to_array(constants[node.input[2]])
        if zero_point.dtype != np.int8:
            continue
        name = f"{node.input[2]}_unsigned"
        if name not in constants:
            moved = (zero_point.astype(np.int16) + 128).astype(np.uint8)
            constants[name] = numpy_helper.from_array(moved, name)
            graph.initializer.append(constants[name])
        node.input[2] = name
    used = {name for node in graph.node for name in node.input}
    for each in [each for each in graph.initializer if each.name not in used]:
        graph.initializer.remove(each)
    del graph.value_info[:]  # they name the old types
    onnx.checker.check_model(network, full_check=True)
    return network


def main(model: Path, target: Path) -> None:
    """Convert."""
    network, _ = tf2onnx.convert.from_tflite(str(model), opset=OPSET)
    onnx.save(unsigned(network), target)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
