"""What a person looks at: progress while a sweep runs, and its summary."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cxr_edge.discover import printable
from cxr_edge.errors import OutputUnwritable, Status
from cxr_edge.log import Log, json_line
from cxr_edge.model_file import ModelFile
from cxr_edge.tally import Tally

NOT_A_DIAGNOSIS = "Research and triage aid, never a diagnosis."


@contextmanager
def progress_bar(total: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Show progress on stderr while the context lasts, if a person is there to see it; yields what advances it.

    Args:
        total: counts the files; called only if somebody looks.
    """
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("judging", total=total())
        yield lambda: bar.advance(task)


def print_summary(tally: Tally, folder: Path, out: Path, model: ModelFile, log: Log) -> None:
    """Print what a sweep did to stdout: a table on a terminal, else one line that fits a mail, or a JSON object.

    Raises:
        OutputUnwritable: stdout is closed or its disk is full; all verdicts are recorded by then.
    """
    if sys.stdout.isatty() and not log.as_json:
        _print(_table(tally, folder, out, model), out)
    else:
        print_line(tally, out, log)


def print_line(tally: Tally, out: Path, log: Log) -> None:
    """Print what a sweep did to stdout in one line, text or JSON. Raises OutputUnwritable."""
    table = log.name(printable(out / "verdicts.csv"))
    if log.as_json:
        counts = {"found": tally.found, "judged": tally.judged, "known": tally.known, "unseen": tally.unseen}
        for each in (tally.statuses, tally.problems, tally.left):
            counts |= {key.value: count for key, count in each.items()}
        fields = {"verdicts": dict(tally.verdicts), "seconds": round(tally.seconds, 1), "table": table}
        stopped = {"stopped": tally.stopped.value} if tally.stopped else {}
        _print(json_line("info", "swept", **counts, **fields, **stopped) + "\n", out)
    else:
        _print(f"cxr-edge: {summary_line(tally)} -> {table} ({NOT_A_DIAGNOSIS})\n", out)


def summary_line(tally: Tally) -> str:
    """What a sweep did, in one line: '12 judged (9 normal, 3 uncertain), 1 rejected (blank 1), 480 known; 3.1 s'."""
    ok = ", ".join(f"{count} {verdict}" for verdict, count in tally.verdicts.most_common())
    parts = [f"{tally.statuses[Status.OK]} judged" + (f" ({ok})" if ok else "")]
    for status in (Status.REJECTED, Status.FAILED):
        if count := tally.statuses[status]:
            parts.append(f"{count} {status.value}")
    if tally.problems:
        parts[-1] += " (" + ", ".join(f"{reason.value} {count}" for reason, count in tally.problems.most_common()) + ")"
    parts.append(f"{tally.known} known")
    parts += [f"{count} {left.value}" for left, count in tally.left.items() if count]
    if tally.unseen:
        parts.append(f"{tally.unseen} not to be looked at")
    if tally.stopped:
        parts.append(f"stopped: {tally.stopped.value}")
    return ", ".join(parts) + f"; {tally.seconds:.1f} s" + _rate(tally)


def _rate(tally: Tally) -> str:
    return f", {tally.judged / tally.seconds:.1f} images/s" if tally.judged else ""


def _table(tally: Tally, folder: Path, out: Path, model: ModelFile) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"cxr-edge: {printable(folder)}"), title_justify="left")
    table.add_column("verdict")
    table.add_column("files", justify="right")
    for verdict, count in tally.verdicts.most_common():
        table.add_row(verdict, str(count))
    for status in (Status.REJECTED, Status.FAILED):
        if tally.statuses[status]:
            table.add_row(status.value, str(tally.statuses[status]))
    table.add_section()
    table.add_row("judged now", str(tally.judged))
    table.add_row("known from before", str(tally.known))
    for left, count in tally.left.items():
        table.add_row(f"left for the next time: {left.value}", str(count))
    # Into memory first: rich would answer a reader that has left with exit code 1.
    summary = io.StringIO()
    console = Console(file=summary, force_terminal=True, soft_wrap=True, highlight=False)
    console.print(table)
    for reason, count in tally.problems.most_common():
        console.print(f"  without a verdict: {count} {reason.value}", markup=False)
    if tally.stopped:
        console.print(f"stopped   {tally.stopped.value}", markup=False)
    console.print(f"time      {tally.seconds:.1f} s{_rate(tally)}", markup=False)
    console.print(f"verdicts  {printable(out / 'verdicts.csv')}", markup=False)
    if (out / "masks").is_dir():  # no model without a mask output makes it
        console.print(f"masks     {printable(out / 'masks')}", markup=False)
    judge = f"{model.manifest.name} ({model.short_digest})" + (f"; {tally.runtime}" if tally.runtime else "")
    console.print(f"model     {judge}", markup=False)
    console.print(NOT_A_DIAGNOSIS, markup=False)
    return summary.getvalue()


def _print(text: str, out: Path) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = f"the summary cannot be written to standard output: {error.strerror}"
        raise OutputUnwritable(message, f"all verdicts are in {printable(out / 'verdicts.csv')}") from error
