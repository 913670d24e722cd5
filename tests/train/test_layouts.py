"""Every layout, built small in a temporary folder, and what each says of what it cannot use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pytest
from PIL import Image

from cxr_edge import phantom
from cxr_edge.errors import UsageError
from cxr_train import arrays, layouts, radiography, sheets, table
from cxr_train.layouts import Source

SIDE = 72


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    """48 phantoms of 72 x 72, no two alike; every second one has an opacity."""
    phantoms = (phantom.draw(seed, height=96, width=96, opacity=bool(seed % 2)).image for seed in range(48))
    return [Image.fromarray(image).resize((SIDE, SIDE)) for image in phantoms]


def build(source: Path, out: Path, meaning: Source | None = None, **options: Any) -> tuple[table.Built, pd.DataFrame]:
    built = table.build(source, out, meaning or Source(), "", "", 0, **options)
    return built, table.read(out)


def fill(folder: Path, drawn: list[Image.Image], names: str = "{}.png") -> list[Path]:
    folder.mkdir(parents=True)
    files = [folder / names.format(number) for number in range(len(drawn))]
    for file, image in zip(files, drawn, strict=True):
        image.save(file)
    return files


def class_folders(folder: Path, drawn: list[Image.Image]) -> Path:
    fill(folder / "normal", drawn[::2])
    fill(folder / "pneumonia" / "ward-b", drawn[1::2])
    return folder


def test_class_folders(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", drawn)
    (source / "normal" / ".DS_Store").write_bytes(b"x")
    (source / "__MACOSX" / "normal").mkdir(parents=True)
    (source / "normal" / "broken.png").write_bytes(b"no picture")
    built, rows = build(source, tmp_path / "out" / "table.csv")
    assert built.left_out == [
        "normal/broken.png: not a JPEG, PNG, BMP, TIFF, WebP or DICOM file, whatever its name says"
    ]
    assert rows["label"].value_counts().to_dict() == {"normal": 24, "pneumonia": 24}
    assert "ward-b" in rows["path"].iloc[-1]
    assert all(Path(path).is_file() for path in rows["path"])
    assert set(rows["split"]) == {"train", "validation", "test"}
    assert "class folders" in built.notes[0]


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person12_bacteria_34.jpeg", "person12_bacteria"),
        ("person12_virus_35.jpeg", "person12_virus"),
        ("IM-0115-0001.jpeg", "im-0115"),
        ("NORMAL2-IM-0441-0001-0002.jpeg", "normal2-im-0441"),
        ("CXR1_1_IM-0001-3001.png", ""),
        ("person.png", ""),
    ],
)
def test_kermanys_names_tell_the_child(name: str, patient: str) -> None:
    assert layouts.patient(name) == patient


def split_folders(folder: Path, drawn: list[Image.Image], second: str = "val") -> Path:
    for number, split in enumerate(("train", second, "test")):
        part = drawn[number * 16 : number * 16 + 16]
        fill(folder / split / "NORMAL", part[::2], "IM-0" + str(number) + "1{}-0001.jpeg")
        fill(folder / split / "PNEUMONIA", part[1::2], f"person{number}" + "{}_virus_5.jpeg")
    return folder


@pytest.mark.parametrize("second", ["val", "valid", "Validation"])
def test_split_folders_keep_their_split(drawn: list[Image.Image], tmp_path: Path, second: str) -> None:
    source = split_folders(tmp_path / "set", drawn, second)
    (source / "chest_xray").mkdir()
    built, rows = build(source, tmp_path / "table.csv")
    assert rows["split"].value_counts().to_dict() == {"train": 16, "validation": 16, "test": 16}
    assert rows["group"].nunique() == 48
    assert "set/chest_xray/ is none of train, val, test: left alone" in built.notes
    assert not any("LEAK" in line for line in built.leaks)


def test_a_near_duplicate_in_two_given_splits_is_told_and_resplit_joins_it(
    drawn: list[Image.Image], tmp_path: Path
) -> None:
    source = split_folders(tmp_path / "set", drawn)
    drawn[0].resize((100, 80)).save(source / "test" / "NORMAL" / "copy.png")
    built, _ = build(source, tmp_path / "table.csv")
    (leak,) = [line for line in built.leaks if "LEAK" in line]
    assert "train/NORMAL/IM-0010-0001.jpeg (train)" in leak
    assert "test/NORMAL/copy.png (test)" in leak
    assert "--resplit" in leak

    again, rows = build(source, tmp_path / "again.csv", resplit=True)
    assert not any("LEAK" in line for line in again.leaks)
    two = rows[rows["path"].str.endswith(("train/NORMAL/IM-0010-0001.jpeg", "copy.png"))]
    assert len(two) == 2
    assert two["group"].nunique() == two["split"].nunique() == 1


def test_a_child_in_two_given_splits_is_refused_unless_resplit(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = split_folders(tmp_path / "set", drawn)
    (source / "test" / "PNEUMONIA" / "person20_virus_5.jpeg").rename(
        source / "test" / "PNEUMONIA" / "person00_virus_6.jpeg"
    )
    with pytest.raises(UsageError, match=r"1 groups .*'person00_virus'.*") as refused:
        build(source, tmp_path / "table.csv")
    assert "--resplit" in refused.value.remedy
    assert not (tmp_path / "table.csv").exists()
    _, rows = build(source, tmp_path / "table.csv", resplit=True)
    assert rows.loc[rows["group"] == "person00_virus", "split"].nunique() == 1
    built, rows = build(source, tmp_path / "table.csv", by_picture=True)
    assert rows["group"].nunique() == len(rows)
    assert any("LEAK: 1 groups" in line for line in built.leaks)


def workbook(file: Path, rows: list[list[Any]]) -> None:
    book = openpyxl.Workbook()
    for number, row in enumerate(rows, start=1):
        for column, cell in enumerate(row, start=1):
            book.worksheets[0].cell(number, column, cell)
    book.save(file)


URL = "https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/data"


def radiography_folders(folder: Path, drawn: list[Image.Image], claimed: str = "256*256", mask: int = 64) -> Path:
    for number, name in enumerate(("COVID", "Normal")):
        files = fill(folder / name / "images", drawn[number::2], name + "-{}.png")
        (folder / name / "masks").mkdir()
        for file in files:
            Image.new("RGB", (mask, mask), "white").save(folder / name / "masks" / file.name)
        cells = [[file.stem.upper(), "PNG", claimed, URL] for file in files]
        workbook(folder / f"{name}.metadata.xlsx", [["FILE NAME", "FORMAT", "SIZE", "URL"], *cells])
    return folder


def test_radiography_as_the_original_is(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = radiography_folders(tmp_path / "set", drawn)
    (source / "README.md.txt").write_text("read me")
    built, rows = build(source, tmp_path / "table.csv")
    assert not built.left_out
    assert len(rows) == 48
    assert all(Path(mask).is_file() for mask in rows["mask"])
    assert set(rows["origin"]) == {"kaggle.com/c/rsna-pneumonia-detection-challenge"}
    assert sum("its SIZE (256*256) is no picture's size" in note for note in built.notes) == 2
    assert sum("every mask is of another size" in note for note in built.notes) == 2


def test_radiography_rows_that_are_not_sound_are_named_by_cell(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = radiography_folders(tmp_path / "set", drawn, claimed=f"{SIDE}*{SIDE}")
    covid = source / "COVID"
    (covid / "images" / "COVID-3.png").unlink()
    (covid / "masks" / "COVID-4.png").unlink()
    (covid / "images" / "COVID-5.png").write_bytes((covid / "images" / "COVID-5.png").read_bytes()[:500])
    Image.open(covid / "images" / "COVID-6.png").resize((80, 80)).save(covid / "images" / "COVID-6.png")
    Image.new("L", (80, 64)).save(covid / "masks" / "COVID-7.png")
    drawn[0].rotate(90).save(covid / "images" / "extra.png")
    built, rows = build(source, tmp_path / "table.csv")
    assert len(rows) == 48 - 5
    assert built.left_out[:3] == [
        "COVID.metadata.xlsx A5: images/COVID-3.png is missing",
        "COVID.metadata.xlsx A6: masks/COVID-4.png is missing, the mask of images/COVID-4.png",
        "COVID/images/extra.png: no row of COVID.metadata.xlsx names it",
    ]
    assert built.left_out[3].startswith("COVID.metadata.xlsx A7: COVID/images/COVID-5.png: the picture is cut short")
    assert built.left_out[4:] == [
        "COVID.metadata.xlsx C8: COVID/images/COVID-6.png: is 80 x 80, its row says 72*72",
        "COVID.metadata.xlsx A9: COVID/masks/COVID-7.png: is 80 x 64, its picture 72 x 72",
    ]


def test_one_radiography_mask_of_another_size_is_left_out(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = radiography_folders(tmp_path / "set", drawn, mask=SIDE)
    Image.new("L", (64, 64)).save(source / "Normal" / "masks" / "Normal-0.png")
    built, _ = build(source, tmp_path / "table.csv")
    assert built.left_out == ["Normal.metadata.xlsx A2: Normal/masks/Normal-0.png: is 64 x 64, its picture 72 x 72"]


def test_radiography_without_excel_takes_every_picture(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = radiography_folders(tmp_path / "set", drawn)
    (source / "COVID.metadata.xlsx").unlink()
    shutil.rmtree(source / "Normal" / "masks")
    built, rows = build(source, tmp_path / "table.csv")
    assert len(rows) == 48
    assert "COVID.metadata.xlsx is not there: every picture of COVID/images/ is taken" in built.notes
    assert "class 'Normal' has no masks/: its rows have no mask" in built.notes
    assert set(rows.loc[rows["label"] == "COVID", "origin"]) == {"unknown"}


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        (URL, "kaggle.com/c/rsna-pneumonia-detection-challenge"),
        ("https://github.com/armiro/COVID-CXNet", "github.com/armiro/COVID-CXNet"),
        ("https://sirm.org/category/senza-categoria/covid-19/", "sirm.org"),
        ("www.eurorad.org/case/1", "eurorad.org"),
        ("  ", "unknown"),
        ("http://[", "unknown"),
    ],
)
def test_the_origin_is_the_urls_host(url: str, origin: str) -> None:
    assert radiography.origin(url) == origin


def test_an_excel_table_names_the_cells_of_bad_rows(drawn: list[Image.Image], tmp_path: Path) -> None:
    fill(tmp_path / "set" / "pictures", drawn)
    Image.new("L", (SIDE, SIDE + 1)).save(tmp_path / "set" / "mask.png")
    rows: list[list[Any]] = [[index, ["well", 1][index % 2], f"pictures/{index}.png", ""] for index in range(48)]
    rows[3][2] = "pictures/gone.png"
    rows[5][3] = "mask.png"
    rows.insert(2, [None] * 4)
    workbook(tmp_path / "set" / "all.xlsx", [["no", "finding", "picture", "lung"], *rows])
    built, read = build(tmp_path / "set" / "all.xlsx", tmp_path / "t.csv", Source("picture", "finding", "lung"))
    assert built.left_out == [
        "all.xlsx C6: pictures/gone.png is missing",
        "all.xlsx D8: mask.png: is 72 x 73, its picture 72 x 72",
    ]
    assert set(read["label"]) == {"well", "1"}


def test_a_csv_counts_lines_as_an_editor_does(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('\ufeffpath;label\n\na.png;"two\nlines"\nb.png;one\n', encoding="utf-8")
    sheet = sheets.read(file)
    assert list(sheet.rows.columns) == ["path", "label"]
    assert [sheet.at(index, "path") for index in range(2)] == ["t.csv line 3: ", "t.csv line 5: "]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("t.csv", b"", "the table is empty"),
        ("t.csv", b"path,path\n", "stands there twice"),
        ("t.csv", b"path,label\na,b,c\n", "line 2: has more cells"),
        ("t.csv", b"path,label\n\xff,b\n", "cannot be read as a CSV"),
        ("t.csv", b'path,label\n"a,b\n', "cannot be read as a CSV"),
        ("t.csv", b"path,label\n", "fewer than two labels"),
        ("t.xlsx", b"path,label\n", "cannot be read as an Excel"),
        ("X.npy", b"", "is one array"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=sentence):
        build(tmp_path / name, tmp_path / "out.csv")


def save_arrays(folder: Path, x: Any, y: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.save(folder / "X.npy", x)
    np.save(folder / "y.npy", y)
    return folder


def stacked(drawn: list[Image.Image]) -> Any:
    return np.stack([np.asarray(image) for image in drawn])


@pytest.mark.parametrize("kind", ["uint8", "unit", "bytes", "one channel", "colour"])
def test_arrays_become_pictures_of_the_same_pixels(drawn: list[Image.Image], tmp_path: Path, kind: str) -> None:
    truth = stacked(drawn)
    x = {
        "uint8": truth,
        "unit": truth.astype(np.float32) / 255,
        "bytes": truth.astype(np.float64),
        "one channel": truth[..., None],
        "colour": np.repeat(truth[..., None], 3, axis=-1),
    }[kind]
    source = save_arrays(tmp_path / "set", x, np.arange(48) % 2)
    built, rows = build(source, tmp_path / "table.csv")
    assert list(rows["label"]) == ["0", "1"] * 24
    for path, pixels in zip(rows["path"], truth, strict=True):
        assert Path(path).parent == tmp_path / "table_pictures"
        np.testing.assert_array_equal(np.asarray(Image.open(path).convert("L")), pixels)
    assert any("were written to" in note for note in built.notes)


@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (np.array(["a", "b", "a"]), ["a", "b", "a"]),
        (np.array([b"a", b"b", b"a"]), ["a", "b", "a"]),
        (np.array([[1, 0], [0, 1], [1, 0]]), ["0", "1", "0"]),
        (np.array([[2], [0], [2]]), ["2", "0", "2"]),
        (np.array([1.0, 0.0, 1.0]), ["1", "0", "1"]),
    ],
)
def test_labels_of_arrays(drawn: list[Image.Image], tmp_path: Path, y: Any, labels: list[str]) -> None:
    source = save_arrays(tmp_path, stacked(drawn[:3]), y)
    assert list(arrays.listing(source, tmp_path / "out").rows["label"]) == labels


GOOD = np.zeros((2, SIDE, SIDE), np.uint8)


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (GOOD, np.arange(3), "2 pictures in X.npy, but 3 labels"),
        (GOOD[0], np.arange(2), "shape"),
        (np.zeros((2, SIDE, SIDE, 2), np.uint8), np.arange(2), "shape"),
        (GOOD.astype(np.int64), np.arange(2), "int64"),
        (GOOD.astype(np.float32) - 1, np.arange(2), "from -1 to -1"),
        (GOOD.astype(np.float32) + np.float32(np.nan), np.arange(2), "nan"),
        (GOOD[:, :28, :28], np.arange(2), "too few to judge"),
        (GOOD, np.array([[0.3, 0.7], [1, 0]]), "are no labels"),
        (GOOD, np.array([{}, {}], dtype=object), "cannot be read"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path: Path, x: Any, y: Any, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        build(save_arrays(tmp_path / "set", x, y), tmp_path / "table.csv")
    assert not (tmp_path / "table.csv").exists()


def test_a_folder_of_no_layout_says_what_it_holds(drawn: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds nothing, which is no known layout: class folders, train/val/test"):
        build(tmp_path, tmp_path / "table.csv")
    fill(tmp_path / "images", drawn[:2])
    (tmp_path / "list.csv").write_text("path,label\n")
    with pytest.raises(UsageError, match=r"holds images/, list\.csv") as refused:
        build(tmp_path, tmp_path / "table.csv")
    assert str(tmp_path / "list.csv") in refused.value.remedy
    np.save(tmp_path / "X.npy", GOOD)
    with pytest.raises(UsageError, match="not both"):
        build(tmp_path, tmp_path / "table.csv")


def test_an_empty_class_and_a_single_one_are_refused(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", drawn)
    (source / "covid").mkdir()
    with pytest.raises(UsageError, match="class 'covid' is empty"):
        build(source, tmp_path / "table.csv")
    (source / "covid" / "a.png").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"class 'covid' is empty: .*covid/a\.png: not a JPEG"):
        build(source, tmp_path / "table.csv")
    shutil.rmtree(source / "covid")
    shutil.rmtree(source / "normal")
    with pytest.raises(UsageError, match="fewer than two labels are left: only 'pneumonia'"):
        build(source, tmp_path / "table.csv")


def test_a_table_inside_a_class_folder_is_refused(drawn: list[Image.Image], tmp_path: Path) -> None:
    source = class_folders(tmp_path / "set", drawn)
    with pytest.raises(UsageError, match="whose folders are read as classes"):
        build(source, source / "out" / "table.csv")
    assert not (source / "out").exists()
    build(source, source / "table.csv")


def test_columns_are_named_for_tables_only(drawn: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no table"):
        build(class_folders(tmp_path / "set", drawn), tmp_path / "table.csv", Source(label="diagnosis"))
