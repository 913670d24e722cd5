"""The self-test on the box: a good model passes, and a runtime that computes something else is found out."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from cxr_edge import model_file
from cxr_edge.errors import ExitCode, ModelRefused
from cxr_edge.model_file import SHIPPED, Golden, ModelFile
from cxr_edge.runtime import Engine, find_runtime
from cxr_edge.verify import verify


@pytest.fixture(scope="module")
def shipped() -> ModelFile:
    return model_file.read(SHIPPED)


def cxr_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = Path(sys.executable).with_name("cxr-edge")
    return subprocess.run([script, *arguments], capture_output=True, text=True, check=False)


def test_the_shipped_model_passes_on_this_machine(shipped: ModelFile) -> None:
    lines = list(verify(shipped, find_runtime()))
    assert len(lines) == 4
    assert all(line.startswith("ok ") for line in lines)


def test_the_golden_input_is_no_patient(shipped: ModelFile) -> None:
    """A phantom, drawn again here."""
    from cxr_edge.phantom import draw
    from cxr_edge.preprocess import to_input

    drawn = (to_input(draw(seed).image, shipped.manifest.input)[0, :, :, 0] for seed in range(50))
    assert any(np.array_equal(shipped.golden.pixels, pixels) for pixels in drawn)


@pytest.mark.parametrize("name", ["probabilities", "mask"])
def test_another_answer_than_the_golden_one_is_refused(shipped: ModelFile, name: str) -> None:
    outputs = shipped.golden.outputs | {name: 255 - shipped.golden.outputs[name]}
    broken = replace(shipped, golden=Golden(shipped.golden.pixels, outputs))
    with pytest.raises(ModelRefused, match="wrong on this box") as caught:
        list(verify(broken, find_runtime()))
    assert caught.value.exit_code is ExitCode.MODEL_REFUSED
    assert caught.value.remedy


def test_an_operator_newer_than_the_runtime_is_refused(shipped: ModelFile, tmp_path: Path) -> None:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(SHIPPED.read_bytes()))
    model.operatorCodes[0].version = 999
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    content = bytes(builder.Output())
    path = tmp_path / "newer.tflite"
    path.write_bytes(content)
    newer = replace(
        shipped, path=path, manifest=replace(shipped.manifest, tflite_sha256=hashlib.sha256(content).hexdigest())
    )
    with pytest.raises(ModelRefused, match=r"cannot run newer\.tflite") as caught:
        Engine(find_runtime(), newer)
    assert caught.value.remedy
    assert len(caught.value.message) < 400


def test_the_command_says_ok_line_by_line() -> None:
    done = cxr_edge("model", "verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4


def test_the_command_leaves_with_5_and_one_sentence(tmp_path: Path) -> None:
    content = bytearray(SHIPPED.read_bytes())
    content[len(content) // 3] ^= 1
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(bytes(content))
    done = cxr_edge("model", "verify", str(broken))
    assert (done.returncode, done.stdout) == (ExitCode.MODEL_REFUSED, "")
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr
