"""A sweep, in this process: what gets a row, what is judged again, and what one bad file may cost."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cxr_edge.sweep
from cxr_edge import imaging, model_file
from cxr_edge.decoder import Left, LocalDecoder
from cxr_edge.discover import FoundFile, discover
from cxr_edge.errors import ExitCode, OutputLocked, OutputUnwritable, Status
from cxr_edge.model_file import ModelFile
from cxr_edge.phantom import draw
from cxr_edge.preprocess import to_input
from cxr_edge.runtime import Engine
from cxr_edge.sweep import Settings, Sweep
from cxr_edge.tally import Stop, Tally

NAMES = ["a.png", "b.png", "c.png", "ward/a.png", "z.png"]


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return model_file.read(model_file.SHIPPED)


@cache
def png(seed: int) -> bytes:
    """A phantom as PNG; every seed has a size of its own, (200 + seed) x 240 pixels."""
    content = io.BytesIO()
    Image.fromarray(draw(seed, width=200 + seed, height=240).image).save(content, "PNG")
    return content.getvalue()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five radiographs, the fourth in a subfolder."""
    for seed, name in enumerate(NAMES):
        put(tmp_path / "in" / name, png(seed))
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


Run = Callable[..., Tally]


@pytest.fixture
def run(folder: Path, out: Path, model: ModelFile) -> Run:
    """Sweep `folder` into `out`, decoding in this process; any setting may be given another value."""

    def call(*, model: ModelFile = model, out: Path = out, stop: Any = lambda: None, **changes: Any) -> Tally:
        settings = Settings(**{"workers": 2, "isolate": False} | changes)
        with Sweep(folder, out, model, settings, warn=lambda notice: pytest.fail(str(notice)), stop=stop) as sweep:
            return sweep.run()

    return call


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def paths(out: Path) -> list[str]:
    return [row["path"] for row in rows(out)]


def assert_masks(out: Path) -> None:
    """Every ok row has a mask of its own, of the image's size and bilevel; there is nothing else among the masks."""
    judged = [row for row in rows(out) if row["status"] == "ok"]
    for row in judged:
        with Image.open(out / row["mask"]) as mask:
            assert mask.size == (int(row["width"]), int(row["height"]))
            assert set(np.unique(np.asarray(mask.convert("L")))) <= {0, 255}
    there = [path.relative_to(out).as_posix() for path in (out / "masks").rglob("*") if path.is_file()]
    assert sorted(there) == sorted(row["mask"] for row in judged)


def assert_in_step(out: Path) -> None:
    with closing(sqlite3.connect(out / "ledger.sqlite")) as database:
        lines = [line for (line,) in database.execute("SELECT line FROM verdicts ORDER BY id")]
    assert (out / "verdicts.csv").read_bytes().partition(b"\r\n")[2] == "".join(lines).encode()


def test_one_row_and_one_mask_for_each_file_in_order(run: Run, out: Path, model: ModelFile) -> None:
    tally = run()
    assert paths(out) == NAMES
    assert [row["width"] for row in rows(out)] == [str(200 + seed) for seed in range(5)]
    assert {row["status"] for row in rows(out)} == {"ok"}
    assert {row["model"] for row in rows(out)} == {model.short_digest}
    assert (tally.found, tally.judged, tally.known, tally.exit_code) == (5, 5, 0, ExitCode.OK)
    assert_masks(out)
    assert not (out / ".tmp").exists()


def test_the_number_of_workers_changes_nothing(run: Run, tmp_path: Path) -> None:
    results = []
    for workers in (1, 4):
        run(workers=workers, out=tmp_path / f"out-{workers}")
        results.append([row | {"ms": "", "scanned_at": ""} for row in rows(tmp_path / f"out-{workers}")])
    assert results[0] == results[1]


def test_another_operating_point_judges_anew_and_says_so_in_its_rows(run: Run, out: Path, model: ModelFile) -> None:
    run()
    again = run(operating_point="screening")
    assert (again.judged, again.known) == (5, 0)
    assert [row["model"] for row in rows(out)] == [model.short_digest] * 5 + [f"{model.short_digest}@screening"] * 5
    assert run(operating_point="screening").known == 5


def test_the_affected_area_is_a_share_of_the_lung(run: Run, out: Path, model: ModelFile) -> None:
    run()
    shares = [float(row["affected_pct"]) for row in rows(out)]
    assert model.manifest.affected
    assert all(0 <= share <= 100 for share in shares)


def test_a_negative_is_turned_round_judged_as_the_positive_and_said_so(run: Run, folder: Path, out: Path) -> None:
    """Phantoms are less alike to radiographs than radiographs are: not all of their negatives are known for certain."""
    for seed in range(12):
        positive = draw(seed, width=300, height=300).image
        for name, pixels in (("positive", positive), ("negative", 255 - positive)):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            put(folder / name / f"{seed}.png", content.getvalue())
    run()
    by_path = {row["path"]: row for row in rows(out)}
    turned = [row for path, row in by_path.items() if path.startswith("negative/") and "negative" in row["reason"]]
    assert len(turned) >= 6
    for row in turned:
        positive_row = by_path[row["path"].replace("negative/", "positive/")]
        assert (row["status"], row["verdict"]) == ("ok", positive_row["verdict"])
        assert row["reason_code"] == (positive_row["reason_code"] or "inverted")
        assert float(row["lung_area_pct"]) == pytest.approx(float(positive_row["lung_area_pct"]), abs=2)
    assert not any("negative" in row["reason"] for path, row in by_path.items() if not path.startswith("negative/"))


