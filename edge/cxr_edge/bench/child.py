"""One whole sweep in a process of its own, on so many cores; prints what it did as JSON. Started by `processes.py`."""

from __future__ import annotations

import json
import os
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

    from cxr_edge import machine, model_file, report, scan  # noqa: F401
    from cxr_edge.budget import default_budget, isolates_by_default
    from cxr_edge.ledger import Ledger
    from cxr_edge.sweep import Settings, Sweep

    # The sample is repeated to fill the folder, and each copy is to be judged.
    Ledger.twin = lambda *_: None  # type: ignore[method-assign]
    settings = Settings(workers=cores, memory=default_budget(), isolate=isolates_by_default())
    with (
        machine.PeakOfFamily() as peak,
        Sweep(Path(folder), Path(out), model_file.read(Path(model)), settings) as sweep,
    ):
        tally = sweep.run()
    print(json.dumps({"files": tally.judged, "seconds": tally.seconds, "peak_mib": peak.mib}))
