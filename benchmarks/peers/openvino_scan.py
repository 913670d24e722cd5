"""OpenVINO: compiled once for throughput, one stream and one infer request for each thread.

python -m benchmarks.peers.openvino_scan MODEL.tflite MODEL.onnx|MODEL.tflite FOLDER OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openvino
from numpy.typing import NDArray

from benchmarks.peers import common


def main(model: Path, network: Path, folder: Path, out: Path) -> None:
    """Judge a folder."""
    notes = common.read_notes(model)
    settings = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": common.CORES, "INFERENCE_NUM_THREADS": common.CORES}
    compiled = openvino.Core().compile_model(network, "CPU", settings)
    # Two threads whose first inference is the process's first can wait for each other for ever, each in numpy's import
    # by the bindings (seen with 2026.4): so one goes ahead.
    blank = np.zeros((1, *notes.size[::-1], 1), np.uint8)
    compiled.create_infer_request().infer({0: blank})
    ports = [compiled.output(notes.tensors[name]) for name in ("probabilities", "mask")]

    def new_engine() -> common.Infer:
        request = compiled.create_infer_request()

        def infer(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
            request.infer({0: pixels}, share_inputs=True)
            probabilities, lungs = (request.get_tensor(port).data for port in ports)
            return probabilities[0], lungs[0, :, :, 0]

        return infer

    common.scan(folder, out, notes, new_engine)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:5]))
