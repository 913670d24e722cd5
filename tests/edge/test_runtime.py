"""Whichever TFLite runtime the box has, an engine gives the same arrays, and says nothing on stderr."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import numpy as np
import pytest
from numpy.typing import NDArray

from cxr_edge.errors import ExitCode, ModelRefused
from cxr_edge.model_file import SHIPPED, ModelFile, read
from cxr_edge.phantom import draw
from cxr_edge.preprocess import to_input
from cxr_edge.runtime import LOADERS, Engine, Runtime, find_runtime


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return read(SHIPPED)


@pytest.fixture(scope="module")
def inputs(model: ModelFile) -> list[NDArray[np.uint8]]:
    return [to_input(draw(seed, height=240, width=240).image, model.manifest.input) for seed in range(8)]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def _first() -> Runtime:
    return Runtime("first", "1", print)


def _second() -> Runtime:
    return Runtime("second", "2", print)


def _not_installed() -> Runtime:
    raise ModuleNotFoundError("No module named 'absent'")


def _broken_wheel() -> Runtime:
    raise AttributeError("_ARRAY_API not found")


def test_takes_the_first_runtime_there_is() -> None:
    assert find_runtime((_first, _second)).name == "first"


@pytest.mark.parametrize("broken", [_not_installed, _broken_wheel])
def test_falls_through_to_the_next_runtime(broken: object) -> None:
    assert find_runtime((broken, _second, _first)).name == "second"  # type: ignore[arg-type]


@pytest.mark.parametrize(("machine", "package"), [("x86_64", "ai-edge-litert"), ("armv7l", "tflite-runtime")])
def test_without_a_runtime_the_remedy_fits_the_machine(
    monkeypatch: pytest.MonkeyPatch, machine: str, package: str
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(ModelRefused) as caught:
        find_runtime((_not_installed, _broken_wheel))
    assert caught.value.exit_code is ExitCode.MODEL_REFUSED
    assert "not-installed: No module named 'absent'" in caught.value.message
    assert "broken-wheel: _ARRAY_API not found" in caught.value.message
    assert package in caught.value.remedy


def test_prefers_the_light_runtimes_to_tensorflow() -> None:
    assert [load.__name__ for load in LOADERS] == ["_ai_edge_litert", "_tflite_runtime", "_tensorflow"]


def test_infer_gives_what_it_promises(model: ModelFile, inputs: list[NDArray[np.uint8]]) -> None:
    result = Engine(find_runtime(), model).infer(inputs[0])
    assert set(result) == set(model.manifest.outputs)
    assert result["probabilities"].shape == (len(model.manifest.labels),)
    assert result["mask"].ndim == 2
    assert result["activation"].shape[-1] == len(model.manifest.labels)
    kinds = {name: array.dtype.name for name, array in result.items()}
    assert kinds == dict.fromkeys(result, "uint8") | {"embedding": "float32"}
    assert 250 <= int(result["probabilities"].sum()) <= 260


def test_a_result_outlives_the_next_image(model: ModelFile, inputs: list[NDArray[np.uint8]]) -> None:
    engine = Engine(find_runtime(), model)
    first = engine.infer(inputs[0])
    kept = first["mask"].copy()
    assert (engine.infer(inputs[1])["mask"] != kept).any()
    np.testing.assert_array_equal(first["mask"], kept)


def test_engines_in_threads_give_what_one_engine_gives(model: ModelFile, inputs: list[NDArray[np.uint8]]) -> None:
    alone, *engines = (Engine(find_runtime(), model) for _ in range(3))
    expected = [alone.infer(pixels) for pixels in inputs]
    with ThreadPoolExecutor(len(engines)) as pool:
        results = list(pool.map(lambda engine: [engine.infer(pixels) for pixels in inputs * 4], engines))
    for result in results:
        for got, want in zip(result, expected * 4, strict=True):
            np.testing.assert_equal(got, want)


def test_an_engine_with_two_threads_gives_the_same(model: ModelFile, inputs: list[NDArray[np.uint8]]) -> None:
    one, two = Engine(find_runtime(), model), Engine(find_runtime(), model, threads=2)
    np.testing.assert_equal(two.infer(inputs[0]), one.infer(inputs[0]))


USE_AN_ENGINE = """
import numpy as np
from cxr_edge import model_file, runtime
model = model_file.read(model_file.SHIPPED)
engine = runtime.Engine(runtime.find_runtime({loaders}), model)
result = engine.infer(np.full((1, model.manifest.input.height, model.manifest.input.width, 1), 99, np.uint8))
print(result["probabilities"].dtype, result["probabilities"].shape, result["mask"].dtype, result["mask"].shape)
"""


def test_an_engine_prints_nothing() -> None:
    """Not even from C++, which announces its delegate: cron would mail it each night."""
    done = run_python(USE_AN_ENGINE.format(loaders="runtime.LOADERS"))
    assert done.returncode == 0
    assert done.stderr == ""


def test_what_is_printed_beside_an_engine_still_arrives() -> None:
    done = run_python(USE_AN_ENGINE.format(loaders="runtime.LOADERS") + "import os; os.write(2, b'still here')")
    assert done.stderr == "still here"


def test_the_fast_kernels_run_the_graph(model: ModelFile) -> None:
    pytest.importorskip("ai_edge_litert", reason="32-bit ARM has the older runtime only")
    engine_room = find_runtime()
    assert engine_room.name == "ai-edge-litert"
    assert Engine(engine_room, model).kernels.startswith("XNNPACK")


def test_tensorflow_serves_where_it_is_the_only_runtime() -> None:
    if not find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    done = run_python(USE_AN_ENGINE.format(loaders="(runtime._tensorflow,)"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == run_python(USE_AN_ENGINE.format(loaders="runtime.LOADERS")).stdout
