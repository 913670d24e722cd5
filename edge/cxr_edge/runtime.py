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

from cxr_edge import masks
from cxr_edge.errors import ModelRefused
from cxr_edge.model_file import ModelFile
from cxr_edge.preprocess import InputSpec

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
        tensors = model.manifest.outputs
        self._outputs = {meaning: details[tensor] for meaning, tensor in tensors.items() if tensor in details}
        self._check(model)
        self._levels = _levels(self._input, model.manifest.input)
        self._channels = model.manifest.input.channels

    def _check(self, model: ModelFile) -> None:
        manifest = model.manifest
        actual = {key: tuple(value["shape"]) for key, value in {"input": self._input, **self._outputs}.items()}
        scores = 1 if manifest.task == "sigmoid" else len(manifest.labels)
        expected: dict[str, Any] = {
            "input": (1, manifest.input.height, manifest.input.width, manifest.input.channels),
            "probabilities": (1, scores),
        }
        # Of a map, its size is the model's own business.
        for name, last in (("mask", 1), ("activation", scores)):
            if name in manifest.outputs:
                expected[name] = (1, *actual.get(name, (0, 0, 0, 0))[1:3], last)
        if manifest.familiar is not None:
            expected["embedding"] = (1, len(manifest.familiar.mean))
        if expected != actual:
            raise ModelRefused(
                f"{model.path.name}: its tensors {actual} are not what its manifest says {expected}",
                "convert the model again with cxr-convert",
            )
        odd = {detail["dtype"] for detail in (self._input, *self._outputs.values())} - {np.uint8, np.int8, np.float32}
        if odd:
            kinds = ", ".join(sorted(kind.__name__ for kind in odd))
            raise ModelRefused(f"{model.path.name}: tensors of {kinds} are unknown", "convert it with cxr-convert")

    def infer(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Run the model on gray levels, uint8[1, H, W, 1], whatever its own type of input and number of channels.

        Returns:
            `probabilities` uint8[labels], or uint8[1] of the second label where the task is 'sigmoid'; and if the
            model has them: `mask` uint8[h, w], `activation` uint8[h, w, labels or 1], all in units of 1/256, and
            `embedding` float32[d].
        """
        values = pixels if self._levels is None else self._levels[pixels]
        if self._channels == 3:
            values = np.repeat(values, 3, axis=3)
        self._interpreter.set_tensor(self._input["index"], values)
        self._interpreter.invoke()
        outputs: dict[str, NDArray[Any]] = {}
        for key, detail in self._outputs.items():
            tensor = self._interpreter.get_tensor(detail["index"])[0]
            if key == "embedding":
                outputs[key] = _dequantised(tensor, detail)
            elif tensor.dtype == np.uint8 and detail["quantization"] == (1 / 256, 0):
                outputs[key] = tensor
            else:
                outputs[key] = masks.quantise(_dequantised(tensor, detail))
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


def _levels(detail: dict[str, Any], spec: InputSpec) -> NDArray[Any] | None:
    """What each gray level becomes in the input tensor, [256]; None where it is fed as it is."""
    levels = spec.black + np.arange(256, dtype=np.float32) * np.float32((spec.white - spec.black) / 255)
    if detail["dtype"] is np.float32:
        return levels
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    exact = levels / scale + zero_point
    # A zero point is whole, so a range like -1 to 1 lies half a step off. Rounding such ties would merge gray levels.
    if np.abs(exact - np.arange(limits.min, limits.max + 1)).max() < 0.51:
        exact = np.arange(limits.min, limits.max + 1)
    quantised = np.clip(np.rint(exact), limits.min, limits.max).astype(detail["dtype"])
    return None if np.array_equal(quantised, np.arange(256)) else quantised


def _dequantised(tensor: NDArray[Any], detail: dict[str, Any]) -> NDArray[np.float32]:
    if tensor.dtype == np.float32:
        return tensor
    scale, zero_point = detail["quantization"]
    return (tensor.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


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
