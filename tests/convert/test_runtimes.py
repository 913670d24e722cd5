"""One file in two environments: this one, and one with the runtime of 32-bit boxes and the numpy it was built for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxr_convert import parity, predict
from cxr_edge import model_file, phantom

if TYPE_CHECKING:
    from tests.convert.conftest import Source

EDGE = Path(model_file.__file__).parents[1]
OLDER = ("tflite-runtime==2.14.0", "numpy<2", "pillow")
PHANTOMS = 40
OF_RADIOGRAPHS, OF_PHANTOMS = 0.015, 0.03
"""Mean differences of a probability. A phantom is no clear case of anything, where rounding shows most."""

SCRIPT = """
import json, sys
from pathlib import Path

from cxr_edge import imaging, model_file, preprocess
from cxr_edge.runtime import Engine, find_runtime

model, runtime = model_file.read(Path(sys.argv[1])), find_runtime()
engine, spec = Engine(runtime, model), model.manifest.input
rows = []
for name in sys.argv[2:]:
    picture = imaging.decode(Path(name).read_bytes(), (spec.width, spec.height)).gray
    rows.append(engine.infer(preprocess.to_input(picture, spec))["probabilities"].tolist())
print(json.dumps({"runtime": f"{runtime.name} {runtime.version}", "kernels": engine.kernels, "rows": rows}))
"""


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Phantoms as PNG files."""
    folder = tmp_path_factory.mktemp("agreement")
    for seed in range(PHANTOMS):
        picture = phantom.draw(seed, height=256, width=256, opacity=seed % 2 == 1).image
        Image.fromarray(picture).save(folder / f"{seed:02}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def older_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with tflite-runtime 2.14 and numpy 1, and nothing of this environment."""
    folder = tmp_path_factory.mktemp("older")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--only-binary=:all:",
        *OLDER,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution found for tflite-runtime" in done.stderr:
        pytest.skip(f"no wheel of {OLDER[0]} for Python {sys.version_info.major}.{sys.version_info.minor} here")
    assert done.returncode == 0, done.stderr
    return python


def judged_by(python: str | Path, model: Path, pictures: list[Path]) -> dict[str, Any]:
    """What a Python's own runtime says of the pictures."""
    command = [python, "-c", SCRIPT, model, *pictures]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(EDGE)})
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def as_rows(answers: dict[str, Any], task: str) -> pd.DataFrame:
    raw = [np.array(row, np.uint8) for row in answers["rows"]]
    return pd.DataFrame({"quantised": raw, "file": [predict.of_each_label(row / 256, task) for row in raw]})


def check_environments_agree(model: Path, older_python: Path, pictures: list[Path], mean_difference: float) -> None:
    """Certain verdicts in full, probabilities on average."""
    here, there = (judged_by(python, model, pictures) for python in (sys.executable, older_python))
    assert here["runtime"].startswith("ai-edge-litert")
    assert there["runtime"] == "tflite-runtime 2.14.0"
    manifest = model_file.read(model).manifest
    agreement = parity.agreement(as_rows(here, manifest.task), as_rows(there, manifest.task), manifest)
    assert agreement["certain_that_differ"] == 0
    assert agreement["mean_abs_difference"] <= mean_difference


def test_both_runtimes_agree_on_every_kind_of_model(source: Source, older_python: Path, phantoms: list[Path]) -> None:
    check_environments_agree(source.folder / "m.tflite", older_python, phantoms, OF_PHANTOMS)


def test_both_runtimes_agree_on_the_shipped_model(
    older_python: Path, data_dir: Path | None, phantoms: list[Path]
) -> None:
    real = sorted((data_dir / "originals").rglob("*.*")) if data_dir else []
    check_environments_agree(
        model_file.SHIPPED, older_python, real or phantoms, OF_RADIOGRAPHS if real else OF_PHANTOMS
    )
