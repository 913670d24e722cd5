"""tf.lite of full TensorFlow, or tflite-runtime: one interpreter of one thread for each core.

python -m benchmarks.peers.tflite_scan RUNTIME MODEL.tflite FOLDER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers import common


def interpreter_class(runtime: str) -> Any:
    """The Interpreter of one of the two."""
    if runtime == "tensorflow":
        import tensorflow

        return tensorflow.lite.Interpreter
    from tflite_runtime.interpreter import Interpreter

    return Interpreter


def main(runtime: str, model: Path, folder: Path, out: Path) -> None:
    """Judge a folder."""
    notes, interpreter_of = common.read_notes(model), interpreter_class(runtime)

    def new_engine() -> common.Infer:
        interpreter = interpreter_of(str(model), num_threads=1)
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        index = {detail["name"]: detail["index"] for detail in interpreter.get_output_details()}

        def infer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            interpreter.set_tensor(given["index"], pixels)
            interpreter.invoke()
            probabilities, lungs = (
                interpreter.get_tensor(index[notes.tensors[name]]) for name in ("probabilities", "mask")
            )
            return probabilities[0], lungs[0, :, :, 0]

        return infer

    common.scan(folder, out, notes, new_engine)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:5]))
