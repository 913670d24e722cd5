"""Whole audits of models that are known to read a corner, or the lungs: the verdict must say which."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from PIL import Image

from cxr_edge import model_file, phantom
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_edge.preprocess import InputSpec
from cxr_train import audit, audit_embedding, keras2, models, table
from cxr_train.cli import main

SIDE = 64
CORNER, LUNG = (slice(0, 6), slice(0, 6)), (slice(28, 32), slice(14, 18))
"""Rows and columns of the input: a corner, and a spot of the right lung of every phantom."""
FILES = {"predictions.csv", "embedding.npy", "audit.json", "audit.png", "views.png", "audit.html"}


def reader(folder: Path, region: tuple[slice, slice], *, mask: bool = False) -> Path:
    """A model without training that calls a picture ill where a region of it is brighter than middle gray.

    Its lung mask, if it is to have one, is wherever the picture is bright.
    """
    rows, columns = region
    image = keras.Input((SIDE, SIDE, 1))
    crop = ((rows.start, SIDE - rows.stop), (columns.start, SIDE - columns.stop))
    head = keras.layers.Dense(2, activation="softmax")
    spot = keras.layers.Flatten()(keras.layers.Cropping2D(crop)(image))
    outputs = {"probabilities": head(spot)}
    weight = np.full(spot.shape[1], 6 / spot.shape[1], np.float32)
    head.set_weights([np.stack([weight, -weight], axis=1), np.zeros(2, np.float32)])
    if mask:
        outputs["mask"] = keras.layers.Rescaling(0.5, offset=0.5)(keras.layers.AveragePooling2D(4)(image))
    folder.mkdir(parents=True)
    keras.Model(image, outputs).save(folder / "model.keras")
    description = {"labels": ["ill", "well"], "task": "softmax", "input": asdict(InputSpec(SIDE, SIDE))}
    (folder / "model.json").write_text(json.dumps(description))
    return folder / "model.keras"


def phantoms(folder: Path, *, in_the_corner: bool) -> Path:
    """48 phantoms of two clinics, half of either ill: those have a white square in a corner, or else bright lungs.

    One ill picture lacks the sign: no model here is always right.
    """
    rows = []
    for number in range(48):
        ill = number % 2 == 0
        drawn = phantom.draw(number, height=128, width=128)
        gray, sign = drawn.image.copy(), ill and number != 44
        if in_the_corner:
            gray[:16, :16] = 250 if sign else 5
        else:
            gray[drawn.lung_mask] = gray[drawn.lung_mask] // 4 + (190 if sign else 0)
        Image.fromarray(gray).save(folder / f"{number:02}.png")
        Image.fromarray(np.where(drawn.lung_mask, 255, 0).astype(np.uint8)).save(folder / f"{number:02}-lung.png")
        rows.append(
            {
                "path": f"{number:02}.png",
                "label": "ill" if ill else "well",
                "mask": f"{number:02}-lung.png",
                "origin": "here" if number // 2 % 2 else "there",
                "group": f"g{number}",
                "split": "test",
                "licence": "",
                "age": str(10 + number),
            }
        )
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantoms(tmp_path_factory.mktemp("marked"), in_the_corner=True)


@pytest.fixture(scope="module")
def corner(marked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corner")
    audit.audit(reader(folder / "run", CORNER), marked, folder / "audit")
    return folder / "audit"


def edited(source: Path, name: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    frame = change(pd.read_csv(source, dtype=str, keep_default_na=False))
    frame.to_csv(source.with_name(name), index=False)
    return source.with_name(name)


def content_of(folder: Path) -> Any:
    return json.loads((folder / "audit.json").read_text())


def test_a_model_that_reads_the_corner_is_found_out(corner: Path) -> None:
    content = content_of(corner)
    assert content["verdict"]["level"] == "most"
    views = content["figures"]["views"]
    assert views["whole"]["accuracy"] == views["border"]["accuracy"] == views["no_lungs"]["accuracy"] == 0.9792
    assert views["border"]["remaining"]["share"] == 1
    assert views["only_lungs"]["accuracy"] <= 0.5
    sentences = content["verdict"]["sentences"]
    assert sentences[0].startswith("Shortcut found: most of what this model tells apart")
    assert "(100 %, 100 to 100 %) remain with the lungs blacked out" in sentences[2]
    assert "nothing remains with nothing but the lungs" in sentences[3]


def test_a_model_that_reads_the_lungs_is_not(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rows = phantoms(tmp_path / "data", in_the_corner=False)
    audit.audit(reader(tmp_path / "run", LUNG), rows, tmp_path / "audit")
    content = content_of(tmp_path / "audit")
    views = content["figures"]["views"]
    assert views["whole"]["accuracy"] == views["only_lungs"]["accuracy"] == 0.9792
    assert content["verdict"]["level"] == "little"
    assert "No shortcut found by these tests" in content["verdict"]["sentences"][0]
    assert "no proof that it uses none" in content["verdict"]["sentences"][0]


def test_the_files_and_a_page_that_needs_nothing_else(corner: Path) -> None:
    assert {file.name for file in corner.iterdir()} == FILES
    predictions = pd.read_csv(corner / "predictions.csv", keep_default_na=False)
    assert len(predictions) == 48 * 5
    assert predictions.groupby("picture")["view"].nunique().eq(5).all()
    assert predictions.groupby("picture")["path"].nunique().eq(1).all()
    assert set(predictions["lungs"]) == {"truth"}
    assert np.load(corner / "embedding.npy").shape == (48, 36)
    for name in ("audit.png", "views.png"):
        with Image.open(corner / name) as picture:
            assert min(picture.size) > 300
    page = (corner / "audit.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for shown in (
        "never a diagnosis",
        "lungs blacked out",
        "By age",
        "under 18",
        "told from the embedding",
        "Newcombe",
    ):
        assert shown in page
    assert 'class="verdict most"' in page


def test_everything_comes_from_the_files(corner: Path, tmp_path: Path) -> None:
    for name in ("predictions.csv", "embedding.npy"):
        (tmp_path / name).write_bytes((corner / name).read_bytes())
    assert audit.figures_of(tmp_path, ["ill", "well"]) == content_of(corner)["figures"]
    frame = pd.read_csv(tmp_path / "predictions.csv", keep_default_na=False)
    frame.loc[frame["view"] != "whole", ["p_ill", "p_well"]] = 0.5
    frame.loc[frame["view"] != "whole", "predicted"] = "ill"
    frame.sample(frac=1, random_state=0).to_csv(tmp_path / "predictions.csv", index=False)
    figures = audit.figures_of(tmp_path, ["ill", "well"])
    assert figures["views"]["whole"] == content_of(corner)["figures"]["views"]["whole"]
    assert figures["views"]["border"]["accuracy"] == 0.5


def test_the_order_of_the_table_does_not_matter(marked: Path, corner: Path, tmp_path: Path) -> None:
    other = edited(marked, "shuffled.csv", lambda rows: rows.sample(frac=1, random_state=3))
    audit.audit(corner.parent / "run" / "model.keras", other, tmp_path / "audit")
    assert (tmp_path / "audit" / "predictions.csv").read_bytes() == (corner / "predictions.csv").read_bytes()
    assert (tmp_path / "audit" / "embedding.npy").read_bytes() == (corner / "embedding.npy").read_bytes()
    assert content_of(tmp_path / "audit")["figures"] == content_of(corner)["figures"]


def test_lungs_come_from_the_table_else_from_the_model_else_are_left_out(
    marked: Path, corner: Path, tmp_path: Path
) -> None:
    def strip(rows: pd.DataFrame) -> pd.DataFrame:
        return rows.assign(mask=["" if number < 30 else mask for number, mask in enumerate(rows["mask"])])

    some = edited(marked, "some.csv", strip)
    blind = corner.parent / "run" / "model.keras"
    lines = audit.audit(blind, some, tmp_path / "blind")
    figures = content_of(tmp_path / "blind")["figures"]
    assert figures["lungs"] == {"unknown": 30, "truth": 18}
    assert figures["views"]["no_lungs"]["pictures"] == figures["views"]["only_lungs"]["pictures"] == 18
    assert figures["views"]["border"]["pictures"] == 48
    assert any("30 of 48 pictures have no usable lung mask" in line for line in lines)

    audit.audit(reader(tmp_path / "run", CORNER, mask=True), some, tmp_path / "own")
    assert content_of(tmp_path / "own")["figures"]["lungs"] == {"model": 30, "truth": 18}

    none = edited(marked, "none.csv", lambda rows: rows.assign(mask=""))
    audit.audit(blind, none, tmp_path / "none")
    views = content_of(tmp_path / "none")["figures"]["views"]
    assert set(views) == {"whole", "border", "coarse"}
    assert "lungs not known" not in (tmp_path / "none" / "audit.html").read_text()
    assert content_of(tmp_path / "none")["verdict"]["level"] == "most"


def test_one_label_one_origin_and_no_age_cost_a_sentence_each(marked: Path, corner: Path, tmp_path: Path) -> None:
    def keep(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[(rows["label"] == "ill") & (rows["origin"] == "here")].drop(columns="age")

    lines = audit.audit(corner.parent / "run" / "model.keras", edited(marked, "one.csv", keep), tmp_path)
    for expected in (
        "Nothing to audit",
        "All pictures are of one origin",
        "No age of these pictures is known",
        "no contrast inside one origin can be had",
    ):
        assert any(expected in line for line in lines), expected
    page = (tmp_path / "audit.html").read_text()
    assert "By age" not in page
    assert "NaN" not in (tmp_path / "audit.json").read_text()


def test_the_command_says_the_verdict_and_refuses_in_one_sentence(marked: Path, corner: Path, tmp_path: Path) -> None:
    model = corner.parent / "run" / "model.keras"

    def run(file: Path, rows: Path, *arguments: str) -> tuple[int, str]:
        command = ["audit", "--model", str(file), "--table", str(rows), "--out", str(tmp_path / "out"), *arguments]
        done = CliRunner().invoke(main, command)
        assert "Traceback" not in done.output
        return done.exit_code, done.output

    code, output = run(model, marked)
    assert code == 0
    assert output.startswith("Shortcut found: most")
    assert output.splitlines()[-1] == f"page: {tmp_path / 'out' / 'audit.html'}"

    code, output = run(model, marked, "--split", "external")
    assert code == 2
    assert "the split 'external' is empty" in output
    assert "choose --split among test" in output
    lost = edited(marked, "lost.csv", lambda rows: rows.assign(mask="gone.png"))
    code, output = run(model, lost)
    assert code == 2
    assert "gone.png" in output
    flu = edited(marked, "flu.csv", lambda rows: rows.assign(label="flu"))
    code, output = run(model, flu)
    assert code == 2
    assert "no label ['flu']" in output
    (tmp_path / "torn.tflite").write_bytes(b"\0\0\0\0TFL3")
    code, output = run(tmp_path / "torn.tflite", marked)
    assert code == 5
    assert "does not describe itself" in output
    foreign = tmp_path / "foreign.keras"
    foreign.write_bytes(model.read_bytes())
    code, output = run(foreign, marked)
    assert code == 2
    assert "has no model.json beside it" in output
    assert run(foreign, marked, "--labels", "ill,well", "--pixels", "-1..1")[0] == 0


def test_an_audit_leaves_no_embedding_of_another_model(marked: Path, tmp_path: Path) -> None:
    rows = table.read(marked)
    predictor = models.load(reader(tmp_path / "run", CORNER))
    judged = audit.judge(predictor, None, rows)
    assert judged.embedding is None
    about: dict[str, Any] = {"model": "m", "splits": ["test"]}
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "embedding.npy").write_bytes(b"old")
    lines = audit.write(judged, ["ill", "well"], tmp_path / "out", about)
    assert any("embedding of this model cannot be read" in line for line in lines)
    assert not (tmp_path / "out" / "embedding.npy").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable, match="file cannot be written"):
        audit.write(judged, ["ill", "well"], tmp_path / "file", about)
    lost = rows.assign(path=str(tmp_path / "gone.png"))
    with pytest.raises(UsageError, match=r"gone\.png"):
        audit.judge(predictor, None, lost)


def test_the_embedding_is_what_the_label_layer_reads() -> None:
    image = keras.Input((SIDE, SIDE, 1))
    deep = keras.layers.Conv2D(5, 3)(image)
    pooled = keras.layers.Dropout(0.5)(keras.layers.GlobalAveragePooling2D(keepdims=True)(deep))
    logits = keras.layers.Flatten()(keras.layers.Conv2D(2, 1)(pooled))
    outputs = {"mask": keras.layers.Conv2D(1, 1)(deep), "embedding": keras.layers.GlobalMaxPooling2D()(image)}
    ours = keras.Model(image, outputs | {"probabilities": keras.layers.Softmax()(logits)})
    found = audit_embedding.find(ours)
    assert found is not None
    assert found.output.shape == (None, 1, 1, 5)

    def sequence(*layers: Any) -> keras.Model:
        return keras.Sequential([keras.Input((SIDE, SIDE, 1)), *layers])

    top = keras.Sequential([keras.Input((62, 62, 5)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(2)])
    nested = audit_embedding.find(sequence(keras.layers.Conv2D(5, 3), top))
    assert nested is not None
    assert nested.output.shape == (None, 5)
    assert audit_embedding.find(sequence(keras.layers.Conv2D(2, 3), keras.layers.GlobalMaxPooling2D())) is None
    flat = keras.layers.GlobalAveragePooling2D()(image)
    joined = keras.layers.Add()([keras.layers.Dense(2)(flat), keras.layers.Dense(2)(flat)])
    assert audit_embedding.find(keras.Model(image, joined)) is None


def test_the_embedding_of_each_kind_of_file(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 1), dtype=np.uint8)
    embed = audit_embedding.load(reader(tmp_path / "run", CORNER))
    assert embed is not None
    values = embed.embed(gray)
    assert values.dtype == np.float32
    assert values == pytest.approx(gray[:, CORNER[0], CORNER[1], 0].reshape(3, -1) / 127.5 - 1, abs=1e-6)

    file = Path(__file__).parent / "data" / "keras2.h5"
    old = audit_embedding.load(file, "0..255")
    assert old is not None
    pooled = old.embed(gray[:, :24, :24])
    head = keras2.load(file).layers[-1]
    p, _ = models.load(file, ("a", "b", "c"), "0..255").predict(gray[:, :24, :24])
    assert np.asarray(head(pooled)) == pytest.approx(p, abs=1e-5)

    box = model_file.read(model_file.SHIPPED).manifest
    shipped = audit_embedding.load(model_file.SHIPPED)
    assert (shipped is not None) == ("embedding" in box.outputs)
    if shipped is not None:
        pixels = np.zeros((2, box.input.height, box.input.width, 1), np.uint8)
        assert shipped.embed(pixels).shape[0] == len(shipped.embed(pixels).shape) == 2
