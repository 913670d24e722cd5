"""`cxr-convert`: thin; parse, call, map errors to exit codes."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cxr_edge import __version__
from cxr_edge.commands import ErrorMappingCommand

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(cls=ErrorMappingCommand, needs="train")
@click.version_option(__version__, prog_name="cxr-convert")
@click.argument("model", type=FILE)
@click.option("--calibration", type=FILE, required=True, help="The table that the model was trained on.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The .tflite file to write.")
@click.option("--licence", default="not stated", show_default=True, help="Of the weights; told in the model card.")
@click.option("--intended-use", metavar="TEXT", help="Told in the model card; default: frontal chest radiographs.")
def main(model: Path, calibration: Path, out: Path, licence: str, intended_use: str | None) -> None:
    """Convert MODEL (a model.keras of cxr-train) to an int8 TFLite file that describes itself."""
    # TensorFlow's start-up notes say nothing to a user; its errors still appear.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from cxr_convert.convert import convert

    made = convert(model, calibration, out, licence, intended_use)
    click.echo(made.card)
    click.echo(f"{made.path}: {made.path.stat().st_size / 1e6:.2f} MB, model {made.short_digest}")
