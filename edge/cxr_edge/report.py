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
from cxr_edge.sweep import Tally

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


def print_summary(tally: Tally, folder: Path, out: Path, model: str, runtime: str) -> None:
    """Print what a sweep did to stdout: verdicts, what got none and why, the rate, and where the files are.

    Raises:
        OutputUnwritable: stdout is closed or its disk is full; all verdicts are recorded by then.
    """
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
    # Into memory first: rich would answer a reader that has left with exit code 1.
    summary, terminal = io.StringIO(), sys.stdout.isatty()
    console = Console(
        file=summary, force_terminal=terminal, width=None if terminal else 100, soft_wrap=True, highlight=False
    )
    console.print(table)
    for reason, count in tally.problems.most_common():
        console.print(f"  without a verdict: {count} {reason.value}", markup=False)
    rate = f", {tally.judged / tally.seconds:.1f} images/s" if tally.judged else ""
    console.print(f"time      {tally.seconds:.1f} s{rate}", markup=False)
    console.print(f"verdicts  {printable(out / 'verdicts.csv')}", markup=False)
    if (out / "masks").is_dir():  # no model without a mask output makes it
        console.print(f"masks     {printable(out / 'masks')}", markup=False)
    console.print(f"model     {model}; {runtime}", markup=False)
    console.print(NOT_A_DIAGNOSIS, markup=False)
    try:
        sys.stdout.write(summary.getvalue())
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        message = f"the summary cannot be written to standard output: {error.strerror}"
        raise OutputUnwritable(message, f"all verdicts are in {printable(out / 'verdicts.csv')}") from error
