"""Models that Keras 2 saved as HDF5, read by Keras 3: their architecture is brought up to date in a copy of the file.

Keras 3 reads most of them. It stumbles over arguments that Keras 2 wrote and Keras 3 dropped, over slashes in names,
and over the arithmetic that Keras 2 recorded as `TFOpLambda` (a `preprocess_input` inside a model is that).
"""

from __future__ import annotations

import json
import operator
import shutil
import tempfile
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras

from cxr_edge.errors import UsageError

_CONVOLUTION = {"groups"}
_KERNEL = {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}
_RANDOM = {"rng_type"}
DROPPED = {
    "DepthwiseConv2D": _CONVOLUTION | _KERNEL,
    "SeparableConv2D": _CONVOLUTION | _KERNEL,
    "Conv2DTranspose": _CONVOLUTION,
    "RandomFlip": _RANDOM,
    "RandomRotation": _RANDOM,
    "RandomZoom": _RANDOM,
    "RandomTranslation": _RANDOM,
    "RandomContrast": _RANDOM,
    "RandomBrightness": _RANDOM,
    "RandomCrop": _RANDOM,
}
"""Arguments that Keras 2 wrote and Keras 3 refuses. None had an effect on predictions: in Keras 2 these convolutions
could not have groups, and the others matter in training only."""
ARITHMETIC = {
    "math.truediv": operator.truediv,
    "math.divide": operator.truediv,
    "math.multiply": operator.mul,
    "math.subtract": operator.sub,
    "math.add": operator.add,
    "__operators__.add": operator.add,
}
_IN_KERAS_2 = "rebuild the model from Keras 3's own layers, load its weights, and save it as model.keras"


