"""What a run did, for the next one and for people: OUT/runs/TIMESTAMP.json, and a warning where the verdicts drift.

A box that nobody watches goes astray in silence: another X-ray machine, another export, a stuck folder. So each run
is compared with the thirty before it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from cxr_edge import __version__, machine
from cxr_edge.errors import Status
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import FileWriter
from cxr_edge.sweep import Settings
from cxr_edge.tally import Tally

TIME = "%Y-%m-%dT%H:%M:%SZ"
RUNS_COMPARED = 30
LEAST_NOW, LEAST_BEFORE = 20, 100
"""Files that a run and those before it must have judged to be compared; fewer say nothing."""
Z = 3.3
"""Standard errors between two shares that make a drift: by chance in one of a thousand comparisons."""
SHARE = 0.1
"""Difference between two shares below which a drift is nobody's concern, however certain."""
BRIGHTNESS, RUNS_OF_BRIGHTNESS = 10.0, 5
"""Gray levels, of 255, between mean brightnesses that make a drift; runs before which there is no telling."""


def content(
    tally: Tally, model: ModelFile, settings: Settings, started: datetime, before: list[dict[str, Any]]
) -> dict[str, Any]:
    """The record of a run, with how it differs from the records `before` it, latest last."""
    ok = tally.statuses[Status.OK]
    record: dict[str, Any] = {
        "version": __version__,
        "started_at": started.strftime(TIME),
        "seconds": round(tally.seconds, 1),
        "model": {"name": model.manifest.name, "sha256": model.sha256},
        "settings": asdict(settings) | {"again": sorted(status.value for status in settings.again)},
        "runtime": tally.runtime,
        "stopped": tally.stopped.value if tally.stopped else None,
        "files": {"found": tally.found, "judged": tally.judged, "known": tally.known, "unseen": tally.unseen}
        | {left.value: count for left, count in tally.left.items()},
        "statuses": {status.value: count for status, count in tally.statuses.items()},
        "verdicts": dict(tally.verdicts),
        "problems": {reason.value: count for reason, count in tally.problems.items()},
        "images_per_second": round(tally.judged / tally.seconds, 2) if tally.seconds else None,
        "brightness": round(tally.brightness / ok, 2) if ok else None,
        "peak_memory_mib": round(machine.peak_memory(), 1),
    }
    return record | {"drift": drift(record, before)}


def drift(now: dict[str, Any], before: list[dict[str, Any]]) -> list[str]:
    """Sentences that say what moved: the share of each verdict, of rejected and failed files, the mean brightness.

    Shares are compared by the two-proportion z-test (Fleiss, Levin and Paik, "Statistical Methods for Rates and
    Proportions", 2003, 3.1) with all runs of the same model before pooled; brightness with those runs' mean.
    """
    before = [run for run in before if run["model"] == now["model"] and run["files"]["judged"]]
    total_now, total_before = now["files"]["judged"], sum(run["files"]["judged"] for run in before)
    sentences = []
    if total_now >= LEAST_NOW and total_before >= LEAST_BEFORE:
        for kind, name in sorted({(kind, name) for run in (now, *before) for kind, name in _outcomes(run)}):
            share_now = now[kind].get(name, 0) / total_now
            share_before = sum(run[kind].get(name, 0) for run in before) / total_before
            if abs(share_now - share_before) >= SHARE and _z(share_now, total_now, share_before, total_before) > Z:
                sentences.append(f"{name}: {share_now:.0%} of the files, {share_before:.0%} in the runs before")
    levels = [run["brightness"] for run in before if run["brightness"] is not None]
    if now["brightness"] is not None and total_now >= LEAST_NOW and len(levels) >= RUNS_OF_BRIGHTNESS:
        usual = sum(levels) / len(levels)
        if abs(now["brightness"] - usual) > BRIGHTNESS:
            sentences.append(f"mean brightness: {now['brightness']:.0f} of 255, {usual:.0f} in the runs before")
    return sentences


def _outcomes(run: dict[str, Any]) -> list[tuple[str, str]]:
    return [("verdicts", name) for name in run["verdicts"]] + [
        ("statuses", name) for name in run["statuses"] if name != Status.OK.value
    ]


def _z(p: float, n: int, q: float, m: int) -> float:
    pooled = (p * n + q * m) / (n + m)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return abs(p - q) / error if error else 0.0


def read_last(out: Path, most: int = RUNS_COMPARED) -> list[dict[str, Any]]:
    """The last records of an output folder, latest last; one that cannot be read is passed over."""
    records = []
    for path in sorted((out / "runs").glob("*.json"))[-most:]:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            _outcomes(record), record["model"], record["files"]["judged"], record["brightness"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        records.append(record)
    return records


def write(writer: FileWriter, record: dict[str, Any]) -> None:
    """Write a record to OUT/runs/TIMESTAMP.json. Raises OutputUnwritable."""
    stamp = datetime.strptime(record["started_at"], TIME).strftime("%Y%m%dT%H%M%SZ")
    name, number = f"runs/{stamp}.json", 1
    while (writer.out / name).exists():  # a clock that was set back, or two runs in one second
        number += 1
        name = f"runs/{stamp}-{number}.json"
    writer.write(name, (json.dumps(record, indent=2) + "\n").encode())
