"""A model file is read whole and verified, or refused with exit code 5 and a remedy: never run half-understood."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cxr_edge import model_file
from cxr_edge.errors import ExitCode, ModelRefused
from cxr_edge.manifest import MANIFEST_VERSION
from cxr_edge.model_file import SHIPPED, Golden
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime

FLATBUFFER = b"\x1c\x00\x00\x00TFL3" + bytes(range(64))
"""Bytes that `read` takes for a model: it looks at the identifier and the digest, never inside."""

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
    "tflite_sha256": hashlib.sha256(FLATBUFFER).hexdigest(),
    "about": {"licence": "none"},
}
GOLDEN = Golden(np.full((4, 6), 99, np.uint8), {"probabilities": np.array([200, 56], np.uint8)})


def packed(flatbuffer: bytes = FLATBUFFER, **files: str) -> bytes:
    """A model file with these associated files; by default a good one."""
    content = io.BytesIO()
    content.write(flatbuffer)
    files = files or {"manifest": json.dumps(MANIFEST), "card": "# tiny\n" * 20}
    names = {"manifest": "manifest.json", "card": "MODEL_CARD.md"}
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for key, text in files.items():
            archive.writestr(names[key], text)
        for name, data in model_file.pack_golden(GOLDEN).items():
            archive.writestr(name, data)
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
    model = model_file.read(path)
    assert model.manifest.temperature == 1.5
    np.testing.assert_array_equal(model.golden.pixels, GOLDEN.pixels)
    np.testing.assert_equal(model.golden.outputs, GOLDEN.outputs)


def test_a_golden_mask_survives_being_packed() -> None:
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4)
    golden = Golden(GOLDEN.pixels, GOLDEN.outputs | {"mask": mask})
    again = model_file.unpack_golden(model_file.pack_golden(golden))
    np.testing.assert_equal(again.outputs, golden.outputs)


def test_refuses_a_model_without_its_golden_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_file, "pack_golden", lambda _: {})
    path.write_bytes(packed())
    assert "golden" in refusal(path).message


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


BARE = {"familiar": None, "affected": None, "lung_area_pct": None}


@pytest.mark.parametrize(
    "changes",
    [{"input": MANIFEST["input"] | {"height": 100}}, {"outputs": {"probabilities": "no such tensor"}, **BARE}],
    ids=["another input", "no such output"],
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
    Engine(find_runtime(), model_file.read(shipped_variant(path, outputs=outputs, **BARE)))
