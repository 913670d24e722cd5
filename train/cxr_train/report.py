"""One self-contained HTML page of an evaluation: figures, plots and what was judged with what; no network needed."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cxr_train import metrics
from cxr_train.evaluation_plots import KINDS

TEMPLATE = "report.html.j2"


def write(
    splits: dict[str, dict[str, Any]], notes: dict[str, list[str]], labels: list[str], about: dict[str, Any], out: Path
) -> None:
    """Write `report.html` to `out`, with the plots that lie there inside it.

    Args:
        splits: `metrics.report` of each split.
        notes: `metrics.gaps` of each split.
        labels: of the model, in the order in which they are shown.
        about: what was judged with what.

    Raises:
        OSError: a plot is missing, or the page cannot be written.
    """
    plots = {name: [(title, embedded(out / f"{kind}_{name}.png")) for kind, title in KINDS.items()] for name in splits}
    page = environment().get_template(TEMPLATE)
    text = page.render(splits=splits, notes=notes, labels=labels, about=about, plots=plots, single=metrics.SINGLE)
    (out / "report.html").write_text(text, encoding="utf-8")


def number(value: float | None) -> str:
    """A figure with three decimals, or '-' where there is none."""
    return "-" if value is None else f"{value:.3f}"


def interval(bounds: list[float] | None) -> str:
    """An interval as '0.812 to 0.934', or nothing where there is none."""
    return "" if bounds is None else f"{bounds[0]:.3f} to {bounds[1]:.3f}"


def environment() -> Environment:
    """Templates of this package, with the filters `number` and `interval`; what is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval}
    return environment


def embedded(file: Path) -> str:
    """A PNG file as a data URL. Raises OSError."""
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
