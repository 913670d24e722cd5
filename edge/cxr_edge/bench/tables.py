"""What a terminal shows of a bench."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cxr_edge.bench.against import Change, past
from cxr_edge.bench.figures import NIGHT_HOURS, Figures, bound, plan
from cxr_edge.report import NOT_A_DIAGNOSIS

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
"""Columns where no terminal says how many."""


def print_figures(figures: Figures) -> None:
    """Print all figures to stdout."""
    from rich.table import Table

    console = _console()
    for name, value in _facts(figures):
        console.print(f"{name:<10}{value}", markup=False)

    starts = Table("start, ms", title="Starts: median of the rounds", title_justify="left")
    for column in ("median", "least", "most"):
        starts.add_column(column, justify="right")
    for name, each in figures.start_ms.items():
        starts.add_row(name, *(f"{ms:.0f}" for ms in (each.median, each.least, each.most)))
    console.print(starts)

    steps = Table("step, ms", title="One image on one core, step by step", title_justify="left")
    for column in ("p50", "p95", "p99", "mean", "images"):
        steps.add_column(column, justify="right")
    for name, step in figures.steps_ms.items():
        steps.add_row(name, *(f"{ms:.2f}" for ms in (step.p50, step.p95, step.p99, step.mean)), str(step.n))
    steps.add_section()
    steps.add_row("all steps", "", "", "", f"{figures.image_ms.median:.2f}", "")
    steps.add_row("of which computing", "", "", "", f"{figures.computing_ms.median:.2f}", "")
    console.print(steps)

    sweeps = Table("cores", title="Whole sweeps, a fresh process each", title_justify="left")
    for column in ("images/s", "least", "most", "bound by parts", "share of it", "peak memory, MiB", "files"):
        sweeps.add_column(column, justify="right")
    for sweep in figures.sweeps:
        rates = sweep.images_per_second
        sweeps.add_row(
            str(sweep.cores),
            *(f"{value:.1f}" for value in (rates.median, rates.least, rates.most)),
            f"{bound(sweep.cores, figures.image_ms.median):.1f}",
            f"{sweep.share_of_bound:.0%}",
            f"{sweep.peak_mib:.0f}",
            str(sweep.files),
        )
    console.print(sweeps)

    rate = figures.best.images_per_second.median
    nights = Table("files", title=f"What it takes: {3600 * rate:,.0f} images an hour", title_justify="left")
    for column in ("time", f"nights of {NIGHT_HOURS} h"):
        nights.add_column(column, justify="right")
    for files, hours, count in plan(rate):
        nights.add_row(f"{files:,}", duration(hours), str(count))
    console.print(nights)
    for note in figures.notes:
        console.print(f"note: {note}", markup=False)
    console.print(NOT_A_DIAGNOSIS, markup=False)


def _facts(figures: Figures) -> list[tuple[str, str]]:
    machine, engine, model, pictures = figures.machine, figures.engine, figures.model, figures.pictures
    limit = f", limited to {machine.limit_mib:.0f} MiB" if machine.limit_mib is not None else ", no limit"
    total = "unknown" if machine.memory_mib is None else f"{machine.memory_mib:.0f} MiB"
    threads = f"{engine.threads} thread{'s' if engine.threads > 1 else ''} for each interpreter"
    return [
        ("machine", f"{machine.cpu}; cores to use: {machine.cores}; {machine.system}; {machine.python}"),
        ("int8 by", ", ".join(machine.instructions) or "unknown instructions"),
        ("memory", total + limit),
        ("runtime", f"{engine.name} {engine.version}, {threads}, {engine.kernels}"),
        ("model", f"{model.name} ({model.digest}), {model.width} x {model.height} pixels"),
        (
            "pictures",
            f"{pictures.origin}: {pictures.files} files, of which {pictures.judged} get a verdict; "
            f"median {pictures.megapixels:.2f} megapixels, {pictures.kilobytes:.0f} kB",
        ),
        ("disk", figures.disk or "unknown"),
    ]


def print_changes(changes: list[Change], differing: list[str], threshold: float) -> None:
    """Print what changed against an earlier bench to stdout."""
    from rich.table import Table

    console = _console()
    table = Table("figure", title=f"Against the earlier bench; threshold {threshold:g}", title_justify="left")
    for column in ("before", "now", "", "now is", ""):
        table.add_column(column, justify="right")
    worse = past(changes, threshold)
    for change in changes:
        says = "PAST IT" if change in worse else "" if change.decides else "too short to tell"
        values = (f"{change.before:.2f}", f"{change.now:.2f}", change.unit, ratio(change.worse))
        table.add_row(change.name, *values, says)
    console.print(table)
    for line in differing:
        console.print(f"differs: {line}", markup=False)


def ratio(worse: float) -> str:
    """How much worse, in words: '1.25 x worse', '1.10 x better', 'the same'."""
    if round(worse, 2) == 1:
        return "the same"
    return f"{worse:.2f} x worse" if worse > 1 else f"{1 / worse:.2f} x better"


def duration(hours: float) -> str:
    """A time as people say it: '14 s', '8.3 min', '2.8 h'."""
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"


def _console() -> Console:
    from rich.console import Console

    terminal = sys.stdout.isatty()
    return Console(width=None if terminal else WIDTH, soft_wrap=True, highlight=False)
