"""Accuracy against latency of model files: which of them no other one beats in both.

Accuracy is the one in each file's own manifest, on the held-out pictures of the table that it was converted with;
latency is measured here, one thread, the files in turn. Run from the repository's root:
python -m benchmarks.pareto MODEL.tflite...
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import figures
from benchmarks.side_by_side import machine
from cxr_edge import model_file, runtime
from cxr_edge.bench.figures import Spread, spread

ROUNDS, CALLS = 7, 20
BEST, OTHER = "#1f77b4", "#98a0a8"


@dataclass(frozen=True)
class Point:
    """One model file: its own accuracy on `pictures`, 0 to 1, and milliseconds of one inference."""

    name: str
    accuracy: float
    pictures: int
    ms: Spread
    megabytes: float


def accuracy(model: model_file.ModelFile) -> tuple[float, int]:
    """Accuracy on all held-out pictures, by the manifest, and how many they were.

    Raises:
        ClickException: the manifest has no such figure.
    """
    for record in model.manifest.about.get("figures", []):
        if (record["split"], record["origin"]) == ("test", "all"):
            return float(record["accuracy"]), int(record["pictures"])
    raise click.ClickException(
        f"{model.path} has no figures of held-out pictures: convert it with a table that has some"
    )


def latencies(models: Sequence[model_file.ModelFile]) -> list[Spread]:
    """Milliseconds of one inference of each, on its golden input: medians of `CALLS`, spread over `ROUNDS` in turn."""
    room = runtime.find_runtime()
    engines = [(runtime.Engine(room, model), model.golden.pixels[None, :, :, None]) for model in models]
    rounds: list[list[float]] = [[] for _ in models]
    for _ in range(ROUNDS):
        for (engine, pixels), taken in zip(engines, rounds, strict=True):
            calls = []
            for _ in range(CALLS):
                start = time.perf_counter()
                engine.infer(pixels)
                calls.append(1000 * (time.perf_counter() - start))
            taken.append(spread(calls).median)
    return [spread(taken) for taken in rounds]


def front(points: Sequence[Point]) -> set[str]:
    """Names of the points that no other one beats in accuracy and latency at once."""
    return {
        point.name
        for point in points
        if not any(
            (other.accuracy >= point.accuracy and other.ms.median < point.ms.median)
            or (other.accuracy > point.accuracy and other.ms.median <= point.ms.median)
            for other in points
        )
    }


def draw(points: Sequence[Point], best: set[str], caption: str, target: Path) -> None:
    """Write the plot as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    figure, axis = plt.subplots(figsize=(8, 4.5))
    line = sorted((point.ms.median, point.accuracy) for point in points if point.name in best)
    axis.plot(*zip(*line, strict=True), color=BEST, linewidth=1)
    for number, point in enumerate(sorted(points, key=lambda each: each.ms.median), 1):
        colour = BEST if point.name in best else OTHER
        place = (point.ms.median, point.accuracy)
        axis.plot(*place, marker=f"${number}$", markersize=9, color=colour, linestyle="", label=point.name)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(ticker.NullLocator())
    axis.set_xlabel("one inference, one thread, ms (log)")
    axis.set_ylabel("accuracy, held-out pictures")
    axis.margins(0.1)
    axis.grid(alpha=0.3)
    axis.set_title(caption, fontsize=8)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(target, dpi=150)
    plt.close(figure)


@click.command(help=__doc__)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(files: tuple[Path, ...], out: Path) -> None:
    """Compare."""
    models = [model_file.read(path) for path in files]
    points = [
        Point(model.path.stem, *accuracy(model), ms, model.path.stat().st_size / 1e6)
        for model, ms in zip(models, latencies(models), strict=True)
    ]
    best = front(points)
    console = Console(width=120, highlight=False)
    console.print(f"{machine()}; medians of {ROUNDS} rounds of {CALLS} inferences, in turn", markup=False)
    table = Table("model", "accuracy", "pictures", "inference, ms", "MB", "beaten by none")
    for point in sorted(points, key=lambda each: each.ms.median):
        cells = (f"{point.accuracy:.3f}", str(point.pictures), figures.told(point.ms, 2), f"{point.megabytes:.2f}")
        table.add_row(point.name, *cells, "yes" if point.name in best else "")
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "pareto.json").write_text(json.dumps([asdict(point) for point in points], indent=1) + "\n")
    draw(points, best, machine(), out / "pareto.png")


if __name__ == "__main__":
    main()
