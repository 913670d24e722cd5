"""Who is compared: what each writes, its settings, its environment, and its command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Environment
from benchmarks.pictures import ROOT

PILLOW = "pillow>=10.3"
ALL = "verdict, mask, hash, ledger"
SAME = "verdict, mask"
LABEL = "verdict only"

CXR_EDGE = Environment("cxr-edge", (str(ROOT),))
TENSORFLOW = Environment("tensorflow", ("tensorflow-cpu>=2.18", PILLOW))
TFLITE = Environment("tflite-runtime", ("tflite-runtime==2.14.0", "numpy<2", PILLOW), newest=11)
ONNX = Environment("onnxruntime", ("onnxruntime>=1.20", PILLOW))
OPENVINO = Environment("openvino", ("openvino>=2025.0", PILLOW))
TF2ONNX = Environment("tf2onnx", ("tensorflow-cpu>=2.18", "tf2onnx>=1.16.1"))
"""Converts for the two above, and is not measured: an engineer does it once, on his workstation."""


@dataclass(frozen=True)
class Contender:
    """A way to judge a folder, by `words` of which {these} are filled in for each run.

    `short` is its name in plots; `writes` what is there in the end.
    """

    name: str
    short: str
    writes: str
    settings: str
    environment: Environment
    words: tuple[str, ...]

    def command(self, folder: Path, out: Path, models: dict[str, str]) -> list[str]:
        """The command that judges `folder` into `out`."""
        bin_folder = self.environment.python.parent
        return [word.format(bin=bin_folder, folder=folder, out=out, **models) for word in self.words]


def _peer(script: str, *arguments: str) -> tuple[str, ...]:
    return ("{bin}/python", "-m", f"benchmarks.peers.{script}", *arguments, "{folder}", "{out}")


CONTENDERS = (
    Contender(
        "cxr-edge scan",
        "cxr-edge",
        ALL,
        "as it comes; each mask synced to disk, and what is no radiograph turned away",
        CXR_EDGE,
        ("{bin}/cxr-edge", "scan", "{folder}", "-o", "{out}", "--model", "{tflite}"),
    ),
    Contender(
        "OpenVINO, thread pool",
        "OpenVINO",
        SAME,
        "int8 ONNX; throughput hint, a stream and a request for each core",
        OPENVINO,
        _peer("openvino_scan", "{tflite}", "{onnx}"),
    ),
    Contender(
        "ONNX Runtime, thread pool",
        "ONNX Runtime",
        SAME,
        "int8 ONNX; one session, a thread for each core",
        ONNX,
        _peer("onnx_scan", "{tflite}", "{onnx}"),
    ),
    Contender(
        "tf.lite of TensorFlow, thread pool",
        "tf.lite",
        SAME,
        "XNNPACK; an interpreter of one thread for each core",
        TENSORFLOW,
        _peer("tflite_scan", "tensorflow", "{tflite}"),
    ),
    Contender(
        "tflite-runtime 2.14, thread pool",
        "tflite-runtime",
        SAME,
        "its wheels have no XNNPACK for int8; an interpreter of one thread for each core",
        TFLITE,
        _peer("tflite_scan", "tflite-runtime", "{tflite}"),
    ),
    Contender(
        "Keras predict, ImageDataGenerator",
        "Keras, batches",
        LABEL,
        "float; batches of 32",
        TENSORFLOW,
        _peer("keras_predict", "generator", "{tflite}", "{keras}"),
    ),
    Contender(
        "Keras predict, picture by picture",
        "Keras, one by one",
        LABEL,
        "float; load_img and predict in a loop",
        TENSORFLOW,
        _peer("keras_predict", "loop", "{tflite}", "{keras}"),
    ),
)