def test_a_model_without_a_mask_writes_none(run: Run, out: Path, model: ModelFile) -> None:
    outputs = {"probabilities": model.manifest.outputs["probabilities"]}
    bare = replace(model.manifest, outputs=outputs, lung_area_pct=None, familiar=None, affected=None)
    run(model=replace(model, manifest=bare))
    assert {(row["mask"], row["lung_area_pct"], row["status"]) for row in rows(out)} == {("", "", "ok")}
    assert not (out / "masks").exists()


# The next night


def test_the_second_night_opens_no_known_file(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    before = (out / "verdicts.csv").read_bytes()
    monkeypatch.setattr(LocalDecoder, "look", pytest.fail)
    tally = run()
    assert (tally.found, tally.judged, tally.known, tally.exit_code) == (5, 0, 5, ExitCode.OK)
    assert (out / "verdicts.csv").read_bytes() == before


def test_a_touched_file_is_not_judged_again(run: Run, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    os.utime(folder / "b.png", ns=(1, 1))
    tally = run()
    assert (tally.judged, tally.known) == (0, 5)
    assert paths(out) == NAMES
    monkeypatch.setattr(LocalDecoder, "prepare", pytest.fail)  # its new time is remembered
    assert run().known == 5


def test_a_changed_file_gets_a_new_row(run: Run, folder: Path, out: Path) -> None:
    run()
    put(folder / "b.png", png(9))
    tally = run()
    assert (tally.judged, tally.known) == (1, 4)
    assert paths(out) == [*NAMES, "b.png"]
    assert rows(out)[-1]["width"] == "209"
    assert run().judged == 0


def test_a_file_that_got_its_old_content_back_keeps_its_rows(run: Run, folder: Path, out: Path) -> None:
    run()
    for seed in (9, 1):
        put(folder / "b.png", png(seed))
        run()
    assert paths(out) == [*NAMES, "b.png"]
    assert run().judged == 0


def test_another_model_judges_everything_again(run: Run, out: Path, model: ModelFile) -> None:
    run()
    other = replace(model, sha256="f" * 64)
    assert run(model=other).judged == 5
    assert paths(out) == NAMES * 2
    assert [row["model"] for row in rows(out)[5:]] == ["f" * 12] * 5
    run()
    run(model=other)
    assert paths(out) == NAMES * 2


def test_the_same_picture_under_two_names_gets_two_rows(run: Run, folder: Path, out: Path) -> None:
    put(folder / "twin.png", png(0))
    run()
    assert paths(out) == sorted([*NAMES, "twin.png"])


def test_a_folder_of_other_files_holds_nothing_to_judge_on_any_night(run: Run, folder: Path) -> None:
    shutil.rmtree(folder)
    put(folder / "notes.txt", b"no radiograph")
    assert run().exit_code is ExitCode.NOTHING_FOUND
    assert run().exit_code is ExitCode.NOTHING_FOUND
    (folder / "notes.txt").touch()
    assert run().exit_code is ExitCode.NOTHING_FOUND


# One bad file costs one row


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), KeyError("mask")], ids=repr)
def test_an_engine_that_fails_costs_each_picture_its_row_and_is_given_back(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def infer(*_: object) -> None:
        raise error

    monkeypatch.setattr(Engine, "infer", infer)
    run(workers=1)
    assert [(row["path"], row["status"], row["reason_code"], row["verdict"]) for row in rows(out)] == [
        (name, "failed", "internal_error", "") for name in NAMES
    ]
    assert all(type(error).__name__ in row["reason"] for row in rows(out))


@pytest.mark.parametrize("message", ["boom", "two\r\nlines", 'quote " and, comma', "no UTF-8: \udcff"], ids=ascii)
def test_an_exception_in_the_engine_costs_one_row(
    run: Run, out: Path, model: ModelFile, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    infer, spec = Engine.infer, model.manifest.input
    second = to_input(imaging.decode(png(1), (spec.width, spec.height)).gray, spec)

    def flaky(engine: Engine, pixels: Any) -> Any:
        if np.array_equal(pixels, second):
            raise RuntimeError(message)
        return infer(engine, pixels)

    monkeypatch.setattr(Engine, "infer", flaky)
    tally = run()
    assert [(row["path"], row["reason_code"] == "internal_error") for row in rows(out)] == [
        (name, name == "b.png") for name in NAMES
    ]
    assert tally.exit_code is ExitCode.SOME_FAILED
    assert_masks(out)
    assert_in_step(out)


def test_a_file_that_vanishes_gets_no_row_until_it_is_back(
    run: Run, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def discover_and_lose(*args: Any, **kwargs: Any) -> Iterator[FoundFile]:
        for item in discover(*args, **kwargs):
            if item.name == "b.png":
                item.path.unlink()
            yield item

    with monkeypatch.context() as patch:
        patch.setattr(cxr_edge.sweep, "discover", discover_and_lose)
        tally = run()
        assert (tally.left, tally.exit_code) == ({Left.VANISHED: 1}, ExitCode.OK)
    assert paths(out) == [name for name in NAMES if name != "b.png"]
    put(folder / "b.png", png(1))
    assert run().judged == 1
    assert (rows(out)[-1]["path"], rows(out)[-1]["status"]) == ("b.png", "ok")
    assert_masks(out)


# Names that a mask must be named after. Each case: names as the file system has them, relative to the folder.

HOSTILE_NAMES: dict[str, list[bytes]] = {
    "a file named like the folder of a mask": [b"x", b"x.png/y.png"],
    "longest names, alike to the last letters": [b"n" * 250 + b"1.png", b"n" * 250 + b"2.png"],
    "a folder of 100 bytes that are no UTF-8": [b"\xff" * 100 + b"/x.png"],
    "a byte that is no UTF-8, and its escape": [b"\xff.png", rb"\xff.png"],
    "a folder name at the limit": [b"d" * 255 + b"/x.png"],
}


@pytest.mark.parametrize("names", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES.keys())
def test_hostile_names_get_a_row_and_a_mask_each(run: Run, folder: Path, out: Path, names: list[bytes]) -> None:
    shutil.rmtree(folder)
    for seed, name in enumerate(names):
        put(folder / os.fsdecode(name), png(seed))
    tally = run()
    assert tally.statuses == {Status.OK: len(names)}
    assert len(set(paths(out))) == len(names)
    assert_masks(out)
    assert run().judged == 0


def test_a_path_at_the_limit_costs_no_more_than_its_row(run: Run, folder: Path, out: Path) -> None:
    """The path of its mask is longer than the system allows."""
    deep = folder / "deep"
    while len(os.fsencode(deep)) < 4095 - 220:
        deep /= "d" * 200
    put(deep / ("x" * (4095 - len(os.fsencode(deep)) - 1)), png(5))
    run()
    assert len(paths(out)) == 6
    assert [row["path"] for row in rows(out) if row["status"] == "ok" and row["path"] in NAMES] == NAMES


def test_a_thousand_nested_folders_cost_nothing(run: Run, folder: Path, out: Path) -> None:
    subprocess.run(["mkdir", "-p", folder / "/".join(["d"] * 1100)], check=True)  # Python's own way recurses
    try:
        run()
        assert paths(out) == NAMES
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


# Ends before the end


def test_stop_finishes_the_images_in_hand(run: Run, out: Path) -> None:
    answers = iter([None, None, None])
    tally = run(workers=1, stop=lambda: next(answers, Stop.INTERRUPTED))
    assert tally.exit_code is ExitCode.INTERRUPTED
    assert paths(out) == NAMES[:3]
    assert_masks(out)
    tally = run()
    assert (tally.known, tally.judged, tally.exit_code) == (3, 2, ExitCode.OK)
    assert paths(out) == NAMES


def test_stop_before_the_first_image_judges_nothing(run: Run, out: Path) -> None:
    assert run(stop=lambda: Stop.INTERRUPTED).exit_code is ExitCode.INTERRUPTED
    assert rows(out) == []


@pytest.mark.parametrize("batch_rows", [1, 64])
def test_a_disk_that_fills_up_ends_the_sweep_and_the_next_one_completes(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    rename, calls = Path.replace, itertools.count()

    def fill_up(path: Path, target: Path) -> Path:
        if target.suffix == ".png" and next(calls) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fill_up)
        patch.setattr(cxr_edge.sweep, "BATCH_ROWS", batch_rows)
        with pytest.raises(OutputUnwritable, match="No space left") as caught:
            run(workers=1)
    assert caught.value.remedy
    assert paths(out) == NAMES[: len(paths(out))]
    assert len(paths(out)) == (3 if batch_rows == 1 else 0)
    assert_in_step(out)
    assert len(list((out / "masks").rglob("*.png"))) == 3  # nothing of the fourth is to be seen
    assert run().exit_code is ExitCode.OK
    assert paths(out) == NAMES
    assert_masks(out)
    assert_in_step(out)
    assert not (out / ".tmp").exists()


def test_an_output_that_is_held_is_left_alone(run: Run, folder: Path, out: Path, model: ModelFile) -> None:
    held: list[pytest.ExceptionInfo[OutputLocked]] = []

    def second() -> None:
        with pytest.raises(OutputLocked) as caught:
            run()
        held.append(caught)

    with Sweep(folder, out, model, Settings(isolate=False), progress=second) as sweep:
        sweep.run()
    assert len(held) == len(NAMES)
    assert f"process {os.getpid()} on" in held[0].value.message
    assert held[0].value.exit_code is ExitCode.LOCKED
    assert paths(out) == NAMES
