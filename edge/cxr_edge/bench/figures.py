"""The figures of a bench, what follows from them, and their JSON. Pure functions."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr_edge.errors import UsageError
from cxr_edge.machine import Machine

FORMAT, FORMAT_VERSION = "cxr-edge bench", 1
STEPS = ("read", "decode", "resize", "infer", "judge", "mask", "record")
"""In the order of an image's way. All but `record`, which a batch shares, happen in one of the worker threads."""
NIGHT_HOURS = 8
FILES = (1_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Quantiles:
    """Milliseconds for one image, of `n` samples: quantiles by the nearest rank, and the mean."""

    n: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Spread:
    """One figure for each round: median, least and most."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Sweep:
    """Whole sweeps on so many cores, with as many workers.

    Attributes:
        images_per_second: of the sweep, without the start of its process.
        share_of_bound: `images_per_second` over the bound by parts of the same round, median.
        peak_mib: the most that the process held in any round.
    """

    cores: int
    files: int
    images_per_second: Spread
    share_of_bound: float
    peak_mib: float


@dataclass(frozen=True)
class ModelFacts:
    """Which model was run: its name, the first 12 hex digits of its SHA-256, and its input in pixels."""

    name: str
    digest: str
    width: int
    height: int


@dataclass(frozen=True)
class EngineFacts:
    """What ran the model: `threads` of one interpreter, and whether XNNPACK runs the graph (`kernels`)."""

    name: str
    version: str
    threads: int
    kernels: str


@dataclass(frozen=True)
class PictureFacts:
    """What was measured on: how many different files, where from, and how large they are (medians)."""

    origin: str
    files: int
    judged: int
    megapixels: float
    kilobytes: float


@dataclass(frozen=True)
class Figures:
    """Everything that a bench measured.

    Attributes:
        start_ms: by name, `help`, `first verdict` (a fresh process until one picture's verdict is recorded and it has
            left) and `model load` (read, verified and ready).
        steps_ms: by the names of `STEPS`; of a picture that gets no verdict, the steps that it reached.
        image_ms: the steps of one image together: mean over the pictures, one for each round.
        computing_ms: what of `image_ms` the thread ran on a core; the rest it waited, for the disk or for a core.
        notes: what a reader must know before trusting a figure.
    """

    version: str
    measured_at: str
    machine: Machine
    disk: str
    engine: EngineFacts
    model: ModelFacts
    pictures: PictureFacts
    start_ms: dict[str, Spread]
    steps_ms: dict[str, Quantiles]
    image_ms: Spread
    computing_ms: Spread
    sweeps: tuple[Sweep, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> Sweep:
        """The sweep on all cores."""
        return self.sweeps[-1]


def quantiles(samples: Sequence[float]) -> Quantiles:
    """Quantiles of at least one sample, by the nearest rank: each is a time that was seen."""
    ordered = sorted(samples)
    p50, p95, p99 = (ordered[math.ceil(q / 100 * len(ordered)) - 1] for q in (50, 95, 99))
    return Quantiles(len(ordered), statistics.fmean(ordered), p50, p95, p99)


def spread(rounds: Sequence[float]) -> Spread:
    """Median, least and most of at least one round."""
    return Spread(statistics.median(rounds), min(rounds), max(rounds))


def bound(cores: int, image_ms: float) -> float:
    """The bound by parts, images per second: what `cores` could do if they did nothing but an image's steps.

    No strict bound where a step waits for the disk, because another thread computes meanwhile.
    """
    return 1000 * cores / image_ms


def core_counts(cores: int) -> list[int]:
    """On how many cores to sweep: 1 to 4 each, then doubling, and all."""
    return sorted({*range(1, min(cores, 4) + 1), *(2**i for i in range(3, cores.bit_length()) if 2**i < cores), cores})


def plan(images_per_second: float) -> list[tuple[int, float, int]]:
    """For each of `FILES`: how many, the hours they take, and the nights of `NIGHT_HOURS` (at least one)."""
    hours = {files: files / images_per_second / 3600 for files in FILES}
    return [(files, took, max(1, math.ceil(took / NIGHT_HOURS))) for files, took in hours.items()]


def to_dict(figures: Figures) -> dict[str, Any]:
    """The figures as JSON holds them, with what follows from them."""
    rate = figures.best.images_per_second.median
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **asdict(figures),
        "bound_images_per_second": {s.cores: bound(s.cores, figures.image_ms.median) for s in figures.sweeps},
        "images_per_hour": 3600 * rate,
        "plan": [{"files": n, "hours": hours, f"nights_of_{NIGHT_HOURS}_h": nights} for n, hours, nights in plan(rate)],
    }


def to_json(figures: Figures) -> str:
    """The figures as JSON text."""
    return json.dumps(to_dict(figures), indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """Read an earlier bench's JSON, as `to_dict` made it. Raises UsageError where it is none."""
    remedy = "give a file that cxr-edge bench --json has written"
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", remedy) from error
    if not isinstance(earlier, dict) or earlier.get("format") != FORMAT:
        raise UsageError(f"{path} is no report of cxr-edge bench", remedy)
    if earlier.get("format_version") != FORMAT_VERSION:
        raise UsageError(f"{path} has format version {earlier.get('format_version')}, not {FORMAT_VERSION}", remedy)
    return earlier
