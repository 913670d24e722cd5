"""`cxr-edge scan` beside what people would use instead: the same files, the same model, in one run.

Each contender has an environment of its own, made here from PyPI. Each is first checked to give cxr-edge's verdicts, on
pictures of all kinds; then all are measured in rounds, one after the other in each round, from outside the process.
Run from the repository's root, on Linux: python -m benchmarks.side_by_side
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import environments, figures, measure, pictures, plot
from benchmarks.contenders import CONTENDERS, TF2ONNX, Contender
from benchmarks.environments import NotMade
from benchmarks.figures import Agreement, Round
from cxr_edge import model_file
from cxr_edge.bench.figures import Spread, spread
from cxr_edge.machine import look

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}
BUILD = "from cxr_train import network, presets; network.build(presets.Settings(weights=None), 3).model.save"


@dataclass
class Result:
    """What was found of one contender; `agreement` is None where its weights are not the model's."""

    contender: Contender
    agreement: Agreement | None
    size: float
    rounds: list[Round] = field(default_factory=list)

    def spreads(self) -> dict[str, Spread]:
        """Each figure's, over the rounds, and the installed size."""
        return {**figures.summary(self.rounds), "size": spread([self.size])}


def scan(contender: Contender, folder: Path, out: Path, models: dict[str, str]) -> measure.Run:
    """Have a folder judged anew.

    Raises:
        ClickException: it failed; with what it said last.
    """
    shutil.rmtree(out, ignore_errors=True)
    log = out.with_suffix(".log")
    run = measure.run(contender.command(folder, out, models), pictures.ROOT, log, QUIET)
    if run.status:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-5:])
        raise click.ClickException(f"{contender.name} left with {run.status}:\n{last}")
    return run


def verdicts(out: Path) -> dict[str, str]:
    """Verdict of each path in a CSV; '' where there is none."""
    with (out / "verdicts.csv").open(newline="") as file:
        return {row["path"]: row["verdict"] for row in csv.DictReader(file)}


def available() -> tuple[list[Contender], dict[str, str]]:
    """The contenders whose environments could be made, and why the others could not, by name."""
    there, missing = [], {}
    for contender in CONTENDERS:
        try:
            contender.environment.make()
            there.append(contender)
        except NotMade as error:
            missing[contender.name] = str(error)
    if not there or there[0] is not CONTENDERS[0]:
        raise click.ClickException(f"cxr-edge could not be installed: {missing[CONTENDERS[0].name]}")
    return there, missing


def prepare_models(keras: Path, folder: Path) -> tuple[dict[str, str], bool]:
    """The model in every format, by name, and whether the Keras one has the very weights of the .tflite."""
    shipped = model_file.read(model_file.SHIPPED)
    onnx = environments.FOLDER / "models" / f"{shipped.short_digest}.onnx"
    if not onnx.is_file():
        TF2ONNX.make()
        onnx.parent.mkdir(exist_ok=True)
        half = onnx.with_suffix(".part")
        convert = [str(TF2ONNX.python), "-m", "benchmarks.peers.to_onnx", str(shipped.path), str(half)]
        log = folder / "to_onnx.log"
        if measure.run(convert, pictures.ROOT, log, QUIET).status:
            raise click.ClickException(f"the model could not be brought to ONNX:\n{log.read_text()[-1000:]}")
        half.replace(onnx)
    same = keras.is_file() and hashlib.sha256(keras.read_bytes()).hexdigest() == shipped.manifest.about["keras_sha256"]
    if not same:
        keras = folder / "random.keras"
        subprocess.run([sys.executable, "-c", f"{BUILD}({str(keras)!r})"], check=True, capture_output=True)
    return {"tflite": str(shipped.path), "onnx": str(onnx), "keras": str(keras)}, same


def compare(
    contenders: Sequence[Contender], models: dict[str, str], *, same_weights: bool, folder: Path
) -> list[Result]:
    """Check the verdicts of every contender against those of the first, on pictures of all kinds."""
    results: list[Result] = []
    ours: dict[str, str] = {}
    for contender in contenders:
        scan(contender, folder / "originals", folder / "out", models)
        found = verdicts(folder / "out")
        ours = ours or found
        compared = same_weights or "{keras}" not in contender.words
        results.append(
            Result(contender, figures.agreement(ours, found) if compared else None, contender.environment.size())
        )
    return results


