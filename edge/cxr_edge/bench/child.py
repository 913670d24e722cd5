"""One whole sweep in a process of its own, on so many cores; prints what it did as JSON. Started by `processes.py`."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path


def main(folder: str, out: str, model: str, cores: int) -> None:
    """Sweep `folder` into `out` with a worker for each of `cores` cores."""
    # Before anything is loaded: libraries count the cores when they start.
    with suppress(AttributeError, OSError):  # not on macOS; then the number of workers is all that is limited
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])

    # All that `scan` loads, so that this process is as large.
    import rich.console
    import rich.table  # noqa: F401

    from cxr_edge import cli, machine, model_file, report, runtime  # noqa: F401
    from cxr_edge.manifest import DEFAULT_POINT
    from cxr_edge.sweep import sweep

    chosen = model_file.read(Path(model))
    engine_room = runtime.find_runtime()
    engines = [runtime.Engine(engine_room, chosen) for _ in range(cores)]
    tally = sweep(
        Path(folder),
        Path(out),
        chosen,
        engines,
        DEFAULT_POINT,
        progress=lambda: None,
        warn=lambda text: print(text, file=sys.stderr),
        stop=lambda: False,
    )
    print(json.dumps({"files": tally.judged, "seconds": tally.seconds, "peak_mib": machine.peak_memory()}))
