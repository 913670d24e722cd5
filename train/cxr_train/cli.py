"""`cxr-train`: thin commands; parse, call, map errors to exit codes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from cxr_edge import __version__
from cxr_edge.commands import ErrorMappingGroup
from cxr_train.presets import AUGMENTATIONS, BACKBONES, BALANCES, PRESETS

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
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.option("-o", "--out", type=OUT, required=True, help="Table to write (CSV).")
@click.option("--path-column", default="path", show_default=True, help="Columns are named for a table only.")
@click.option("--label-column", default="label", show_default=True)
@click.option("--mask-column", default="", help="Lung masks: 255 lung, 0 not, 127 not judged.")
@click.option("--origin-column", default="", help="Where the picture comes from; figures are reported by it.")
@click.option("--group-column", default="", help="Patient or near-duplicates: rows that stay in one split.")
@click.option("--split-column", default="", help="train, validation, test or external; without it a split is made.")
@click.option("--licence-column", default="")
@click.option("--age-column", default="", help="In years (or as in DICOM: 006M); figures of an audit by age.")
@click.option("--opacity-column", default="", help="Masks of opacities, 255; several columns by commas.")
@click.option("--where", default="", help="Rows to use, e.g. \"set == 'pool' and primary == '1'\".")
@click.option("--external", default="", help="Rows that training never sees, from another hospital.")
@click.option("--doubtful", default="", help="Rows whose label is doubtful: not trained on, but judged as any other.")
@click.option("--resplit", is_flag=True, help="Make a split by group, whatever split the source has.")
@click.option(
    "--split-by-picture",
    is_flag=True,
    help="Every picture is its own group, to reproduce figures made so. They flatter: one patient, even one picture, "
    "then stands in training and in the test.",
)
@click.option("--seed", default=0, show_default=True)
def table(
    source: Path,
    out: Path,
    where: str,
    external: str,
    doubtful: str,
    resplit: bool,
    split_by_picture: bool,
    seed: int,
    **columns: str,
) -> None:
    """Verify every picture of SOURCE, split it by group, and write the table that training reads.

    SOURCE is recognised by itself: class folders; train, val and test with class folders; class folders with images/
    and masks/ and an Excel file for each; a CSV or Excel table; or a folder with X.npy and y.npy.
    """
    from cxr_train import table as tables

    names = tables.Source(**{name.removesuffix("_column"): column for name, column in columns.items()})
    built = tables.build(
        source, out, names, where, external, seed, doubtful=doubtful, resplit=resplit, by_picture=split_by_picture
    )
    for complaint in built.left_out:
        click.echo(complaint, err=True)
    for line in (*built.notes, "", *tables.summary(tables.read(out)), "", *built.sizes, *built.leaks):
        click.echo(line)
    click.echo(f"{built.rows} rows in {out}, {len(built.left_out)} left out")


@main.command()
def presets() -> None:
    """List the presets of `fit`: what each reproduces and how it is set."""
    from rich.console import Console
    from rich.table import Table

    listing = Table("preset", "reproduces", "network", "input", "epochs", "balance", box=None, pad_edge=False)
    for name, preset in PRESETS.items():
        chosen = preset.settings
        network = f"{chosen.network}, {chosen.backbone}" if chosen.weights else chosen.network
        epochs = f"{chosen.frozen_epochs} + {chosen.fine_epochs}" if chosen.frozen_epochs else str(chosen.fine_epochs)
        drawn = f"{chosen.balance} {chosen.per_class or ''}".strip()
        listing.add_row(name, preset.reproduces, f"{network}, {chosen.task}", f"{chosen.size} px", epochs, drawn)
    Console().print(listing)


@main.command()
@click.option("--preset", type=click.Choice(list(PRESETS)), default="multitask", show_default=True)
@click.option("--table", "table_file", type=FILE, required=True)
@click.option("--out", type=OUT, required=True, help="Run folder; a killed run started again resumes.")
@click.option("--folds", default="", help="Cross-validate: a number of folds by group, or 'origin' to leave one out.")
@click.option("--labels", help="Comma-separated, in the order of the outputs; default: alphabetical.")
@click.option("--task", type=click.Choice(["softmax", "sigmoid"]), help="One probability a label, or of the second.")
@click.option("--backbone", type=click.Choice(BACKBONES))
@click.option("--alpha", type=float, help="Width of MobileNetV2.")
@click.option("--weights", help="Of the backbone: 'imagenet' (Keras downloads it), 'none', or a file.")
@click.option("--size", type=int, help="Side of the input, pixels; of multitask a multiple of 32.")
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True))
@click.option("--batch", type=click.IntRange(1))
@click.option("--frozen-epochs", type=click.IntRange(0), help="On the frozen backbone.")
@click.option("--fine-epochs", type=click.IntRange(0), help="With the backbone freed, or all of a plain CNN's.")
@click.option("--frozen-rate", type=click.FloatRange(0, min_open=True))
@click.option("--fine-rate", type=click.FloatRange(0, min_open=True))
@click.option("--fine-layers", type=click.IntRange(0), help="Last layers of the backbone to free; 0 for all.")
@click.option("--patience", type=click.IntRange(0), help="Epochs without a better loss that end a phase; 0: never.")
@click.option("--balance", type=click.Choice(BALANCES), help="Of the training rows only.")
@click.option("--per-class", type=click.IntRange(0), help="With undersample: pictures a label; 0: as the rarest has.")
@click.option("--augmentation", type=click.Choice(AUGMENTATIONS), help="Of the training rows only.")
@click.option("--seed", type=int)
def fit(preset: str, table_file: Path, out: Path, folds: str, **overrides: object) -> None:
    """Train a preset on a table; every other option overrides one of the preset's settings (see `presets`)."""
    from cxr_train import fit as fitting

    chosen = {name: value for name, value in overrides.items() if value is not None}
    if labels := chosen.get("labels"):
        chosen["labels"] = tuple(name.strip() for name in str(labels).split(",") if name.strip())
    if chosen.get("weights") == "none":
        chosen["weights"] = None
    settings = replace(PRESETS[preset].settings, **chosen)  # type: ignore[arg-type]
    if folds:
        from cxr_train import folds as folding

        for line in folding.cross_validate(table_file, out, settings, folds):
            click.echo(line)
    else:
        click.echo(f"trained: {fitting.fit(table_file, out, settings)}")


