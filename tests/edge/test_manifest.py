"""A manifest that makes no sense is refused with exit code 5 and a remedy: nothing is taken for granted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_edge.errors import ModelRefused
from cxr_edge.manifest import MANIFEST_VERSION, OPERATING_POINTS, Affected, Familiar, Manifest, parse_manifest
from cxr_edge.preprocess import InputSpec

MANIFEST: dict[str, Any] = {
    "manifest_version": MANIFEST_VERSION,
    "name": "tiny",
    "task": "softmax",
    "labels": ["normal", "pneumonia"],
    "negative": "normal",
    "input": vars(InputSpec(low_percentile=3.0)),
    "outputs": {"probabilities": "p", "mask": "m"},
    "temperature": 1.5,
    "uncertain_below": 0.6,
    "operating_points": {"screening": 0.1, "balanced": 0.5, "rule-in": 0.9},
    "mask_threshold": 0.5,
    "lung_area_pct": [8.0, 70.0],
    "familiar": None,
    "affected": None,
    "tflite_sha256": "0" * 64,
    "about": {"licence": "none"},
}


def test_a_good_manifest_is_read() -> None:
    manifest = parse_manifest(json.dumps(MANIFEST), "tiny")
    assert manifest.labels == ("normal", "pneumonia")
    assert manifest.input == InputSpec(low_percentile=3.0)
    assert json.loads(manifest.to_json()) == MANIFEST


def test_the_remedy_for_an_older_manifest_is_to_convert_again() -> None:
    with pytest.raises(ModelRefused, match="older") as caught:
        parse_manifest(json.dumps({"manifest_version": 1, "name": "of first light"}), "tiny")
    assert "convert" in caught.value.remedy


def test_the_remedy_for_a_newer_manifest_is_an_update() -> None:
    with pytest.raises(ModelRefused, match="newer") as caught:
        parse_manifest(json.dumps(MANIFEST | {"manifest_version": MANIFEST_VERSION + 1}), "tiny")
    assert "update" in caught.value.remedy


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "7", '"words"', "\0", "[" * 100_000], ids=lambda text: text[:9]
)
def test_refuses_a_manifest_that_is_no_json_object(text: str) -> None:
    with pytest.raises(ModelRefused, match="makes no sense"):
        parse_manifest(text, "tiny")


@pytest.mark.parametrize("field", sorted(MANIFEST))
def test_refuses_a_missing_field(field: str) -> None:
    with pytest.raises(ModelRefused, match=field):
        parse_manifest(json.dumps({key: value for key, value in MANIFEST.items() if key != field}), "tiny")


SPEC = MANIFEST["input"]
WITH_EMBEDDING = {"probabilities": "p", "embedding": "e"}
WITH_ACTIVATION = {"probabilities": "p", "mask": "m", "activation": "a"}


@pytest.mark.parametrize(
    "changes",
    [
        {"surplus": 1},
        {"manifest_version": "1"},
        {"task": "regression"},
        {"task": None},
        {"task": "sigmoid", "labels": ["normal", "pneumonia", "covid19"]},
        {"task": "sigmoid", "labels": ["normal"]},
        {"labels": []},
        {"labels": ["normal"]},
        {"labels": ["normal", "normal"]},
        {"labels": ["normal", 7]},
        {"labels": "normal"},
        {"labels": ["normal", "uncertain"]},
        {"input": None},
        {"input": {"height": 224, "width": 224}},
        {"input": SPEC | {"depth": 3}},
        {"input": SPEC | {"channels": 2}},
        {"input": SPEC | {"height": 0}},
        {"input": SPEC | {"height": 224.5}},
        {"input": SPEC | {"black": 1.0, "white": 1.0}},
        {"input": SPEC | {"white": float("inf")}},
        {"input": SPEC | {"low_percentile": "2"}},
        {"input": SPEC | {"low_percentile": 98.0, "high_percentile": 2.0}},
        {"outputs": {}},
        {"outputs": {"mask": "m"}},
        {"outputs": {"probabilities": 7}},
        {"negative": "healthy"},
        {"operating_points": {"screening": 0.1, "balanced": 0.5}},
        {"operating_points": {"screening": 0.1, "balanced": 0.5, "rule-in": "0.9"}},
        {"operating_points": {"screening": 0.1, "balanced": 0.5, "rule-in": 1.1}},
        {"operating_points": {"screening": float("nan"), "balanced": 0.5, "rule-in": 0.9}},
        {"lung_area_pct": [50.0, 10.0]},
        {"lung_area_pct": [10.0]},
        {"lung_area_pct": [10.0, 101.0]},
        {"lung_area_pct": [10.0, "60"]},
        {"lung_area_pct": [10.0, 60.0], "outputs": {"probabilities": "p"}},
        {"familiar": {"mean": [1.0], "whitening": [[1.0]], "limit": 2.0}},
        {"outputs": WITH_EMBEDDING},
        {"outputs": WITH_EMBEDDING, "familiar": {"mean": [1.0], "whitening": [[1.0], [2.0]], "limit": 2.0}},
        {"outputs": WITH_EMBEDDING, "familiar": {"mean": [1.0, 2.0], "whitening": [[1.0], [2.0, 3.0]], "limit": 2.0}},
        {"outputs": WITH_EMBEDDING, "familiar": {"mean": [float("nan")], "whitening": [[1.0]], "limit": 2.0}},
        {"outputs": WITH_EMBEDDING, "familiar": {"mean": [1.0], "whitening": [[1.0]], "limit": 0}},
        {"outputs": WITH_EMBEDDING, "familiar": {"mean": [1.0], "limit": 2.0}},
        {"affected": {"threshold": 0.5, "definition": "half"}},
        {"outputs": WITH_ACTIVATION},
        {"outputs": WITH_ACTIVATION, "affected": {"threshold": 0, "definition": "half"}},
        {"outputs": WITH_ACTIVATION, "affected": {"threshold": 0.5}},
        {"outputs": {"probabilities": "p", "activation": "a"}, "affected": {"threshold": 0.5, "definition": "half"}},
        {"outputs": {"probabilities": "p", "gender": "g"}},
        {"outputs": ["probabilities"]},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "1"},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"uncertain_below": -0.1},
        {"uncertain_below": 1.1},
        {"uncertain_below": float("nan")},
        {"uncertain_below": None},
        {"mask_threshold": 0},
        {"mask_threshold": 1},
    ],
    ids=str,
)
def test_refuses_a_manifest_that_makes_no_sense(changes: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match="tiny has a manifest") as caught:
        parse_manifest(json.dumps(MANIFEST | changes), "tiny")
    assert caught.value.remedy


PROBABILITY = st.floats(0, 1)


NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that makes sense."""
    task = draw(st.sampled_from(["softmax", "sigmoid"]))
    words = st.lists(st.text(min_size=1), min_size=2, max_size=5 if task == "softmax" else 2, unique=True)
    labels = tuple(draw(words.filter(lambda labels: "uncertain" not in labels)))
    size = draw(st.integers(1, 4))
    familiar = st.builds(
        Familiar,
        mean=st.tuples(*[NUMBERS] * size),
        whitening=st.tuples(*[st.tuples(NUMBERS, NUMBERS)] * size),
        limit=st.floats(0.01, 100),
    )
    outputs = draw(
        st.fixed_dictionaries({"probabilities": st.text(), "mask": st.text()}, optional={"embedding": st.text()})
    )
    affected = draw(st.none() | st.builds(Affected, threshold=st.floats(0.01, 1), definition=st.text()))
    if affected:
        outputs["activation"] = "a"
    return Manifest(
        name=draw(st.text()),
        task=task,
        labels=labels,
        negative=draw(st.sampled_from(labels)),
        input=draw(
            st.builds(
                InputSpec,
                height=st.integers(1, 4096),
                width=st.integers(1, 4096),
                channels=st.sampled_from([1, 3]),
                low_percentile=st.floats(0, 49),
                high_percentile=st.floats(51, 100),
                black=st.floats(-255, 0),
                white=st.floats(1, 255),
            )
        ),
        outputs=outputs,
        temperature=draw(st.floats(0.01, 100)),
        uncertain_below=draw(PROBABILITY),
        operating_points=draw(st.fixed_dictionaries(dict.fromkeys(OPERATING_POINTS, PROBABILITY))),
        mask_threshold=draw(st.floats(0.01, 0.99)),
        lung_area_pct=draw(st.none() | st.tuples(st.floats(0, 30), st.floats(31, 100))),
        familiar=draw(familiar) if "embedding" in outputs else None,
        affected=affected,
        tflite_sha256="0" * 64,
        about=draw(st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), PROBABILITY, st.none()))),
    )


@given(manifest=manifests())
def test_a_manifest_survives_being_written_and_read(manifest: Manifest) -> None:
    assert parse_manifest(manifest.to_json(), "any") == manifest