class Arithmetic(keras.layers.Layer):
    """One arithmetic operation with a constant, as Keras 2 recorded it: `function` is a key of `ARITHMETIC`."""

    def __init__(self, function: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function

    def call(self, x: Any, y: float, name: str | None = None) -> Any:  # noqa: ARG002
        """Apply it: tensor x, constant y."""
        return ARITHMETIC[self.function](x, y)

    def compute_output_shape(self, shape: Any, **_: Any) -> Any:
        """The shape of x."""
        return shape


def load(file: Path) -> keras.Model:
    """Load an HDF5 model, for predictions only; the file itself is never changed, and no code in it is run.

    Raises:
        UsageError: it is no HDF5 model, or holds what Keras 3 cannot read; the sentence names it.
    """
    try:
        with h5py.File(file) as content:
            text, version = content.attrs.get("model_config"), str(content.attrs.get("keras_version", ""))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read as HDF5 ({error})", "give a model that Keras saved") from error
    if text is None:
        remedy = "build the model, load these weights into it, and save it whole with model.save()"
        raise UsageError(f"{file}: holds weights only, no model", remedy)
    try:
        config = json.loads(text)
        config = config if version.startswith("3") else repair(config)
        refused = sorted(_foreign(config))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UsageError(f"{file}: describes no model that makes sense ({error!r})", "give a whole file") from error
    if refused:
        raise UsageError(f"{file}: Keras 3 cannot read its layers {', '.join(refused)}", _IN_KERAS_2)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.h5"
        shutil.copyfile(file, copy)
        with h5py.File(copy, "r+") as content:
            content.attrs["model_config"] = json.dumps(config)
        try:
            return keras.models.load_model(copy, compile=False, custom_objects={"TFOpLambda": Arithmetic})
        except Exception as error:  # Keras raises whatever an unknown architecture provokes
            reason = " ".join(str(error).split())[:200]
            raise UsageError(f"{file}: Keras 3 cannot read it ({reason})", _IN_KERAS_2) from error


def repair(config: Any) -> Any:
    """Bring an architecture (the parsed JSON of `model_config`, any part of it) up to what Keras 3 reads."""
    if isinstance(config, list):
        return [repair(part) for part in config]
    if not isinstance(config, dict):
        return config
    part = {key: repair(value) for key, value in config.items()}
    if part.get("class_name") == "Sequential" and isinstance(part["config"], list):
        part["config"] = _mend_layers({"name": "sequential", "layers": part["config"]})
    if "layers" in part:
        _mend_layers(part)
    for name in DROPPED.get(str(part.get("class_name")), ()):
        part["config"].pop(name, None)
    return part


def _mend_layers(model: dict[str, Any]) -> dict[str, Any]:
    """Mend the layers of one model, in place, and return it."""
    shape = model["layers"][0]["config"].get("batch_input_shape")
    if shape is not None and model["layers"][0]["class_name"] != "InputLayer":
        # Early Sequential models had no such layer, and Keras 3 takes the batch in this shape for one more axis.
        given = {"name": f"{model['name']}_input", "batch_input_shape": shape}
        model["layers"].insert(0, {"class_name": "InputLayer", "config": given})
    for layer in model["layers"]:
        if layer["class_name"] != "InputLayer":
            layer["config"].pop("batch_input_shape", None)
        # Keras 3 reads a layer that names its module the new way, which knows nothing of Keras 2's arguments.
        layer.pop("module", None)
        layer.pop("registered_name", None)
    _rename(model)
    _mend_links(model)
    return model


def _mend_links(model: dict[str, Any]) -> None:
    """Bring how layers refer to each other, ["name", node, tensor, arguments], up to date.

    A nested model's first node was its own making, which Keras 3 does not count (except in the output of a Functional);
    one input or output is itself, not a list of one; a node of arithmetic is a list of links like any other.
    """
    counted = {
        layer["name"]
        for layer in model["layers"]
        if "name" in layer and layer["config"].get("layers", [{}])[0].get("class_name") == "InputLayer"
    }
    for layer in model["layers"]:
        nodes = [[node] if node and isinstance(node[0], str) else node for node in layer.get("inbound_nodes", ())]
        for link in (link for node in nodes for link in node):
            link[1] -= link[0] in counted
        if nodes:
            layer["inbound_nodes"] = nodes
    functional = {layer.get("name") for layer in model["layers"] if layer["class_name"] != "Sequential"}
    for link in model.get("output_layers", ()):
        link[1] -= link[0] in counted - functional
    for key in ("input_layers", "output_layers"):
        if len(model.get(key, ())) == 1:
            model[key] = model[key][0]


def _rename(model: dict[str, Any]) -> None:
    """Keras 3 allows no '/' in a layer's name; names are also how layers refer to each other."""
    names = {str(layer["config"].get("name")) for layer in model["layers"]}
    slashed = {name: name.replace("/", "_") for name in names if "/" in name}

    def renamed(part: Any) -> Any:
        if isinstance(part, list):
            return [renamed(each) for each in part]
        return slashed.get(part, part) if isinstance(part, str) else part

    for layer in model["layers"]:
        for owner in (layer, layer["config"]):
            if "name" in owner:
                owner["name"] = renamed(owner["name"])
        if "inbound_nodes" in layer:
            layer["inbound_nodes"] = renamed(layer["inbound_nodes"])
    for key in ("input_layers", "output_layers"):
        if key in model:
            model[key] = renamed(model[key])


def _foreign(config: Any) -> set[str]:
    """Layers of an architecture that cannot be had: code of somebody's own, or operations that are not arithmetic."""
    if isinstance(config, list):
        return set().union(*map(_foreign, config))
    if not isinstance(config, dict):
        return set()
    found = set().union(*map(_foreign, config.values()))
    for layer in config.get("layers", ()):
        name, settings = layer["class_name"], layer["config"]
        known = hasattr(keras.layers, name) or name in ("Functional", "Sequential", "Model")
        if name == "TFOpLambda":
            known = settings["function"] in ARITHMETIC
            name = f"TFOpLambda({settings['function']})"
        if not known or name == "Lambda":
            found.add(name)
    return found
