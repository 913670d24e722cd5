"""CSV rows that any reader takes, mask names that never collide, masks that are never half there."""

from __future__ import annotations

import csv
import errno
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from cxr_edge import outputs
from cxr_edge.discover import printable
from cxr_edge.errors import ExitCode, OutputUnwritable, Reason, Status
from cxr_edge.masks import png
from cxr_edge.outputs import FileWriter, Row, header, mask_name, render

LABELS = ("normal", "pneumonia", "covid19")
COLUMNS = [
    *("path", "status", "verdict", "confidence", "p_normal", "p_pneumonia", "p_covid19", "reason_code", "reason"),
    *("lung_area_pct", "affected_pct", "mask", "width", "height", "sha256", "model", "scanned_at", "ms"),
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def row(**fields: Any) -> Row:
    known: dict[str, Any] = {"path": "a.png", "status": Status.OK, "sha256": "ab", "model": "0123456789ab"}
    return Row(**{**known, "scanned_at": "2030-01-01T00:00:00Z", "ms": 12.34, **fields})


def parse(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


def test_the_header_has_the_columns_of_the_design_in_their_order() -> None:
    assert header(LABELS) == ",".join(COLUMNS) + "\r\n"


def test_a_judged_row() -> None:
    judged = row(
        path="ward-b/0017.dcm",
        verdict="pneumonia",
        confidence=0.87654,
        probabilities=(0.1, 0.87654, 0.02346),
        lung_area_pct=31.26,
        mask="masks/ward-b/0017.dcm.png",
        width=1024,
        height=768,
    )
    assert render(judged, LABELS) == (
        "ward-b/0017.dcm,ok,pneumonia,0.877,0.100,0.877,0.023,,,31.3,,masks/ward-b/0017.dcm.png,1024,768,"
        "ab,0123456789ab,2030-01-01T00:00:00Z,12.3\r\n"
    )


def test_a_failed_row_leaves_empty_what_it_does_not_know() -> None:
    failed = row(status=Status.FAILED, reason_code=Reason.EMPTY_FILE, reason="the file is empty (0 bytes)")
    (cells,) = parse(header(LABELS) + render(failed, LABELS))
    known = {"path", "status", "reason_code", "reason", "sha256", "model", "scanned_at", "ms"}
    assert {column for column, cell in cells.items() if cell} == known
    assert (cells["status"], cells["reason_code"]) == ("failed", "empty_file")


@given(TEXT, TEXT, TEXT)
def test_any_text_survives_the_csv(path: str, reason: str, label: str) -> None:
    assume(label not in ("b", *COLUMNS))
    text = header((label, "b")) + render(row(path=path, reason=reason, mask=path), (label, "b"))
    assert text.endswith("\r\n")
    (cells,) = parse(text)
    assert None not in cells
    assert (cells["path"].removeprefix("./"), cells["reason"], cells["mask"]) == (path.removeprefix("./"), reason, path)
    assert f"p_{label}" in cells


@pytest.mark.parametrize(
    ("cell", "quoted"),
    [('a"b', '"a""b"'), ("a,b", '"a,b"'), ("a\nb", '"a\nb"'), ("a\r\nb", '"a\r\nb"'), ("a\rb", '"a\rb"'), ("é", "é")],
)
def test_quoting_is_that_of_rfc_4180(cell: str, quoted: str) -> None:
    assert render(row(path=cell), LABELS).startswith(quoted + ",ok,")


COMPONENT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/") | st.sampled_from(".pngx~"), min_size=1
).filter(lambda part: part not in (".", "..") and len(part.encode()) <= 255)
LONG = st.builds(lambda part, end: (part * 255)[: 255 // len(part.encode())] + end, COMPONENT, st.sampled_from("ab"))
NAMES = st.lists(COMPONENT | LONG.filter(lambda part: len(part.encode()) <= 255), min_size=1, max_size=4).map("/".join)


@pytest.mark.parametrize("name", ["0017.dcm", "ward-b/0017.dcm", "a/b/c/d.png", "with space/é.jpg"])
def test_masks_mirror_the_input_tree(name: str) -> None:
    assert mask_name(name) == f"masks/{name}.png"


@given(NAMES)
def test_mask_names_stay_in_their_folder_and_fit_the_file_system(name: str) -> None:
    parts = mask_name(name).split("/")
    assert parts[0] == "masks"
    assert len(parts) == name.count("/") + 2
    assert parts[-1].endswith(".png")
    assert max(len(part.encode()) for part in parts) <= 255


def test_folder_names_that_are_no_utf_8_fit_the_file_system_too() -> None:
    """Each such byte becomes four characters, so a name of 100 bytes, as from an old archive, outgrows the limit."""
    name = printable(Path("/".join(["\udcff" * 100] * 3)))
    assert max(len(part.encode()) for part in mask_name(name).split("/")) <= 255


@given(NAMES, NAMES)
def test_mask_names_are_unique(one: str, other: str) -> None:
    assert (mask_name(one) == mask_name(other)) == (one == other)


def test_long_names_that_differ_at_the_end_keep_different_masks() -> None:
    names = [f"ward/{stem}{end}" for stem in ("a" * 249, "é" * 124) for end in ("1", "2", "22", ".png", ".jpg")]
    assert len({mask_name(name) for name in names}) == len(names)


@pytest.mark.parametrize(("file", "other"), [("0017", "0017.png/0001.jpg"), ("a/b.dcm", "a/b.dcm.png/c")])
def test_a_mask_never_stands_where_another_needs_a_folder(tmp_path: Path, file: str, other: str) -> None:
    """Both files can lie in one folder, so both masks must."""
    writer = FileWriter(tmp_path)
    for name in (file, other):
        writer.write(mask_name(name), png(MASK))
    assert len([path for path in (tmp_path / "masks").rglob("*.png") if path.is_file()]) == 2


# Writing

MASK = np.arange(30 * 50).reshape(30, 50) % 7 < 3


def test_a_mask_is_one_bit_deep_and_reads_back(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    writer.write("masks/ward/a.png", png(MASK))
    assert not list((tmp_path / ".tmp").iterdir())
    writer.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.png", "masks", "ward"]
    data = (tmp_path / "masks/ward/a.png").read_bytes()
    assert data[24] == 1  # bit depth, PNG's IHDR
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (50, 30)
        assert np.array_equal(np.asarray(image.convert("L")), MASK * np.uint8(255))


def test_a_mask_is_replaced_by_a_new_one(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)
    for mask in (MASK, np.zeros((8, 9), bool)):
        writer.write("masks/a.png", png(mask))
    with Image.open(tmp_path / "masks/a.png") as image:
        assert image.size == (9, 8)


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.replace"])
def test_whatever_fails_the_old_mask_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    writer = FileWriter(tmp_path)
    writer.write("masks/a.png", png(MASK))
    before = (tmp_path / "masks/a.png").read_bytes()

    def full(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(step, full)
    with pytest.raises(OutputUnwritable, match="No space left") as caught:
        writer.write("masks/a.png", png(np.zeros((8, 9), bool)))
    assert caught.value.exit_code is ExitCode.OUTPUT_UNWRITABLE
    assert caught.value.remedy
    assert (tmp_path / "masks/a.png").read_bytes() == before
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


def test_the_mask_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = FileWriter(tmp_path)
    steps: list[str] = []
    monkeypatch.setattr("os.fsync", lambda _: steps.append("sync"))
    rename = Path.replace

    def replace(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    writer.write("masks/a.png", png(MASK))
    assert steps == ["sync", "rename"]


def test_threads_share_a_writer(tmp_path: Path) -> None:
    writer = FileWriter(tmp_path)

    def write(number: int) -> None:
        writer.write(f"masks/{number % 3}/{number}.png", png(np.zeros((64, 64 + number), bool)))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))
    for number in range(40):
        with Image.open(tmp_path / f"masks/{number % 3}/{number}.png") as image:
            image.load()
            assert image.size == (64 + number, 64)


def test_what_a_killed_sweep_left_in_the_temp_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "half.png").write_bytes(b"x")
    FileWriter(tmp_path)
    assert not list((tmp_path / ".tmp").iterdir())


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "masks").write_text("a file where the folder should be")
    with pytest.raises(OutputUnwritable, match="masks"):
        FileWriter(tmp_path).write("masks/a.png", png(MASK))
    with pytest.raises(OutputUnwritable):
        FileWriter(tmp_path / "masks")


# Reading back, and spreadsheets


@given(TEXT, TEXT, st.floats(0, 1), st.integers(0, 9999))
def test_a_line_reads_back_as_its_row(path: str, reason: str, p: float, width: int) -> None:
    assume(not path.startswith("./"))  # no path does
    fields: dict[str, Any] = {"verdict": "normal", "confidence": round(p, 3), "probabilities": (round(p, 3), 0.0, 0.5)}
    before = row(path=path, reason=reason, mask=path, width=width, height=1, ms=1.5, **fields)
    assert outputs.parse(render(before, LABELS), LABELS) == before
    nothing = row(path=path, status=Status.FAILED, reason_code=Reason.DAMAGED, reason=reason, ms=0.1)
    assert outputs.parse(render(nothing, LABELS), LABELS) == nothing


@pytest.mark.parametrize("name", ["=1+1.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png", "\r=1.png"])
def test_no_cell_is_a_formula(name: str) -> None:
    (cells,) = parse(header(LABELS) + render(row(path=name, mask=mask_name(name)), LABELS))
    assert cells["path"] == f"./{name}"
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells.values())


def test_a_formula_behind_another_separator_stays_in_its_cell() -> None:
    """Half of the world's spreadsheets part cells at ';', some at tabs."""
    assert render(row(path="a;=1+1.png"), LABELS).startswith('"a;=1+1.png",')
    assert render(row(path="a\t=1+1.png"), LABELS).startswith('"a\t=1+1.png",')
