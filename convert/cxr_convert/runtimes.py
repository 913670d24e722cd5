"""The runtimes at hand: which of them run a file, tried for real."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxr_edge import phantom, preprocess
from cxr_edge.errors import ModelRefused
from cxr_edge.manifest import Manifest
from cxr_edge.model_file import Golden, ModelFile
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import LOADERS, Engine, Runtime

GOLDEN_SEED = 20


@contextmanager
def engines(flatbuffer: bytes, draft: Manifest) -> Iterator[tuple[dict[str, Engine], list[dict[str, Any]]]]:
    """Load a flatbuffer in each runtime that is installed here, and run it once.

    Yields:
        Engines by the runtime's name and version, in `cxr_edge`'s order of preference, and a record for each runtime:
        `runtime`, `runs`, and `kernels` or the `reason` why it does not run.

    Raises:
        ModelRefused: none runs it.
    """
    loaded: dict[str, Engine] = {}
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / f"{draft.name}.tflite"
        bare.write_bytes(flatbuffer)
        pixels = golden_pixels(draft.input)
        model = ModelFile(bare, draft, "", "", Golden(pixels, {}))
        for runtime in at_hand():
            name = f"{runtime.name} {runtime.version}"
            try:
                engine = Engine(runtime, model)
                engine.infer(pixels[np.newaxis, :, :, np.newaxis])
            except (ModelRefused, ValueError, RuntimeError) as error:
                records.append({"runtime": name, "runs": False, "reason": str(error)})
            else:
                loaded[name] = engine
                records.append({"runtime": name, "runs": True, "kernels": engine.kernels})
        if not loaded:
            reasons = "; ".join(record["reason"] for record in records) or "none can be imported"
            raise ModelRefused(f"no TFLite runtime here runs {draft.name}: {reasons}", "pip install ai-edge-litert")
        yield loaded, records


def at_hand() -> list[Runtime]:
    """The runtimes that can be imported here, in `cxr_edge`'s order of preference."""
    found = []
    for load in LOADERS:
        try:
            found.append(load())
        except Exception:  # a wheel against another numpy or C library raises anything at import
            continue
    return found


def golden_pixels(spec: InputSpec) -> NDArray[np.uint8]:
    """The input of the self-test, uint8[height, width]: a phantom, so that no patient's picture is in the file."""
    return preprocess.to_input(phantom.draw(GOLDEN_SEED).image, spec)[0, :, :, 0]


def golden(engine: Engine, spec: InputSpec) -> Golden:
    """The self-test: its input, and what the engine answers to it."""
    pixels = golden_pixels(spec)
    outputs = engine.infer(pixels[np.newaxis, :, :, np.newaxis])
    return Golden(pixels, {name: outputs[name] for name in ("probabilities", "mask") if name in outputs})
