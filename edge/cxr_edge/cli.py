"""`cxr-edge`: thin commands; parse, call, map errors to exit codes. Heavy imports wait until a command runs."""

from __future__ import annotations

import os
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import click

from cxr_edge import __version__
from cxr_edge.commands import LOG_FORMAT, ErrorMappingGroup, byte_count, seconds
from cxr_edge.errors import ExitCode, NothingFound, Status, UsageError

EPILOG = """\b
Exit codes: 0 all judged, 1 a bug, 2 usage, 3 some images failed, 4 nothing found,
5 model refused, 6 output cannot be written, 7 another sweep holds the output,
130 interrupted.
Research and triage aid, never a diagnosis."""


@click.group(cls=ErrorMappingGroup, epilog=EPILOG)
@click.version_option(__version__, prog_name="cxr-edge")
def main() -> None:
    """Judge chest radiographs on a small box: one CSV row for each file, one mask for each radiograph."""
    # numpy's library of linear algebra starts a thread for each core, which spin while they wait for work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


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
@click.option(
    "--memory",
    type=byte_count,
    metavar="SIZE",
    help="For pictures in hand, like 128M, beside the 65M of the program; default: half of the memory, at most 192M.",
)
@click.option(
    "--isolate/--no-isolate",
    default=None,
    help="Decode in processes of their own: a file that makes its decoder hang or crash costs one row. Takes 23M;"
    " default: yes, with less than 96M of memory no.",
)
@click.option("--dicom-seg", is_flag=True, help="Write the masks of DICOM files as DICOM Segmentations, too.")
@click.option("--again", type=click.Choice(["failed", "rejected", "all"]), help="Judge these once more.")
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Leave alone what somebody has written to within this time.",
)
@click.option(
    "--limit-time", type=seconds, metavar="TIME", help="Stop after 90s, 45m or 6h; the rest is for next time."
)
@click.option("--watch", is_flag=True, help="Go on, and judge files as they arrive.")
@click.option("--nice", type=click.IntRange(0, 19), default=10, show_default=True, help="Let others go first.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--redact", is_flag=True, help="Hash the names of files in messages.")
@click.pass_context
def scan(
    ctx: click.Context,
    folder: Path,
    out: Path | None,
    model: Path | None,
    operating_point: str,
    workers: int | None,
    memory: int | None,
    isolate: bool | None,
    dicom_seg: bool,
    again: str | None,
    settle: float,
    limit_time: float | None,
    watch: bool,
    nice: int,
    log_format: str,
    redact: bool,
) -> None:
    """Judge every new file in FOLDER and its subfolders; files judged before are skipped."""
    ctx.meta[LOG_FORMAT] = log_format
    from cxr_edge import budget, machine, model_file, report
    from cxr_edge.log import Log
    from cxr_edge.scan import Scan, Stopper
    from cxr_edge.sweep import Settings

    stop = Stopper(limit_time)
    folder = folder.resolve()
    if not out and not folder.name:
        raise UsageError(f"there is no place beside {folder} for its verdicts", "name an output folder with -o")
    out = out or folder.with_name(f"{folder.name}-verdicts")
    if out.resolve() == folder:
        raise UsageError(f"{out} is the scanned folder itself", "choose another output folder with -o")
    if dicom_seg and not find_spec("highdicom"):
        raise UsageError("DICOM segmentations need an extra", "pip install 'cxr-edge[dicom-seg]'")
    os.nice(nice)
    chosen = model_file.read(model or model_file.SHIPPED)
    statuses = {None: (), "failed": (Status.FAILED,), "rejected": (Status.REJECTED,), "all": tuple(Status)}
    settings = Settings(
        operating_point=operating_point,
        workers=workers or machine.cores(),
        memory=memory or budget.default_budget(),
        isolate=budget.isolates_by_default() if isolate is None else isolate,
        dicom_seg=dicom_seg,
        again=frozenset(statuses[again]),
        settle=settle,
    )
    log = Log(as_json=log_format == "json", redact=redact)
    job = Scan(folder, out, chosen, settings, log)
    tally = job.watch(stop) if watch else job.once(stop)
    report.print_summary(tally, folder, out, chosen, log)
    if tally.exit_code is ExitCode.NOTHING_FOUND:
        raise NothingFound(f"{folder} holds no radiograph ({tally.found} other files)", "check the folder's name")
    raise SystemExit(tally.exit_code)


@main.command(epilog=EPILOG)
@click.argument("out", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--to", type=click.Path(path_type=Path, dir_okay=False), help="File to write; default: stdout.")
@click.option("--format", "kind", type=click.Choice(["csv", "jsonl", "parquet"]), help="Default: by the file's name.")
@click.option("--since", type=click.DateTime(), help="Judged at this time (UTC) or later.")
@click.option("--until", type=click.DateTime(), help="Judged before this time (UTC).")
@click.option("--status", type=click.Choice([status.value for status in Status]), multiple=True)
@click.option("--verdict", multiple=True, help="Such as normal or uncertain; may be given several times.")
def export(
    out: Path,
    to: Path | None,
    kind: str | None,
    since: datetime | None,
    until: datetime | None,
    status: tuple[str, ...],
    verdict: tuple[str, ...],
) -> None:
    """Write the current verdict of every path in OUT, the output folder of a scan."""
    from cxr_edge.export import Filter, export

    by_name = {".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
    kind = kind or (by_name.get(to.suffix.lower()) if to else "csv")
    if not kind:
        raise UsageError(f"{to} does not tell a format", "end it in .csv, .jsonl or .parquet, or use --format")
    since_text, until_text = (f"{time:%Y-%m-%dT%H:%M:%SZ}" if time else "" for time in (since, until))
    count = export(out, to, kind, Filter(since_text, until_text, status, verdict))
    if to:
        click.echo(f"{count} verdicts in {to}")


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
