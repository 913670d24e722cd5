"""What `doctor` runs in a process of its own: packages, runtime, model, golden input. Each check is a line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cxr_edge import machine
from cxr_edge.doctor import Check, State, refused
from cxr_edge.errors import CxrEdgeError, ExitCode

if TYPE_CHECKING:
    from cxr_edge.model_file import ModelFile
    from cxr_edge.runtime import Runtime

CODECS = {"jpg": "JPEG", "zlib": "PNG", "libtiff": "compressed TIFF", "webp": "WebP"}
NEEDED = ("JPEG", "PNG")


def main(model: str = "") -> None:
    """Check what a sweep loads, as far as it can be loaded, and end; without `model`, the shipped one."""
    try:
        _packages()
    except ImportError as error:
        remedy = "pip install --force-reinstall cxr-edge"
        _tell(Check("packages", State.PROBLEM, f"cannot be loaded: {error}", remedy, ExitCode.MODEL_REFUSED))
        return
    from cxr_edge import model_file, runtime
    from cxr_edge.verify import verify

    name = "runtime"
    try:
        engine_room = runtime.find_runtime()
        _tell(Check("runtime", State.OK, f"{engine_room.name} {engine_room.version}"))
        name = "model"
        chosen = model_file.read(Path(model) if model else model_file.SHIPPED)
        engine = runtime.Engine(engine_room, chosen)
        _tell(_kernels(engine.kernels))
        golden = [line.removeprefix("ok  golden input: ") for line in verify(chosen, engine_room) if "golden" in line]
    except CxrEdgeError as error:
        _tell(refused(name, error))
        return
    says = f"{chosen.manifest.name} ({chosen.short_digest}); golden input: {', '.join(golden)}"
    _tell(Check("model", State.OK, says))
    # One worker fits, or this would not run any more; the next lines may be too much for a small box.
    first = machine.peak_memory()
    _tell_needs(first, None)
    _tell_needs(first, _growth(engine_room, chosen))


def _growth(engine_room: Runtime, model: ModelFile) -> float:
    """What another worker's interpreter, once it has run, adds to the memory of this process, MiB."""
    from cxr_edge.runtime import Engine

    held = []
    for _ in range(2):
        before = machine.resident_memory()
        held.append(Engine(engine_room, model))
        held[-1].infer(model.golden.pixels[None, :, :, None])
    return max(0.0, machine.resident_memory() - before)


def _packages() -> None:
    """Load what every sweep loads. Raises ImportError."""
    import numpy
    import PIL
    from PIL import features

    there = [kind for codec, kind in CODECS.items() if features.check(codec)]
    says = f"numpy {numpy.__version__}, Pillow {PIL.__version__} reads BMP, {', '.join(there)}"
    missing = [kind for kind in CODECS.values() if kind not in there]
    if not missing:
        _tell(Check("packages", State.OK, says))
        return
    state = State.PROBLEM if set(missing) & set(NEEDED) else State.WARNING
    code = ExitCode.MODEL_REFUSED if state is State.PROBLEM else ExitCode.OK
    remedy = "pip install --force-reinstall pillow: its own wheels read all of them"
    _tell(Check("packages", state, f"{says}, but not {', '.join(missing)}", remedy, code))


def _kernels(kernels: str) -> Check:
    if kernels.startswith("XNNPACK"):
        return Check("kernels", State.OK, kernels)
    remedy = "pip install ai-edge-litert, where it has wheels: it runs int8 about ten times as fast"
    return Check("kernels", State.WARNING, kernels, remedy)


def _tell_needs(first_mib: float, further_mib: float | None) -> None:
    print(json.dumps({"needs": {"first_mib": first_mib, "further_mib": further_mib}}), flush=True)


def _tell(check: Check) -> None:
    # At once: this process may not live to tell the next.
    print(json.dumps(asdict(check)), flush=True)
