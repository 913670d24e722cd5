"""A model file is read whole and verified, or refused with exit code 5 and a remedy: never run half-understood."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_edge import model_file
from cxr_edge.errors import ExitCode, ModelRefused
from cxr_edge.model_file import MANIFEST_VERSION, SHIPPED, Manifest, parse_manifest
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime

FLATBUFFER = b"\x1c\x00\x00\x00TFL3" + bytes(range(64))
"""Bytes that `read` takes for a model: it looks at the identifier and the digest, never inside."""

MANIFEST: dict[str, Any] = {
    "manifest_version": 1,
    "name": "tiny",
    "task": "softmax",
    "labels": ["normal", "pneumonia"],
    "input": vars(InputSpec(low_percentile=3.0)),
    "outputs": {"probabilities": "p", "mask": "m"},
    "temperature": 1.5,
    "uncertain_below": 0.6,
    "mask_threshold": 0.5,
    "tflite_sha256": hashlib.sha256(FLATBUFFER).hexdigest(),
    "about": {"licence": "none"},
}


def packed(flatbuffer: bytes = FLATBUFFER, **files: str) -> bytes:
    """A model file with these associated files; by default a good one."""
    content = io.BytesIO()
    content.write(flatbuffer)
    files = files or {"manifest": json.dumps(MANIFEST), "card": "# tiny\n" * 20}
    names = {"manifest": "manifest.json", "card": "MODEL_CARD.md"}
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for key, text in files.items():
            archive.writestr(names[key], text)
    return content.getvalue()


def refusal(path: Path) -> ModelRefused:
    with pytest.raises(ModelRefused) as caught:
        model_file.read(path)
    assert caught.value.exit_code is ExitCode.MODEL_REFUSED
    assert caught.value.remedy
    assert str(path) in caught.value.message
    return caught.value


def shipped_variant(path: Path, **changes: Any) -> Path:
    """The shipped model with other words in its manifest."""
    content = SHIPPED.read_bytes()
    with zipfile.ZipFile(SHIPPED) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
        manifest = json.loads(archive.read("manifest.json")) | changes
    path.write_bytes(packed(content[:start], manifest=json.dumps(manifest), card="# variant\n"))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.tflite"


def test_reads_the_shipped_model() -> None:
    model = model_file.read(SHIPPED)
    assert model.sha256 == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert model.short_digest == model.sha256[:12]
    assert len(model.manifest.labels) >= 2
    assert model.card


def test_reads_a_good_model(path: Path) -> None:
    path.write_bytes(packed())
    manifest = model_file.read(path).manifest
    assert manifest.labels == ("normal", "pneumonia")
    assert manifest.input == InputSpec(low_percentile=3.0)
    assert manifest.temperature == 1.5


def test_refuses_a_missing_file(path: Path) -> None:
    assert "No such file" in refusal(path).message


def test_refuses_a_folder(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path).message


@pytest.mark.parametrize("content", [b"", b"TFL", b"\x89PNG\r\n\x1a\n" + bytes(99), b"\0\0\0\0TFL2" + bytes(99)])
def test_refuses_what_is_no_tflite(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "not a TFLite model" in refusal(path).message


def test_refuses_a_model_that_says_nothing_of_itself(path: Path) -> None:
    path.write_bytes(FLATBUFFER)
    assert "does not describe itself" in refusal(path).message


@pytest.mark.parametrize("missing", ["manifest", "card"])
def test_refuses_a_zip_that_lacks_a_file(path: Path, missing: str) -> None:
    files = {"manifest": json.dumps(MANIFEST), "card": "# tiny\n"}
    del files[missing]
    path.write_bytes(packed(FLATBUFFER, **files))
    assert "does not describe itself" in refusal(path).message


def test_refuses_a_file_cut_short_anywhere(path: Path) -> None:
    content = packed()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refusal(path)


def test_refuses_the_shipped_model_cut_short_or_with_one_flipped_byte(path: Path) -> None:
    content = SHIPPED.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refusal(path)
    for position in (0, len(content) // 2):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        assert "damaged" in refusal(path).message


def test_a_flipped_byte_anywhere_is_refused_or_harmless(path: Path) -> None:
    """Harmless: in a ZIP time stamp, say. Then the manifest is read as it was written."""
    content = packed()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            model = model_file.read(path)
        except ModelRefused:
            continue
        assert position >= len(FLATBUFFER)
        assert json.loads(model.manifest.to_json()) == MANIFEST


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
        {"input": SPEC | {"low_percentile": "2"}},
        {"input": SPEC | {"low_percentile": 98.0, "high_percentile": 2.0}},
        {"outputs": {}},
        {"outputs": {"mask": "m"}},
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


def manifests(task: str, most_labels: int) -> st.SearchStrategy[Manifest]:
    return st.builds(
        Manifest,
        name=st.text(),
        task=st.just(task),
        labels=st.lists(st.text(min_size=1), min_size=2, max_size=most_labels, unique=True)
        .map(tuple)
        .filter(lambda labels: "uncertain" not in labels),
        input=st.builds(
            InputSpec,
            height=st.integers(1, 4096),
            width=st.integers(1, 4096),
            low_percentile=st.floats(0, 49),
            high_percentile=st.floats(51, 100),
        ),
        outputs=st.fixed_dictionaries({"probabilities": st.text()}, optional={"mask": st.text()}),
        temperature=st.floats(0.01, 100),
        uncertain_below=PROBABILITY,
        mask_threshold=st.floats(0.01, 0.99),
        tflite_sha256=st.just("0" * 64),
        about=st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), PROBABILITY, st.none())),
    )


@given(manifest=manifests("softmax", 5) | manifests("sigmoid", 2))
def test_a_manifest_survives_being_written_and_read(manifest: Manifest) -> None:
    assert parse_manifest(manifest.to_json(), "any") == manifest


def test_only_a_sigmoid_needs_a_newer_box() -> None:
    """A box with the first cxr-edge reads version 1 alone; of a newer one it says 'update'."""
    manifest = parse_manifest(json.dumps(MANIFEST), "tiny")
    assert json.loads(manifest.to_json())["manifest_version"] == 1
    assert json.loads(replace(manifest, task="sigmoid").to_json())["manifest_version"] == 2


def test_the_engine_refuses_a_sigmoid_of_as_many_outputs_as_labels(path: Path) -> None:
    variant = shipped_variant(path, task="sigmoid", labels=["normal", "pneumonia"])
    with pytest.raises(ModelRefused, match="tensors"):
        Engine(find_runtime(), model_file.read(variant))


@pytest.mark.parametrize("count", [-1, 1], ids=["one label too few", "one too many"])
def test_the_engine_refuses_labels_that_the_tensors_do_not_have(path: Path, count: int) -> None:
    labels = list(model_file.read(SHIPPED).manifest.labels)
    variant = shipped_variant(path, labels=labels[:count] if count < 0 else [*labels, "another"])
    with pytest.raises(ModelRefused, match="tensors") as caught:
        Engine(find_runtime(), model_file.read(variant))
    assert caught.value.remedy


@pytest.mark.parametrize(
    "changes", [{"input": SPEC | {"height": 100}}, {"outputs": {"probabilities": "no such tensor"}}], ids=str
)
def test_the_engine_refuses_tensors_that_are_not_there(path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelRefused, match="tensors"):
        Engine(find_runtime(), model_file.read(shipped_variant(path, **changes)))


def test_the_engine_refuses_a_flatbuffer_that_no_runtime_loads(path: Path) -> None:
    path.write_bytes(packed())
    with pytest.raises(ModelRefused, match="cannot run") as caught:
        Engine(find_runtime(), model_file.read(path))
    assert "update the runtime" in caught.value.remedy


def test_the_engine_runs_a_model_without_a_mask(path: Path) -> None:
    outputs = {"probabilities": model_file.read(SHIPPED).manifest.outputs["probabilities"]}
    Engine(find_runtime(), model_file.read(shipped_variant(path, outputs=outputs)))
