"""Every command of the docs, run as it stands: phantoms -> table -> model.keras -> model.tflite -> verdicts.csv."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from cxr_edge import model_file

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def commands(page: str) -> list[str]:
    """The lines of all ```sh blocks of a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, shell=True, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=600
    )


def shortened(line: str) -> str:
    """A benchmark of a second says nothing, but shows that it runs."""
    return line.replace("cxr-edge bench", "cxr-edge bench --seconds 1 --threshold 99")


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walk")
    lines = commands("docs/training.md")
    assert len(lines) >= 6
    for line in lines:
        done = run(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return folder


def test_the_run_folder_is_complete(walked: Path) -> None:
    run_folder = walked / "runs" / "first"
    drawn = [f"evaluation/{kind}_test.png" for kind in ("confusion", "roc", "precision_recall", "calibration", "grid")]
    for name in ("model.keras", "model.json", "training_log.csv", "curves.png", "evaluation/report.html", *drawn):
        assert (run_folder / name).stat().st_size > 0
    evaluation = json.loads((run_folder / "evaluation" / "evaluation.json").read_text())
    assert set(evaluation["splits"]) == {"validation", "test"}
    test = evaluation["splits"]["test"]
    assert sum(map(sum, test["confusion_matrix"])) == test["pictures"]
    assert set(test["by_origin"]) == {"clinic-a", "clinic-b"}
    assert test["dice"] is not None
    assert set(test["sensitivity"]) == {"normal", "pneumonia"}


def test_the_model_file_describes_itself(walked: Path) -> None:
    model = model_file.read(walked / "first.tflite")
    about = model.manifest.about
    assert model.manifest.labels == ("normal", "pneumonia")
    assert set(model.manifest.outputs) == {"probabilities", "mask", "activation", "embedding"}
    assert all(record["pictures"] > 0 for record in about["parity"].values())
    assert {record["origin"] for record in about["figures"]} == {"all", "clinic-a", "clinic-b"}
    assert "never a diagnosis" in model.card
    with zipfile.ZipFile(walked / "first.tflite") as archive:
        described = {"manifest.json", "labels.txt", "MODEL_CARD.md"}
        golden = {"golden/input.png", "golden/mask.png", "golden/probabilities.json"}
        assert set(archive.namelist()) == described | golden


def test_the_scan_has_a_row_and_a_mask_for_each_picture(walked: Path) -> None:
    with (walked / "verdicts" / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures = sorted((walked / "source" / "images").iterdir())
    assert [row["path"] for row in rows] == [path.name for path in pictures]
    # What two epochs on 80 phantoms know of phantoms is little: a gate may turn some of them away.
    judged = [row for row in rows if row["status"] == "ok"]
    assert len(judged) >= 0.8 * len(rows)
    assert {row["status"] for row in rows} <= {"ok", "rejected"}
    for row in judged:
        with Image.open(walked / "verdicts" / row["mask"]) as mask:
            assert (str(mask.width), str(mask.height)) == (row["width"], row["height"])


@pytest.mark.parametrize("command", ["cxr-train evaluate --model {} --out e", "cxr-convert {} -o other.tflite"])
@pytest.mark.parametrize(
    ("old", "new", "sentence"), [("pneumonia", "flu", "no label ['flu']"), (".png", ".gone", "No such file")]
)
def test_a_table_that_does_not_fit_is_refused(
    walked: Path, tmp_path: Path, command: str, old: str, new: str, sentence: str
) -> None:
    table = (walked / "data" / "table.csv").read_text().replace("../source", str(walked / "source"))
    (tmp_path / "table.csv").write_text(table.replace(old, new))
    option = "--table" if "evaluate" in command else "--calibration"
    model = walked / "runs" / "first" / "model.keras"
    done = run(f"{command.format(model)} {option} table.csv", tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


PAGES = [
    "README.md",
    *(f"docs/{page}.md" for page in ("verdicts", "model", "deploy", "doctor", "sizing")),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_the_other_pages_run(page: str, tmp_path: Path) -> None:
    assert run(f"{sys.executable} -m cxr_edge.phantom incoming --count 2", tmp_path).returncode == 0
    assert run("cxr-edge scan incoming", tmp_path).returncode == 0
    lines = commands(page)
    assert lines
    for line in lines:
        # This test is itself part of `make test`, and `make demo` needs the network.
        done = run(f"{line} --dry-run", ROOT) if line.startswith("make ") else run(shortened(line), tmp_path)
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_the_figures_of_the_docs_are_those_of_the_shipped_card() -> None:
    card = model_file.read(model_file.SHIPPED).card.splitlines()
    figures = re.compile(r"\| (test|validation|external|screening|balanced|rule-in) \|")
    told = [line for line in (ROOT / "docs" / "model.md").read_text().splitlines() if figures.match(line)]
    assert set(told) == {line for line in card if figures.match(line)}
    assert len(told) > 15
    accuracy = {line.split(" | ")[1]: line.split(" | ")[3] for line in card if line.startswith("| test")}
    accuracy["external"] = next(line.split(" | ")[3] for line in card if line.startswith("| external | all"))
    readme = (ROOT / "README.md").read_text()
    assert accuracy.keys() == {"all", "covid-cxnet", "ieee8023", "kermany", "nih", "radiography", "external"}
    assert all(figure in readme for figure in accuracy.values())


def test_the_readme_picture_is_drawn(tmp_path: Path) -> None:
    done = run(f"{sys.executable} docs/picture.py {tmp_path / 'picture.png'}", ROOT)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "picture.png") as picture, Image.open(ROOT / "docs" / "masks.png") as shown:
        assert picture.size == shown.size