@main.command()
@click.option("--model", type=FILE, required=True, help="model.keras, somebody else's Keras .h5, or a .tflite.")
@click.option("--table", "table_file", type=FILE, required=True)
@click.option("--out", type=OUT, required=True, help="Folder for predictions.csv, figures, plots and report.html.")
@click.option("--split", "splits", multiple=True, help="Rows to judge; default: validation, test and external.")
@click.option("--labels", default="", help="Of a model without model.json, in the order of its outputs.")
@click.option("--pixels", type=click.Choice(["-1..1", "0..1", "0..255"]), default=None, help="Its range of inputs.")
def evaluate(
    model: Path, table_file: Path, out: Path, splits: tuple[str, ...], labels: str, pixels: str | None
) -> None:
    """Judge rows of a table with any model: predictions first, every figure and plot computed from them."""
    from cxr_train import evaluation

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    for line in evaluation.evaluate(model, table_file, out, splits, names, pixels or ""):
        click.echo(line)


@main.command()
@click.option("--model", type=FILE, required=True, help="model.keras, somebody else's Keras .h5, or a .tflite.")
@click.option("--table", "table_file", type=FILE, required=True)
@click.option("--out", type=OUT, required=True, help="Folder for predictions.csv, figures, plots and audit.html.")
@click.option("--split", "splits", multiple=True, default=("test",), show_default=True, help="Rows to judge.")
@click.option("--labels", default="", help="Of a model without model.json, in the order of its outputs.")
@click.option("--pixels", type=click.Choice(["-1..1", "0..1", "0..255"]), default=None, help="Its range of inputs.")
def audit(model: Path, table_file: Path, out: Path, splits: tuple[str, ...], labels: str, pixels: str | None) -> None:
    """Find out how far a model's accuracy rests on what is no lung: the border, the origin, the age.

    Judges every picture whole, with the lungs blacked out, with nothing but the lungs, with only the border, and at
    32 x 32 pixels; by origin and by age; and tells the origin from the embedding. The verdict is in words.
    """
    from cxr_train import audit as auditing

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    for line in auditing.audit(model, table_file, out, splits, names, pixels or ""):
        click.echo(line)


@main.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True, file_okay=False), nargs=-1, required=True)
@click.option("--out", type=OUT, required=True, help="Folder for comparison.csv and comparison.png.")
@click.option("--split", default="test", show_default=True)
def compare(runs: tuple[Path, ...], out: Path, split: str) -> None:
    """Put the evaluations of several RUNS side by side, in one table and one plot."""
    from cxr_train import compare as comparing

    rows, warning = comparing.compare(list(runs), out, split)
    click.echo(rows.astype(object).where(rows.notna(), "-").to_string(index=False))
    if warning:
        click.echo(warning, err=True)
