"""What is converted: a Keras model, and the `model.json` that `cxr-train fit` wrote beside it; read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from cxr_edge.errors import UsageError
from cxr_edge.manifest import OUTPUTS, TASKS
from cxr_edge.preprocess import InputSpec


@dataclass(frozen=True)
class Description:
    """What `model.json` says.

    `task` is 'softmax' or 'sigmoid'; `training` holds the settings of the run, any of which may be absent; `data` and
    `licences` count the pictures of training and validation, a record for each origin; `tool` made the model.
    """

    labels: tuple[str, ...]
    task: str
    input: InputSpec
    training: dict[str, Any]
    data: list[dict[str, Any]]
    licences: list[dict[str, Any]]
    tool: str

    @property
    def scores(self) -> int:
        """Width of the output `probabilities`: one for each label, or one alone for a sigmoid."""
        return 1 if self.task == "sigmoid" else len(self.labels)


def read_description(model_path: Path) -> Description:
    """Read the `model.json` beside a model.

    Raises:
        UsageError: it is missing, lacks a field, or has another task than softmax or a sigmoid of two labels.
    """
    file = model_path.with_suffix(".json")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        description = Description(
            labels=tuple(raw["labels"]),
            task=raw.get("task", "softmax"),
            input=InputSpec(**raw["input"]),
            **{name: raw[name] for name in ("training", "data", "licences", "tool")},
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{file}: cannot be read ({error})", "keep model.json beside model.keras") from error
    except KeyError as error:
        raise UsageError(f"{file}: has no field {error}", "train the model again with: cxr-train fit") from error
    spec = description.input
    if (spec.channels, spec.black, spec.white) != (1, -1, 1):
        sentence = f"{file}: an input of {spec.channels} channels from {spec.black:g} to {spec.white:g} is unknown"
        raise UsageError(sentence, "a Keras model with one channel from -1 to 1 can be converted")
    if description.task not in TASKS or (description.task == "sigmoid" and len(description.labels) != 2):
        sentence = f"{file}: the task {description.task!r} with {len(description.labels)} labels is unknown"
        raise UsageError(sentence, "softmax, or sigmoid with two labels, can be converted")
    return description


def load_model(model_path: Path, description: Description) -> keras.Model:
    """Load the Keras model.

    Raises:
        UsageError: Keras cannot load it, or its input and outputs are not what `description` says.
    """
    try:
        model = keras.models.load_model(model_path, compile=False)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"{model_path}: Keras cannot load it ({reason})", "give a model.keras of cxr-train") from error
    outputs = getattr(model, "output", None)
    shapes = {name: tuple(output.shape) for name, output in outputs.items()} if isinstance(outputs, dict) else {}
    spec = description.input
    fits = (
        tuple(model.input_shape) == (None, spec.height, spec.width, 1)
        and "probabilities" in shapes
        and set(shapes) <= set(OUTPUTS)
        and all(_known(name, shape, description) for name, shape in shapes.items())
        and ("mask" in shapes or "activation" not in shapes)
    )
    if not fits:
        sentence = (
            f"{model_path}: input {model.input_shape} and outputs {shapes or 'without names'} are not those of "
            f"{description.task} with {len(description.labels)} labels at {spec.height} x {spec.width}"
        )
        raise UsageError(sentence, "keep each model.json beside its own model.keras")
    return model


def _known(name: str, shape: tuple[int | None, ...], description: Description) -> bool:
    """Whether an output has the rank and the last axis that its name asks for."""
    rank, last = {
        "probabilities": (2, description.scores),
        "mask": (4, 1),
        "activation": (4, description.scores),
        "embedding": (2, shape[-1]),
    }[name]
    return len(shape) == rank and shape[-1] == last and last is not None
