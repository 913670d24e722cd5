"""`cxr-train`: thin commands; parse, call, map errors to exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cxr_edge import __version__
from cxr_edge.commands import ErrorMappingGroup

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
OUT = click.Path(path_type=Path)


@click.group(cls=ErrorMappingGroup, needs="train")
@click.version_option(__version__, prog_name="cxr-train")
def main() -> None:
    """Train radiograph models: from a table of pictures to model.keras and its evaluation."""
    # TensorFlow's start-up notes say nothing to a user; its errors still appear.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command()
@click.argument("folder", type=OUT)
@click.option("--count", default=80, show_default=True, help="Pictures.")
@click.option("--seed", default=0, show_default=True)
def phantoms(folder: Path, count: int, seed: int) -> None:
    """Write a synthetic data set to FOLDER: pictures, lung masks and a source.csv to try everything with."""
    from cxr_train.phantoms import write_dataset

    click.echo(f"{count} phantoms: {write_dataset(folder, count, seed)}")


@main.command()
@click.argument("source", type=FILE)
@click.option("-o", "--out", type=OUT, required=True, help="Table to write (CSV).")
@click.option("--path-column", default="path", show_default=True)
@click.option("--label-column", default="label", show_default=True)
@click.option("--mask-column", default="", help="Lung masks: 255 lung, 0 not, 127 not judged.")
@click.option("--origin-column", default="", help="Where the picture comes from; figures are reported by it.")
@click.option("--group-column", default="", help="Patient or near-duplicates: rows that stay in one split.")
@click.option("--split-column", default="", help="train, validation, test or external; without it a split is made.")
@click.option("--licence-column", default="")
@click.option("--where", default="", help="Rows to use, e.g. \"set == 'pool' and primary == '1'\".")
@click.option("--external", default="", help="Rows that training never sees, from another hospital.")
@click.option("--seed", default=0, show_default=True)
def table(source: Path, out: Path, where: str, external: str, seed: int, **columns: str) -> None:
    """Verify every picture of SOURCE (a CSV), split it by group, and write the table that training reads."""
    from cxr_train import table as tables

    names = {name.removesuffix("_column"): column for name, column in columns.items()}
    rows, complaints = tables.build(source, out, tables.Source(**names), where, external, seed)
    for complaint in complaints:
        click.echo(complaint, err=True)
    for line in tables.summary(tables.read(out)):
        click.echo(line)
    click.echo(f"{rows} rows in {out}, {len(complaints)} left out")


@main.command()
@click.option("--table", "table_file", type=FILE, required=True)
@click.option("--out", type=OUT, required=True, help="Run folder; a killed run started again resumes.")
@click.option("--labels", default="", help="Comma-separated, in the order of the outputs; default: alphabetical.")
@click.option("--alpha", default=1.0, show_default=True, help="Width of MobileNetV2.")
@click.option("--weights", default="imagenet", show_default=True, help="'imagenet' (downloads), 'none', or a file.")
@click.option("--size", default=224, show_default=True, help="Side of the input, pixels, a multiple of 32.")
@click.option("--batch", default=32, type=click.IntRange(1), show_default=True)
@click.option("--frozen-epochs", default=3, type=click.IntRange(1), show_default=True)
@click.option("--fine-epochs", default=20, type=click.IntRange(1), show_default=True)
@click.option("--frozen-rate", default=1e-3, show_default=True)
@click.option("--fine-rate", default=2e-4, show_default=True)
@click.option("--seed", default=0, show_default=True)
def fit(table_file: Path, out: Path, labels: str, weights: str, **settings: object) -> None:
    """Train MobileNetV2 with a label head and a lung mask head, frozen first, then fine-tuned."""
    from cxr_train import fit as fitting

    chosen = fitting.Settings(
        labels=tuple(name.strip() for name in labels.split(",") if name.strip()),
        weights=None if weights == "none" else weights,
        **settings,  # type: ignore[arg-type]
    )
    click.echo(f"trained: {fitting.fit(table_file, out, chosen)}")


@main.command()
@click.option("--model", type=FILE, required=True, help="A model.keras with its model.json beside it.")
@click.option("--table", "table_file", type=FILE, required=True)
@click.option("--out", type=OUT, required=True, help="Folder for predictions.csv, evaluation.json and plots.")
def evaluate(model: Path, table_file: Path, out: Path) -> None:
    """Judge the validation, test and external rows: predictions first, every figure computed from them."""
    from cxr_train import evaluation

    for line in evaluation.evaluate(model, table_file, out):
        click.echo(line)
