"""ONNX Runtime: one session for all threads, each run computed in the thread that asks for it.

python -m benchmarks.peers.onnx_scan MODEL.tflite MODEL.onnx FOLDER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.peers import common


def main(model: Path, network: Path, folder: Path, out: Path) -> None:
    """Judge a folder."""
    notes = common.read_notes(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(network), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    wanted = [notes.tensors["probabilities"], notes.tensors["mask"]]

    def infer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        probabilities, lungs = session.run(wanted, {given.name: pixels})
        return probabilities[0], lungs[0, :, :, 0]

    common.scan(folder, out, notes, lambda: infer)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
