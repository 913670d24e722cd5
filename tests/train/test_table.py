from __future__ import annotations

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_train import labels, phantoms, splits, table
from cxr_train.cli import main
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


def test_ages_are_carried_where_they_are_asked_for(source: Path, tmp_path: Path) -> None:
    aged = changed(source, "aged.csv", years=["058Y", ""] * 48)
    assert list(build(aged, tmp_path / "plain.csv").columns) == list(table.COLUMNS)
    command = ["table", str(aged), "-o", str(tmp_path / "table.csv"), "--group-column", "patient", "--age-column"]
    done = CliRunner().invoke(main, [*command, "years"])
    assert done.exit_code == 0, done.output
    rows = table.read(tmp_path / "table.csv")
    assert list(rows.columns) == [*table.COLUMNS, "age"]
    assert set(rows["age"]) == {"058Y", ""}
    done = CliRunner().invoke(main, [*command, "born"])
    assert done.exit_code == 2
    assert "no column 'born'" in done.output


def test_a_patient_is_never_torn_between_splits(source: Path, tmp_path: Path) -> None:
    rows = build(source, tmp_path / "table.csv")
    assert set(rows["split"]) == {"train", "validation", "test"}
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert rows["group"].duplicated().any()


def test_doubtful_labels_are_not_trained_on_but_judged_as_any_other(source: Path, tmp_path: Path) -> None:
    whole = build(source, tmp_path / "table.csv")
    command = ["table", str(source), "-o", str(tmp_path / "sure.csv"), "--mask-column", "mask", "--group-column"]
    command += ["patient", "--origin-column", "origin", "--doubtful", "origin == 'clinic-b'"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    untaught = (whole["split"] == "train") & (whole["origin"] == "clinic-b")
    assert untaught.any()
    assert f"{untaught.sum()} training pictures are left out because their label is doubtful" in done.output
    # The split is made of all rows, so that the test stays what it was.
    sure = table.read(tmp_path / "sure.csv")
    assert sure.equals(whole[~untaught].reset_index(drop=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=120, max_size=200), st.integers(0, 5))
def test_split_by_group_holds_for_any_grouping(groups: list[int], seed: int) -> None:
    rows = pd.DataFrame({"group": [str(group) for group in groups], "origin": "a"})
    rows["label"] = ["ill" if index % 3 else "well" for index in range(len(rows))]
    if rows["group"].nunique() < splits.FOLDS:
        with pytest.raises(UsageError, match="too few"):
            splits.split_by_group(rows, seed)
        return
    rows["split"] = splits.split_by_group(rows, seed)
    assert (rows.groupby("group")["split"].nunique() == 1).all()
    assert list(rows["split"]) == splits.split_by_group(rows, seed)


def test_bad_rows_are_named_and_left_out(source: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    folder = source.parent
    rows.loc[0, "path"] = "images/nowhere.jpg"
    rows.loc[1, "label"] = ""
    (folder / "images" / "torn.jpg").write_bytes((folder / rows.loc[2, "path"]).read_bytes()[:900])
    rows.loc[2, "path"] = "images/torn.jpg"
    rows.loc[4, "mask"] = rows.loc[5, "mask"]  # its picture has another width
    (folder / "masks" / "torn-mask.png").write_bytes(b"")
    rows.loc[5, "mask"] = "masks/torn-mask.png"
    broken = folder / "broken.csv"
    rows.to_csv(broken, index=False)
    built = table.build(broken, tmp_path / "table.csv", SOURCE, "", "", seed=0)
    assert built.rows == 91
    assert [one.split(":")[0] for one in built.left_out] == [f"broken.csv line {n}" for n in (2, 3, 4, 6, 7)]
    assert built.left_out[0].endswith("nowhere.jpg is missing")
    assert "damaged" in built.left_out[2]
    assert "its picture" in built.left_out[3]
    assert built.left_out[4].endswith("torn-mask.png: the file is empty (0 bytes)")


def test_external_rows_are_kept_apart(source: Path, tmp_path: Path) -> None:
    rows = build(source, tmp_path / "table.csv", external="origin == 'clinic-b'")
    assert set(rows.loc[rows["origin"] == "clinic-b", "split"]) == {"external"}
    assert "external" not in set(rows.loc[rows["origin"] == "clinic-a", "split"])


def test_where_chooses_rows(source: Path, tmp_path: Path) -> None:
    assert set(build(source, tmp_path / "table.csv", where="origin == 'clinic-a'")["origin"]) == {"clinic-a"}


def changed(source: Path, name: str, **columns: list[str]) -> Path:
    """A copy of the source beside it, with some columns replaced or added."""
    rows = pd.read_csv(source, dtype=str, keep_default_na=False).assign(**columns)
    rows.to_csv(source.parent / name, index=False)
    return source.parent / name


def column(source: Path, name: str) -> list[str]:
    return list(pd.read_csv(source, dtype=str, keep_default_na=False)[name])


GIVEN = Source(group="patient", split="part")


def test_a_given_split_is_kept(source: Path, tmp_path: Path) -> None:
    parts = ["test" if patient < "p0010" else "Train" for patient in column(source, "patient")]
    built = table.build(changed(source, "given.csv", part=parts), tmp_path / "table.csv", GIVEN, "", "", seed=0)
    assert list(table.read(tmp_path / "table.csv")["split"]) == [part.lower() for part in parts]
    assert any("no picture is in validation" in note for note in built.notes)


def test_a_given_split_with_gaps_names_them(source: Path, tmp_path: Path) -> None:
    parts = ["test" if patient < "p0010" else "train" for patient in column(source, "patient")]
    parts[80:82] = ["", "dunno"]
    built = table.build(changed(source, "gaps.csv", part=parts), tmp_path / "table.csv", GIVEN, "", "", seed=0)
    assert [one.split(": ", 1)[1].split(": ")[1] for one in built.left_out] == [
        "the split is empty",
        "unknown split 'dunno'",
    ]


def test_external_rows_stay_so_when_the_split_is_made(source: Path, tmp_path: Path) -> None:
    parts = ["external" if patient < "p0010" else "" for patient in column(source, "patient")]
    file = changed(source, "outside.csv", part=parts)
    for resplit in (False, True):
        table.build(file, tmp_path / "table.csv", GIVEN, "", "", seed=0, resplit=resplit)
        splits = list(table.read(tmp_path / "table.csv")["split"])
        assert [split == "external" for split in splits] == [part == "external" for part in parts]
        assert set(splits) == {"external", "train", "validation", "test"}


def test_a_split_without_a_label_is_refused(source: Path, tmp_path: Path) -> None:
    ill = [label == "pneumonia" for label in column(source, "label")]
    parts = ["train" if one or index % 3 else "validation" for index, one in enumerate(ill)]
    with pytest.raises(UsageError, match="the split 'validation' has no picture of 'pneumonia'"):
        build(changed(source, "none.csv", part=parts), tmp_path / "table.csv", Source(split="part"))
    parts = ["external" if part == "validation" else part for part in parts]
    build(changed(source, "none.csv", part=parts), tmp_path / "table.csv", Source(split="part"))


def test_a_group_that_is_external_and_not_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"groups are external and not, e\.g\. 'p0000'"):
        build(source, tmp_path / "table.csv", external="path == 'images/0000.png'")


def test_near_duplicates_share_a_group_unless_split_by_picture(source: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    copies = rows.iloc[10:60:2].copy()
    for path in copies["path"]:
        Image.open(source.parent / path).resize((120, 100)).save(source.parent / f"{path}.png")
    copies[["path", "mask", "patient"]] = [(f"{path}.png", "", f"new-{path}") for path in copies["path"]]
    twice = source.parent / "twice.csv"
    pd.concat([rows, copies]).to_csv(twice, index=False)

    def splits_of(by_picture: bool) -> tuple[table.Built, pd.DataFrame]:
        built = table.build(twice, tmp_path / "table.csv", SOURCE, "", "", seed=0, by_picture=by_picture)
        read = table.read(tmp_path / "table.csv").set_index("path")
        names = [str((source.parent / path).resolve()) for path in rows["path"].iloc[10:60:2]]
        pairs = pd.DataFrame({"one": read.loc[names, "split"].to_list()})
        pairs["other"] = read.loc[[f"{name}.png" for name in names], "split"].to_list()
        return built, pairs

    built, pairs = splits_of(by_picture=False)
    assert (pairs["one"] == pairs["other"]).all()
    assert any(line.startswith("near-duplicates: ") for line in built.leaks)
    assert not any("LEAK" in line for line in built.leaks)
    built, pairs = splits_of(by_picture=True)
    torn = int((pairs["one"] != pairs["other"]).sum())
    assert torn > 0
    (leak,) = [line for line in built.leaks if "LEAK: sets of one picture that lie in two splits" in line]
    assert int(leak.split(": ")[2].split(",")[0]) >= torn


def test_the_same_picture_outside_is_a_leak(source: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(source, dtype=str, keep_default_na=False)
    again = rows.assign(origin="elsewhere", patient=rows["patient"] + "-again").iloc[:9]
    both = source.parent / "both.csv"
    pd.concat([rows, again]).to_csv(both, index=False)
    built = table.build(both, tmp_path / "table.csv", SOURCE, "", "origin == 'elsewhere'", seed=0)
    assert any("lie in train and in external" in line for line in built.leaks)
    assert any(line.startswith("identical pictures: 18, sets of them: 9") for line in built.leaks)


def test_identical_pictures_with_two_labels_are_both_left_out(source: Path, tmp_path: Path) -> None:
    paths = column(source, "path")
    paths[1] = paths[0]
    built = table.build(changed(source, "same.csv", path=paths), tmp_path / "table.csv", Source(), "", "", seed=0)
    assert built.rows == 94
    assert [one.split(":")[0] for one in built.left_out] == ["same.csv line 2", "same.csv line 3"]
    assert "'pneumonia'" in built.left_out[0]


@pytest.mark.parametrize(
    ("one", "other"), [("Covid19", "covid19"), ("tumör", "tumor"), ("ill ", "ill"), ("Straße", "STRASSE")]
)
def test_two_spellings_of_a_label_are_refused(source: Path, tmp_path: Path, one: str, other: str) -> None:
    labels = [[one, other, "well"][index % 3] for index in range(96)]
    with pytest.raises(UsageError) as refused:
        build(changed(source, "spelled.csv", label=labels), tmp_path / "table.csv")
    assert f"{one!r} (32 rows)" in refused.value.message
    assert f"{other!r} (32 rows)" in refused.value.message


def test_uncertain_is_no_label(source: Path, tmp_path: Path) -> None:
    labels = [["Uncertain", "well"][index % 2] for index in range(96)]
    with pytest.raises(UsageError, match=r"'Uncertain' .* verdict of its own"):
        build(changed(source, "uncertain.csv", label=labels), tmp_path / "table.csv")


@given(st.text(min_size=1, max_size=8), st.sampled_from(["upper", "lower", "title"]), st.sampled_from(["", " ", "\t"]))
def test_every_spelling_of_a_label_folds_to_one(label: str, case: str, blank: str) -> None:
    folded = labels.fold(label)
    assert labels.fold(folded) == folded
    assert labels.fold(blank + unicodedata.normalize("NFD", label) + blank) == folded
    ascii_label = "".join(sign for sign in label if sign.isascii())
    assert labels.fold(getattr(ascii_label, case)()) == labels.fold(ascii_label)
    assert labels.fold("".join(sign + "\u0301" for sign in ascii_label)) == labels.fold(ascii_label)


def test_the_command_reports_balance_sizes_and_leaks(source: Path, tmp_path: Path) -> None:
    command = ["table", str(source), "-o", str(tmp_path / "table.csv"), "--group-column", "patient"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    for sentence in ("read as: table source.csv", "share", "pictures: 96; width 96 to 128", "leaks: ", "96 rows in"):
        assert sentence in done.output


def test_a_table_that_cannot_be_written_is_one_sentence(source: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        build(source, tmp_path / "table.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputUnwritable, match="cannot be made"):
        build(source, tmp_path / "file" / "table.csv")
    with pytest.raises(UsageError, match="source itself"):
        build(source, source)


@pytest.mark.parametrize(
    ("meaning", "where", "sentence"),
    [
        (Source(label="diagnosis"), "", "no column 'diagnosis'"),
        (SOURCE, "origin ==", "cannot choose rows"),
        (SOURCE, "label == 'normal'", "fewer than two labels are left: only 'normal'"),
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
