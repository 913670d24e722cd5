"""What a user can choose. Imports nothing heavy, so that `cxr-convert --help` is quick."""

from __future__ import annotations

from dataclasses import dataclass

TYPES = ("int8", "float32", "float16", "dynamic")
"""How the numbers of a file are stored: see `quantise`."""
PIXELS = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
"""What black and white are to somebody else's model, by the word of `--pixels`."""


@dataclass(frozen=True)
class Wishes:
    """What the user decides about a file.

    `intended_use` None: frontal chest radiographs. `negative` None: the label 'normal', or the first.
    """

    licence: str = "not stated"
    intended_use: str | None = None
    negative: str | None = None
