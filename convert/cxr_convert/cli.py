"""`cxr-convert`: thin; parse, call, map errors to exit codes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cxr_convert.options import PIXELS, TYPES, Wishes
from cxr_edge import __version__
from cxr_edge.commands import ErrorMappingCommand
from cxr_edge.model_file import ModelFile

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


class _ConvertByDefault(click.Group):
    """A group whose command may be left out: `cxr-convert MODEL ...` is `cxr-convert convert MODEL ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help", "--version"):
            args = ["convert", *args]
        return super().parse_args(ctx, args)


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands have."""
    for option in reversed(
        (
            click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="The .tflite to write."),
            click.option(
                "--negative", metavar="LABEL", help="Says that nothing was found; default: normal, or the first."
            ),
            click.option(
                "--licence", default="not stated", show_default=True, help="Of the weights; told in the card."
            ),
            click.option("--intended-use", metavar="TEXT", help="For the card; default: frontal chest radiographs."),
        )
    ):
        command = option(command)
    return command


@click.group(cls=_ConvertByDefault)
@click.version_option(__version__, prog_name="cxr-convert")
def main() -> None:
    """Make TFLite files that describe themselves, for cxr-edge.

    `cxr-convert MODEL.keras ...` is short for `cxr-convert convert MODEL.keras ...`.
    """
    # TensorFlow's start-up notes say nothing to a user; its errors still appear.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@main.command(cls=ErrorMappingCommand, needs="train")
@click.argument("model", type=FILE)
@click.option("--calibration", type=FILE, required=True, help="The table that the model was trained on.")
@click.option("--type", "kind", type=click.Choice(TYPES), default="int8", show_default=True, help="Of the numbers.")
@click.option("--over-budget", is_flag=True, help="Write a file that differs too much from the Keras model, too.")
@_shared
def convert(
    model: Path,
    calibration: Path,
    kind: str,
    over_budget: bool,
    out: Path,
    negative: str | None,
    licence: str,
    intended_use: str | None,
) -> None:
    """Convert MODEL (a model.keras of cxr-train) to a TFLite file, int8 unless told otherwise."""
    from cxr_convert import convert as conversion

    wishes = Wishes(licence, intended_use, negative)
    _tell(conversion.convert(model, calibration, out, wishes, kind, over_budget))


@main.command(cls=ErrorMappingCommand, needs="train")
@click.argument("model", type=FILE)
@click.option("--labels", metavar="A,B,...", required=True, help="Of the model's probabilities, in their order.")
@click.option("--pixels", type=click.Choice(list(PIXELS)), required=True, help="What black and white are to the model.")
@click.option("--calibration", type=FILE, required=True, help="A table of pictures to choose thresholds by.")
@_shared
def describe(
    model: Path,
    labels: str,
    pixels: str,
    calibration: Path,
    out: Path,
    negative: str | None,
    licence: str,
    intended_use: str | None,
) -> None:
    """Give MODEL, somebody else's .tflite classifier, a manifest."""
    from cxr_convert.foreign import add_manifest

    names = tuple(label.strip() for label in labels.split(","))
    _tell(add_manifest(model, calibration, out, names, pixels, Wishes(licence, intended_use, negative)))


def _tell(made: ModelFile) -> None:
    click.echo(made.card)
    click.echo(f"{made.path}: {made.path.stat().st_size / 1e6:.2f} MB, model {made.short_digest}")
