"""The command: pictures, rounds, report."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from cxr_edge import __version__, machine, model_file, runtime
from cxr_edge.bench import against, figures, pictures, plot, processes, steps, tables
from cxr_edge.errors import ExitCode, OutputUnwritable, Status
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import unwritable
from cxr_edge.runtime import Engine, Runtime

ROUNDS = 3
WARM_UP, STEPS, SWEEPS = 0.1, 0.2, 0.6
"""Shares of the time; what is left goes into starts."""
BUSY = 0.25
"""Load for each core from which on other work disturbs the figures."""


def bench(folder: Path | None, model: Path, disk: Path | None, seconds: float) -> figures.Figures:
    """Measure this box.

    Args:
        folder: pictures to measure on; without one, phantoms are drawn.
        disk: a folder on the disk to write to; by default beside `folder`, or where temporary files lie.
        seconds: about how long all of it takes; a slow box with large pictures takes longer.

    Raises:
        CxrEdgeError: nothing can be measured: no files, no model, no runtime, no place to write.
    """
    load = os.getloadavg()[0]
    chosen = model_file.read(model)
    engine_room = runtime.find_runtime()
    disk = disk or (folder.resolve().parent if folder else Path(tempfile.gettempdir()))
    try:
        # On a box that is switched off meanwhile, the name says whose leavings these are.
        with tempfile.TemporaryDirectory(prefix=".cxr-edge-bench-", dir=disk) as temp:
            return _measure(folder, chosen, engine_room, Path(temp), seconds, load)
    except OSError as error:
        raise unwritable(disk, error) from error


def _measure(
    folder: Path | None, model: ModelFile, engine_room: Runtime, work: Path, seconds: float, load: float
) -> figures.Figures:
    _say("drawing phantoms" if folder is None else f"copying a sample of {folder}")
    found = pictures.draw(work / "pictures") if folder is None else pictures.sample(folder, work / "pictures")
    engine = Engine(engine_room, model)
    with steps.Line(model, engine, work / "warm-up") as line:
        seen = steps.warm_up(line, found, WARM_UP * seconds)
    judged = [i for i, image in enumerate(seen) if image.row.status is Status.OK]
    pictures.repeat(found[judged[0] if judged else 0 :], 1, work / "one")
    rounds = _Rounds(found[: len(seen)], model, engine_room, work)
    for number in range(ROUNDS):
        _say(f"round {number + 1} of {ROUNDS}")
        rounds.run(engine, seconds)

    timed, shape = rounds.steps, model.manifest.input
    bounds = [figures.bound(1, each.image_ms) for each in timed]
    return figures.Figures(
        version=__version__,
        measured_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=machine.look(),
        disk=machine.filesystem(work),
        engine=figures.EngineFacts(engine_room.name, engine_room.version, 1, engine.kernels),
        model=figures.ModelFacts(model.manifest.name, model.short_digest, shape.width, shape.height),
        pictures=figures.PictureFacts(
            origin="phantoms, drawn for this" if folder is None else f"a sample of {folder}",
            files=len(seen),
            judged=len(judged),
            megapixels=statistics.median(image.row.width * image.row.height / 1e6 for image in seen),
            kilobytes=statistics.median(image.found.size / 1e3 for image in seen),
        ),
        start_ms={name: figures.spread(some) for name, some in rounds.starts.items()},
        steps_ms={
            name: figures.quantiles(some)
            for name in figures.STEPS
            if (some := [ms for each in timed for ms in each.ms.get(name, [])])
        },
        image_ms=figures.spread([each.image_ms for each in timed]),
        computing_ms=figures.spread([each.computing_ms for each in timed]),
        sweeps=tuple(_sweep(cores, results, bounds) for cores, results in rounds.sweeps.items()),
        notes=tuple(_notes(folder, machine.filesystem(work), load, timed)),
    )


class _Rounds:
    """Starts, steps and sweeps in turn: what disturbs the box for a while then disturbs all of them alike."""

    def __init__(self, found: list[Path], model: ModelFile, engine_room: Runtime, work: Path) -> None:
        self._pictures, self._model, self._engine_room, self._work = found, model, engine_room, work
        self.starts: dict[str, list[float]] = {"help": [], "first verdict": [], "model load": []}
        self.steps: list[steps.Samples] = []
        self.sweeps: dict[int, list[processes.Swept]] = {n: [] for n in figures.core_counts(machine.cores())}

    def run(self, engine: Engine, seconds: float) -> None:
        """One round, in its share of the seconds."""
        path, work = self._model.path.absolute(), self._work
        self.starts["help"].append(processes.command_ms(["--help"], work))
        self.starts["first verdict"].append(processes.first_verdict_ms(work / "one", path, work))
        self.starts["model load"].append(self._model_load_ms())
        with steps.Line(self._model, engine, work / f"round-{len(self.steps)}") as line:
            self.steps.append(steps.one_round(line, self._pictures, STEPS * seconds / ROUNDS))
        for cores, results in self.sweeps.items():
            incoming = work / f"incoming-{cores}"
            if not results:
                share = SWEEPS * seconds / ROUNDS / len(self.sweeps)
                count = figures.bound(cores, self.steps[0].image_ms) * share
                pictures.repeat(self._pictures, _whole_passes(count, len(self._pictures), cores), incoming)
            results.append(processes.sweep(incoming, path, cores, work))

    def _model_load_ms(self) -> float:
        start = time.perf_counter()
        Engine(self._engine_room, model_file.read(self._model.path))
        return 1000 * (time.perf_counter() - start)


def _sweep(cores: int, results: list[processes.Swept], bounds: list[float]) -> figures.Sweep:
    rates = [each.files / each.seconds for each in results]
    shares = [rate / (cores * bound) for rate, bound in zip(rates, bounds, strict=True)]
    peak = max(each.peak_mib for each in results)
    return figures.Sweep(cores, results[0].files, figures.spread(rates), statistics.median(shares), peak)


def _whole_passes(count: float, pictures: int, cores: int) -> int:
    """How many files to sweep: whole passes over the pictures, so that a sweep sees the mix that the steps saw."""
    return max(round(count / pictures) * pictures, pictures, 2 * cores)


def _say(what: str) -> None:
    """Tell a person who watches what is being done."""
    if sys.stderr.isatty():
        print(what, file=sys.stderr)


def _notes(folder: Path | None, disk: str, load: float, rounds: list[steps.Samples]) -> list[str]:
    notes = []
    if folder is None:
        notes.append("measured on phantoms: name a folder of your own pictures for figures that hold for them")
    if disk in ("tmpfs", "ramfs"):
        notes.append(f"written to a RAM disk ({disk}), where syncing costs nothing: name a folder on the disk with -o")
    if load > BUSY * machine.cores():
        notes.append(f"other work was running (load {load:.1f} on {machine.cores()} cores): an idle box does better")
    if not any("mask" in each.ms for each in rounds):
        notes.append("no mask was written: none of the pictures was judged, or the model has no mask")
    return notes


class Reports:
    """Where a bench's figures go: stdout, files, and a comparison."""

    def __init__(self, json_file: Path | None, plot_file: Path | None, earlier: Path | None, threshold: float) -> None:
        """Refuse what cannot be, before a minute is spent.

        Raises:
            UsageError: `earlier` is no earlier report.
            OutputUnwritable: the folder of a report does not exist.
        """
        self._json, self._plot, self._threshold = json_file, plot_file, threshold
        self._earlier = figures.read_json(earlier) if earlier else None
        for path in (json_file, plot_file):
            if path and not path.resolve().parent.is_dir():
                raise OutputUnwritable(f"{path} cannot be written: its folder does not exist", "make the folder first")

    def give(self, measured: figures.Figures) -> ExitCode:
        """Print and write all reports; returns 1 if something is worse than the threshold.

        Raises:
            UsageError: the earlier report is not whole.
            OutputUnwritable: a report cannot be written.
        """
        tables.print_figures(measured)
        if self._json:
            _write(self._json, figures.to_json(measured).encode())
        if self._plot:
            _write(self._plot, plot.png(measured))
        if self._earlier is None:
            return ExitCode.OK
        now = figures.to_dict(measured)
        changes = against.compare(self._earlier, now)
        tables.print_changes(changes, against.differing(self._earlier, now), self._threshold)
        # A script that guards a speed wants a failure, and the sweep's own codes all say something else.
        return ExitCode.BUG if against.past(changes, self._threshold) else ExitCode.OK


def _write(path: Path, content: bytes) -> None:
    temp = path.with_name(f".{path.name}.tmp")
    try:
        temp.write_bytes(content)
        temp.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
