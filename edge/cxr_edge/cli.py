"""`cxr-edge`: thin commands; parse, call, map errors to exit codes. Heavy imports wait until a command runs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from cxr_edge import __version__
from cxr_edge.commands import ErrorMappingGroup
from cxr_edge.errors import ExitCode, NothingFound, UsageError

EPILOG = """\b
Exit codes: 0 all judged, 1 a bug, 2 usage, 3 some images failed, 4 nothing found,
5 model refused, 6 output cannot be written, 7 another sweep holds the output,
130 interrupted.
Research and triage aid, never a diagnosis."""


@click.group(cls=ErrorMappingGroup, epilog=EPILOG)
@click.version_option(__version__, prog_name="cxr-edge")
def main() -> None:
    """Judge chest radiographs on a small box: one CSV row for each file, one mask for each radiograph."""


@main.command(epilog=EPILOG)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Output folder; default: FOLDER-verdicts, beside FOLDER."
)
@click.option("--model", type=click.Path(path_type=Path), help="Model file; default: the one that is shipped.")
@click.option(
    "--operating-point",
    type=click.Choice(["screening", "balanced", "rule-in"]),
    default="balanced",
    show_default=True,
    help="screening misses few findings, rule-in raises few false alarms.",
)
@click.option("--workers", type=click.IntRange(1, 256), help="Threads that judge; default: one for each core.")
def scan(folder: Path, out: Path | None, model: Path | None, operating_point: str, workers: int | None) -> None:
    """Judge every new file in FOLDER and its subfolders; files judged before are skipped."""
    from cxr_edge import model_file, report, runtime
    from cxr_edge.discover import discover
    from cxr_edge.sweep import sweep

    folder = folder.resolve()
    if not out and not folder.name:
        raise UsageError(f"there is no place beside {folder} for its verdicts", "name an output folder with -o")
    out = out or folder.with_name(f"{folder.name}-verdicts")
    if out.resolve() == folder:
        raise UsageError(f"{out} is the scanned folder itself", "choose another output folder with -o")
    stop = threading.Event()
    # A flag, not an exception: the images in hand are finished, and nothing interrupts a write.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())

    chosen = model_file.read(model or model_file.SHIPPED)
    engine_room = runtime.find_runtime()
    engines = [runtime.Engine(engine_room, chosen) for _ in range(workers or _cores())]

    def count() -> int:
        return sum(1 for _ in discover(folder, leave_out=out, warn=lambda _: None))

    with report.progress_bar(count) as progress:
        tally = sweep(
            folder,
            out,
            chosen,
            engines,
            operating_point,
            progress=progress,
            warn=lambda text: click.echo(f"warning: {text}", err=True),
            stop=stop.is_set,
        )
    name = f"{chosen.manifest.name} ({chosen.short_digest})"
    report.print_summary(tally, folder, out, name, f"{engine_room.name} {engine_room.version}, {engines[0].kernels}")
    if tally.exit_code is ExitCode.NOTHING_FOUND:
        raise NothingFound(f"{folder} holds no radiograph ({tally.found} other files)", "check the folder's name")
    raise SystemExit(tally.exit_code)


@main.command(
    epilog="""\b
Exit codes: 0 measured, 1 something is worse than --threshold (or a bug), 2 usage,
4 nothing found, 5 model refused, 6 output cannot be written."""
)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), required=False)
@click.option("--model", type=click.Path(path_type=Path), help="Model file; default: the one that is shipped.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder on the disk to write to, left as it was; default: beside FOLDER, or where temporary files lie.",
)
@click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="About how long it takes.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all figures to this file.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Draw a PNG.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Compare with an earlier --json.")
@click.option(
    "--threshold",
    type=click.FloatRange(min=1),
    default=1.2,
    show_default=True,
    help="How many times worse than --against a figure may be.",
)
def bench(
    folder: Path | None,
    model: Path | None,
    out: Path | None,
    seconds: float,
    json_file: Path | None,
    plot_file: Path | None,
    against: Path | None,
    threshold: float,
) -> None:
    """Measure this box on a sample of FOLDER, or on phantoms: each step, whole sweeps, memory, images an hour."""
    from cxr_edge import model_file
    from cxr_edge.bench import run

    reports = run.Reports(json_file, plot_file, against, threshold)
    figures = run.bench(folder, model or model_file.SHIPPED, out, seconds)
    raise SystemExit(reports.give(figures))


@main.command(
    epilog="""\b
Exit codes: 0 a sweep can run (warnings may stand), 2 usage, 5 the runtime or the model
cannot be used here, 6 output cannot be written; 5 if both."""
)
@click.option("--model", type=click.Path(path_type=Path), help="Model file; default: the one that is shipped.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Output folder of your sweeps; default: here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(model: Path | None, out: Path | None, as_json: bool) -> None:
    """Check this box: each line says ok, or what to do."""
    from cxr_edge import doctor as examination

    checks = examination.examine(model, out or Path())
    click.echo(examination.to_json(checks) if as_json else examination.to_text(checks))
    raise SystemExit(examination.exit_code(checks))


@main.group(epilog=EPILOG)
def model() -> None:
    """Look at model files."""


@model.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), required=False)
def show(file: Path | None) -> None:
    """Print the card of a model: its data, licences and figures; without FILE, of the shipped one."""
    from cxr_edge import model_file

    click.echo(model_file.read(file or model_file.SHIPPED).card)


@model.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path), required=False)
def verify(file: Path | None) -> None:
    """Check a model on this box: digests, operators, golden input; without FILE, the shipped one."""
    from cxr_edge import model_file, runtime
    from cxr_edge.verify import verify as check

    chosen = model_file.read(file or model_file.SHIPPED)
    for line in check(chosen, runtime.find_runtime()):
        click.echo(line)


def _cores() -> int:
    """Cores that this process may use, which a container or taskset can make fewer than the machine has."""
    import os

    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