def measure_rounds(results: Sequence[Result], models: dict[str, str], rounds: int, count: int, folder: Path) -> None:
    """Measure all contenders in turn, as often as asked."""
    console = Console(stderr=True)
    for number in range(rounds):
        for result in results:
            console.print(f"round {number + 1} of {rounds}: {result.contender.name}", markup=False, highlight=False)
            one = scan(result.contender, folder / "one", folder / "out", models)
            every = scan(result.contender, folder / "incoming", folder / "out", models)
            try:
                result.rounds.append(figures.one_round(count, one.seconds, every.seconds, every.peak))
            except ValueError as error:
                raise click.ClickException(f"{error}: take a greater --count, on a quiet machine") from error


def machine() -> str:
    """One line: processor, cores, system and Python."""
    box = look()
    return f"{box.cpu}, {box.cores} cores; {box.system}; {box.python}"


def table(results: Sequence[Result]) -> Table:
    """The figures, for people."""
    shown = Table()
    for title in ("", "writes", "images/s", "cold start, s", "peak memory, MiB", "installed, MiB", "same verdicts"):
        shown.add_column(title, no_wrap=True)
    for result in results:
        spreads = result.spreads()
        shown.add_row(
            result.contender.name,
            result.contender.writes,
            figures.told(spreads["rate"], 1),
            figures.told(spreads["cold"], 2),
            figures.told(spreads["peak"], 0),
            f"{result.size:,.0f}",
            result.agreement.told() if result.agreement else "other weights",
        )
    return shown


def record(results: Sequence[Result], missing: dict[str, str], facts: dict[str, Any]) -> dict[str, Any]:
    """Everything, for JSON."""
    return {
        **facts,
        "missing": missing,
        "contenders": [
            {
                "name": result.contender.name,
                "writes": result.contender.writes,
                "settings": result.contender.settings,
                "versions": result.contender.environment.versions(),
                "agreement": asdict(result.agreement) if result.agreement else None,
                "rounds": [asdict(each) for each in result.rounds],
                **{name: asdict(values) for name, values in result.spreads().items()},
            }
            for result in results
        ],
    }


def panels(results: Sequence[Result]) -> list[plot.Panel]:
    """The four figures, for the plot."""

    def values(figure: str) -> dict[str, Spread]:
        return {result.contender.short: result.spreads()[figure] for result in results}

    return [
        plot.Panel("images/s", "more", values("rate"), 0),
        plot.Panel("cold start, s", "less", values("cold"), 1),
        plot.Panel("peak memory, MiB", "less", values("peak"), 0),
        plot.Panel("installed, MiB", "less", values("size"), 0),
    ]


@click.command(help=__doc__)
@click.option("--count", default=480, show_default=True, help="Pictures that a round judges.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--quick", is_flag=True, help="240 pictures, 1 round: to see whether it runs; its figures say little.")
@click.option(
    "--keras", type=click.Path(path_type=Path), default=Path("runs/shipped/fit/model.keras"), show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(count: int, rounds: int, quick: bool, keras: Path, out: Path) -> None:
    """Compare."""
    count, rounds = (240, 1) if quick else (count, rounds)
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    contenders, missing = available()
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        models, same_weights = prepare_models(keras, folder)
        checked_on = pictures.originals(folder / "originals")
        measured_on = pictures.same_size(folder / "incoming", count)
        (folder / "one").mkdir()
        shutil.copyfile(next((folder / "incoming").iterdir()), folder / "one" / "one.png")
        results = compare(contenders, models, same_weights=same_weights, folder=folder)
        measure_rounds(results, models, rounds, count, folder)

    facts = {"machine": machine(), "measured_on": measured_on, "checked_on": checked_on, "rounds_each": rounds}
    out.mkdir(parents=True, exist_ok=True)
    (out / "side_by_side.json").write_text(json.dumps(record(results, missing, facts), indent=1) + "\n")
    plot.draw(panels(results), f"{measured_on}; {facts['machine']}; medians of {rounds}", out / "side_by_side.png")
    console.print(
        f"{facts['machine']}\n{measured_on}; {rounds} rounds, interleaved: median (least to most)", markup=False
    )
    console.print(table(results))
    console.print(f"same verdicts: of those that both are certain of; of all. On {checked_on}.", markup=False)
    ours, *theirs = results
    for result in theirs:
        ratios = figures.against(ours.spreads(), result.spreads())
        console.print(f"{ours.contender.short} against {result.contender.short}: {ratios}", markup=False)
    for result in results:
        console.print(f"  {result.contender.name}: {result.contender.settings}", markup=False)
    for name, why in missing.items():
        console.print(f"  {name}: left out, {why}", markup=False)
    console.print(f"more in {out}/side_by_side.json and .png", markup=False)
    if others := [each.contender.name for each in results if each.agreement and not each.agreement.good]:
        raise click.ClickException(f"not the same work, by its verdicts: {', '.join(others)}")


if __name__ == "__main__":
    main()
