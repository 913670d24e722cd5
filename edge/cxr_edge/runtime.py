"""One face for three TFLite runtimes: ai-edge-litert, tflite-runtime, and tf.lite on a workstation.

Says which one it took, and whether XNNPACK (the fast int8 kernels) runs the graph.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_edge.errors import ModelRefused
from cxr_edge.model_file import ModelFile

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Runtime:
    """A TFLite runtime that could be imported: its package, its version, and its Interpreter class."""

    name: str
    version: str
    interpreter: Callable[..., Any]


def _ai_edge_litert() -> Runtime:
    from ai_edge_litert.interpreter import Interpreter

    return Runtime("ai-edge-litert", metadata.version("ai-edge-litert"), Interpreter)


def _tflite_runtime() -> Runtime:
    from tflite_runtime.interpreter import Interpreter

    return Runtime("tflite-runtime", metadata.version("tflite-runtime"), Interpreter)


def _tensorflow() -> Runtime:
    import tensorflow as tf

    return Runtime("tensorflow", tf.__version__, tf.lite.Interpreter)


LOADERS = (_ai_edge_litert, _tflite_runtime, _tensorflow)
"""In order of preference: the first has XNNPACK for int8, the second is there for 32-bit ARM, the third is heavy."""


def find_runtime(loaders: tuple[Callable[[], Runtime], ...] = LOADERS) -> Runtime:
    """Import the first runtime there is.

    Raises:
        ModelRefused: none can be imported; the remedy names the package for this machine.
    """
    complaints = []
    for load in loaders:
        try:
            return load()
        except Exception as error:  # a wheel against another numpy or C library raises anything at import
            complaints.append(f"{load.__name__.strip('_').replace('_', '-')}: {error}")
    package = "'tflite-runtime' 'numpy<2'" if platform.machine() in ("armv7l", "armv6l") else "ai-edge-litert"
    raise ModelRefused("no TFLite runtime can be loaded (" + "; ".join(complaints) + ")", f"pip install {package}")


class Engine:
    """One interpreter of one model, for one thread at a time; `infer` releases the GIL while it computes."""

    def __init__(self, runtime: Runtime, model: ModelFile, threads: int = 1) -> None:
        """Load the model.

        Raises:
            ModelRefused: the runtime cannot load it, or its tensors are not what its manifest says.
        """
        try:
            with _silenced_stderr():
                self._interpreter = runtime.interpreter(model_path=str(model.path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            remedy = "update the runtime, or convert the model for this one"
            raise ModelRefused(
                f"{runtime.name} {runtime.version} cannot run {model.path.name}: {reason}", remedy
            ) from error
        (self._input,) = self._interpreter.get_input_details()
        details = {detail["name"]: detail for detail in self._interpreter.get_output_details()}
        self._outputs = {
            meaning: details[tensor] for meaning, tensor in model.manifest.outputs.items() if tensor in details
        }
        self._check(model)

    def _check(self, model: ModelFile) -> None:
        manifest, found = model.manifest, self._outputs
        expected: dict[str, Any] = {"input": (1, manifest.input.height, manifest.input.width, 1)}
        actual = {"input": tuple(self._input["shape"])} | {key: tuple(value["shape"]) for key, value in found.items()}
        expected["probabilities"] = (1, 1 if manifest.task == "sigmoid" else len(manifest.labels))
        if "mask" in manifest.outputs:
            expected["mask"] = (1, *actual.get("mask", (0, 0, 0, 0))[1:3], 1)
        if expected != actual:
            raise ModelRefused(
                f"{model.path.name}: its tensors {actual} are not what its manifest says {expected}",
                "convert the model again with cxr-convert",
            )
        if any(detail["dtype"] is not np.uint8 for detail in (self._input, *found.values())):
            raise ModelRefused(f"{model.path.name}: input and outputs are not uint8", "convert it with cxr-convert")
        scales = [detail["quantization"] for detail in found.values()]
        if any(abs(scale * 256 - 1) > 1e-6 or zero_point for scale, zero_point in scales):
            raise ModelRefused(f"{model.path.name}: outputs are not in units of 1/256", "convert it with cxr-convert")

    def infer(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        """Run the model on uint8[1, H, W, 1].

        Returns:
            `probabilities` uint8[labels], or uint8[1] of the second label where the task is 'sigmoid', and, if the
            model has one, `mask` uint8[h, w], all in units of 1/256.
        """
        self._interpreter.set_tensor(self._input["index"], pixels)
        self._interpreter.invoke()
        outputs = {key: self._interpreter.get_tensor(detail["index"])[0] for key, detail in self._outputs.items()}
        if "mask" in outputs:
            outputs["mask"] = outputs["mask"][:, :, 0]
        return outputs

    @property
    def kernels(self) -> str:
        """Which kernels run the graph, for people: XNNPACK in whole, in part, or the runtime's own."""
        operators = [entry["op_name"] for entry in self._interpreter._get_ops_details()]
        parts = operators.count("DELEGATE")
        if not parts:
            return "built-in kernels, no XNNPACK"
        return f"XNNPACK in {parts} part{'s' if parts > 1 else ''}"


@contextlib.contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Swallow what C++ prints on stderr: the runtime announces its delegate there, and cron would mail it each night.

    It has no setting for that. Errors still arrive as exceptions. Not for use beside running threads.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "wb") as null:  # noqa: PTH123
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
