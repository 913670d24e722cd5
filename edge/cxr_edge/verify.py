"""The self-test of a model on this box: does this runtime compute what the model's maker saw?

Digests were checked when the file was read. Here the runtime loads every operator, and the golden input must give the
golden outputs. Runtimes round int8 differently, so they are compared within tolerances: between ai-edge-litert and
tflite-runtime the same file differs by 0.01 in a probability on average. A kernel that computes wrong is far outside.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cxr_edge import masks
from cxr_edge.errors import ModelRefused
from cxr_edge.model_file import ModelFile
from cxr_edge.runtime import Engine, Runtime

PROBABILITY_TOLERANCE = 0.1
"""Difference in a probability of the golden input that rounding may make; it is no verdict of anybody."""
DICE_TOLERANCE = 0.97
"""Dice that the golden mask must reach."""


def verify(model: ModelFile, runtime: Runtime) -> Iterator[str]:
    """Yield a line for each check that holds.

    Raises:
        ModelRefused: the runtime cannot run the model, or computes something else than its maker saw.
    """
    yield f"ok  file: manifest and weights belong together (SHA-256 {model.sha256[:12]})"
    operators = model.manifest.about.get("operators", {})
    engine = Engine(runtime, model)
    yield f"ok  runtime: {runtime.name} {runtime.version} runs its {len(operators) or ''} operators, {engine.kernels}"
    found = engine.infer(model.golden.pixels[np.newaxis, :, :, np.newaxis])
    expected = model.golden.outputs
    difference = np.abs(found["probabilities"].astype(int) - expected["probabilities"]).max() / 256
    if difference > PROBABILITY_TOLERANCE:
        raise _wrong(model, runtime, f"a probability is off by {difference:.2f}")
    yield f"ok  golden input: probabilities within {difference:.3f}"
    if "mask" in expected:
        cut = model.manifest.mask_threshold * 256
        lung, golden = found["mask"] >= cut, expected["mask"] >= cut
        overlap = masks.dice(lung, golden, np.ones_like(lung))
        if overlap < DICE_TOLERANCE:
            raise _wrong(model, runtime, f"the lung mask overlaps the expected one by a Dice of {overlap:.2f} only")
        yield f"ok  golden input: lung mask within a Dice of {overlap:.3f}"


def _wrong(model: ModelFile, runtime: Runtime, what: str) -> ModelRefused:
    sentence = f"{runtime.name} {runtime.version} computes {model.path.name} wrong on this box: {what}"
    return ModelRefused(sentence, "pip install --upgrade ai-edge-litert, or copy the model file again")
