from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_edge.errors import UsageError
from cxr_train import phantoms, table
from cxr_train.table import Source

SOURCE = Source(mask="mask", group="patient", origin="origin")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantoms.write_dataset(tmp_path_factory.mktemp("source") / "set", 96, side=96)


def build(source: Path, out: Path, meaning: Source = SOURCE, where: str = "", external: str = "") -> pd.DataFrame:
    table.build(source, out, meaning, where, external, seed=0)
    return table.read(out)


def test_every_picture_is_found_from_the_new_table(source: Path, tmp_path: Path) -> None:
    rows = build(source, tmp_path / "deep" / "table.csv")
    assert len(rows) == 96
    assert all(Path(path).is_file() for path in rows["path"])
    assert all(Path(mask).is_file() for mask in rows["mask"] if mask)
    assert (rows["mask"] == "").sum() == 24


def test_a_patient_is_never_torn_between_splits(source: Path, tmp_path: Path) -> None:
    rows = build(source, tmp_path / "table.csv")
    assert set(rows["split"]) == {"train", "validation", "test"}
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert rows["group"].duplicated().any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=120, max_size=200), st.integers(0, 5))
def test_split_by_group_holds_for_any_grouping(groups: list[int], seed: int) -> None:
    rows = pd.DataFrame({"group": [str(group) for group in groups], "origin": "a"})
    rows["label"] = ["ill" if index % 3 else "well" for index in range(len(rows))]
    if rows["group"].nunique() < table.FOLDS:
        with pytest.raises(UsageError, match="too few"):
            table.split_by_group(rows, seed)
        return
    rows["split"] = table.split_by_group(rows, seed)
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert list(rows["split"]) == table.split_by_group(rows, seed)


def test_bad_rows_are_named_and_left_out(source: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    folder = source.parent
    rows.loc[0, "path"] = "images/nowhere.jpg"
    rows.loc[1, "label"] = ""
    (folder / "images" / "torn.jpg").write_bytes((folder / rows.loc[2, "path"]).read_bytes()[:900])
    rows.loc[2, "path"] = "images/torn.jpg"
    rows.loc[4, "mask"] = rows.loc[5, "mask"]  # its picture has another width
    broken = folder / "broken.csv"
    rows.to_csv(broken, index=False)
    count, complaints = table.build(broken, tmp_path / "table.csv", SOURCE, "", "", seed=0)
    assert count == 92
    assert [complaint.split(":")[0] for complaint in complaints] == [f"broken.csv line {n}" for n in (2, 3, 4, 6)]
    assert "damaged" in complaints[2]
    assert "its picture" in complaints[3]


def test_external_rows_are_kept_apart(source: Path, tmp_path: Path) -> None:
    rows = build(source, tmp_path / "table.csv", external="origin == 'clinic-b'")
    assert set(rows.loc[rows["origin"] == "clinic-b", "split"]) == {"external"}
    assert "external" not in set(rows.loc[rows["origin"] == "clinic-a", "split"])


def test_where_chooses_rows(source: Path, tmp_path: Path) -> None:
    assert set(build(source, tmp_path / "table.csv", where="origin == 'clinic-a'")["origin"]) == {"clinic-a"}


def test_a_given_split_is_kept(source: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    rows["part"] = ["test" if patient < "p0010" else "train" for patient in rows["patient"]]
    given_split = source.parent / "given.csv"
    rows.to_csv(given_split, index=False)
    made = build(given_split, tmp_path / "table.csv", Source(group="patient", split="part"))
    assert list(made["split"]) == list(rows["part"])


@pytest.mark.parametrize(
    ("meaning", "where", "sentence"),
    [
        (Source(label="diagnosis"), "", "no column 'diagnosis'"),
        (SOURCE, "origin ==", "cannot choose rows"),
        (SOURCE, "label == 'normal'", "fewer than two labels"),
    ],
)
def test_what_cannot_be_is_refused(source: Path, tmp_path: Path, meaning: Source, where: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        table.build(source, tmp_path / "table.csv", meaning, where, "", seed=0)


def test_a_torn_group_is_refused_on_reading(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.csv"
    build(source, out)
    rows = pd.read_csv(out, dtype=str, keep_default_na=False)
    rows["group"] = "one"
    rows.to_csv(out, index=False)
    with pytest.raises(UsageError, match="two splits"):
        table.read(out)
