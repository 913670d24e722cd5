"""What cannot be converted, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import keras
import pytest
from keras import layers

from cxr_convert import quantise
from cxr_edge import model_file
from cxr_edge.errors import ExitCode
from cxr_edge.preprocess import InputSpec

if TYPE_CHECKING:
    from tests.convert.conftest import Source


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": ["healthy", "tumour", "cyst"]}, "task 'sigmoid' with 3 labels is unknown"),
        ({"task": "regression"}, "task 'regression' with 2 labels is unknown"),
        ({"task": "softmax"}, "are not those of softmax with 2 labels at 50 x 50"),
        ({"input": asdict(InputSpec(60, 50))}, "are not those of sigmoid with 2 labels at 60 x 50"),
        ({"input": {"height": 50, "depth": 3}}, "cannot be read"),
        ({"training": None, "tool": None, "labels": None}, "cannot be read"),
    ],
    ids=str,
)
def test_a_description_of_another_model_is_refused(broken: Source, changes: dict[str, Any], sentence: str) -> None:
    file = broken.folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    code, said = broken.convert()
    assert (code, sentence in said) == (ExitCode.USAGE, True), said
    assert "try:" in said


def test_a_description_that_lacks_a_field_is_refused(broken: Source) -> None:
    file = broken.folder / "model.json"
    described = json.loads(file.read_text())
    del described["licences"]
    file.write_text(json.dumps(described))
    code, said = broken.convert()
    assert (code, "has no field 'licences'" in said) == (ExitCode.USAGE, True), said


def test_what_keras_cannot_load_is_refused(broken: Source) -> None:
    (broken.folder / "model.keras").write_bytes(b"no model")
    code, said = broken.convert()
    assert (code, "Keras cannot load it" in said) == (ExitCode.USAGE, True), said


def test_a_model_whose_outputs_have_no_names_is_refused(broken: Source) -> None:
    bare = keras.Sequential([keras.Input((50, 50, 1)), layers.Flatten(), layers.Dense(1, activation="sigmoid")])
    bare.save(broken.folder / "model.keras")
    code, said = broken.convert()
    assert (code, "without names" in said) == (ExitCode.USAGE, True), said


def test_a_validation_split_that_lacks_a_label_is_refused(broken: Source) -> None:
    lacking = (broken.table["split"] == "validation") & (broken.table["label"] == "tumour")
    broken.table.assign(split=broken.table["split"].mask(lacking, "train")).to_csv(
        broken.folder / "table.csv", index=False
    )
    code, said = broken.convert()
    assert (code, "no validation picture has the label ['tumour']" in said) == (ExitCode.USAGE, True), said
    assert not (broken.folder / "m.tflite").exists()


def test_a_negative_label_that_the_model_lacks_is_refused(broken: Source) -> None:
    code, said = broken.convert("--negative", "well")
    assert (code, "no label 'well'" in said, "healthy, tumour" in said) == (ExitCode.USAGE, True, True), said


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("activation", layers.Conv2D(1, 3, activation="sigmoid")),
        ("heatmap", layers.Conv2D(1, 3)),
        ("embedding", layers.Conv2D(4, 3)),
        ("mask", layers.Conv2D(2, 3)),
    ],
)
def test_outputs_of_other_names_or_shapes_are_refused(broken: Source, name: str, layer: Any) -> None:
    """An activation without a mask, too: the affected area is a share of the lung."""
    spoilt = keras.Model(broken.model.input, {**broken.model.output, name: layer(broken.model.input)})
    spoilt.save(broken.folder / "model.keras")
    code, said = broken.convert()
    assert (code, "are not those of sigmoid" in said, name in said) == (ExitCode.USAGE, True, True), said


def test_a_file_over_budget_is_refused_unless_told_to(broken: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantisation gone wrong: the file's labels are the wrong way round."""
    out = broken.folder / "m.tflite"
    turned = keras.models.clone_model(broken.model)
    turned.set_weights(broken.model.get_weights())
    head = turned.layers[-1]
    head.set_weights([-values for values in head.get_weights()])
    converted = quantise.to_tflite
    monkeypatch.setattr(quantise, "to_tflite", lambda _, *rest: converted(turned, *rest))
    code, said = broken.convert()
    assert code == ExitCode.MODEL_REFUSED, said
    assert "mean probability error" in said
    assert "(at most 0.02) on " in said
    assert "--over-budget" in said
    assert not out.exists()
    code, said = broken.convert("--over-budget")
    assert code == 0, said
    assert "**Over budget**" in said
    assert model_file.read(out).manifest.about["over_budget"]
