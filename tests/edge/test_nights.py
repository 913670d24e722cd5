"""Nights that do not go as planned: files that move, decoders that die, disks and shares that go, clocks that jump."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cxr_edge import model_file
from cxr_edge.decoder import Left, LocalDecoder
from cxr_edge.discover import Notice, discover, find, settled
from cxr_edge.errors import ExitCode, Reason, Status
from cxr_edge.isolate import IsolatedDecoder, Nursery
from cxr_edge.ledger import Ledger
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import mask_name
from cxr_edge.phantom import draw
from cxr_edge.sweep import Settings, Sweep
from cxr_edge.tally import Stop, Tally

SCRIPT = Path(sys.executable).with_name("cxr-edge")
KILLS = int(os.environ.get("CXR_KILLS", "30"))
"""Moments at which a sweep is killed; the figure of the project's promise is taken with 200."""


@cache
def png(seed: int = 0) -> bytes:
    content = io.BytesIO()
    Image.fromarray(draw(seed, width=220 + seed, height=240).image).save(content, "PNG")
    return content.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four radiographs."""
    for seed, name in enumerate(["a.png", "b.png", "c.png", "ward/d.png"]):
        put(tmp_path / "in" / name, png(seed))
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return model_file.read(model_file.SHIPPED)


def scan(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), "scan", "--settle", "0", *map(str, arguments)]
    return subprocess.run(command, check=False, **({"capture_output": True, "text": True, "timeout": 300} | options))


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [str(SCRIPT), "scan", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def paths(out: Path) -> list[str]:
    return [row["path"] for row in rows(out)] if (out / "verdicts.csv").exists() else []


def assert_whole(out: Path, names: list[str]) -> None:
    """One row for each name, in CSV and ledger alike; every mask opens; nothing else lies about."""
    assert Counter(paths(out)) == Counter(names)
    with closing(sqlite3.connect(out / "ledger.sqlite")) as database:
        lines = [line for (line,) in database.execute("SELECT line FROM verdicts ORDER BY id")]
    assert (out / "verdicts.csv").read_bytes().partition(b"\r\n")[2] == "".join(lines).encode()
    masks = sorted(row["mask"] for row in rows(out) if row["mask"])
    for name in masks:
        with Image.open(out / name) as mask:
            mask.load()
    assert sorted(path.relative_to(out).as_posix() for path in (out / "masks").rglob("*") if path.is_file()) == masks
    assert not [path for path in out.rglob("*") if "tmp" in path.name or "journal" in path.name]


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


Run = Callable[..., Tally]


@pytest.fixture
def run(folder: Path, out: Path, model: ModelFile) -> Run:
    """Sweep `folder` into `out`, in this process."""

    def call(stop: Any = lambda: None, progress: Any = lambda: None, **changes: Any) -> Tally:
        settings = Settings(**{"workers": 2, "isolate": False} | changes)
        with Sweep(folder, out, model, settings, stop=stop, progress=progress) as sweep:
            return sweep.run()

    return call


# The same content under another name


def test_a_copy_gets_its_row_and_its_mask_without_being_judged(
    run: Run, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    shutil.copy(folder / "a.png", folder / "ward" / "copy.png")
    (folder / "b.png").rename(folder / "moved.png")
    monkeypatch.setattr(LocalDecoder, "prepare", pytest.fail)
    assert run().judged == 2
    assert_whole(out, ["a.png", "b.png", "c.png", "ward/d.png", "moved.png", "ward/copy.png"])
    by_path = {row["path"]: row for row in rows(out)}
    for source, copy in (("a.png", "ward/copy.png"), ("b.png", "moved.png")):
        own = {"path", "mask", "scanned_at", "ms"}
        assert {k: v for k, v in by_path[source].items() if k not in own} == {
            k: v for k, v in by_path[copy].items() if k not in own
        }
        assert (out / by_path[source]["mask"]).read_bytes() == (out / by_path[copy]["mask"]).read_bytes()
    assert run().judged == 0


def test_a_copy_is_judged_where_the_mask_it_would_take_shows_another_picture(run: Run, folder: Path, out: Path) -> None:
    run()
    old = (out / mask_name("a.png")).read_bytes()
    (folder / "a.png").rename(folder / "kept.png")
    put(folder / "a.png", png(9))
    run()  # the mask of a.png shows the new picture now
    assert (out / mask_name("a.png")).read_bytes() != old
    assert (out / mask_name("kept.png")).read_bytes() == old


def test_a_failure_is_not_passed_on_to_a_copy(run: Run, folder: Path, out: Path) -> None:
    put(folder / "damaged.png", png()[:2000])
    run()
    put(folder / "copy.png", png()[:2000])
    assert run().problems == {Reason.DAMAGED: 1}
    assert len(rows(out)) == 6


# Once more


def test_again_replaces_rows_of_that_status_and_no_others(run: Run, folder: Path, out: Path) -> None:
    put(folder / "e.png", png(5))
    put(folder / "text.png", b"no radiograph")
    wide = io.BytesIO()
    Image.fromarray(draw(7, width=1200, height=1200).image).save(wide, "PNG")
    put(folder / "wide.png", wide.getvalue())
    first = run(memory=2**20)
    assert first.problems == {Reason.TOO_LARGE: 1, Reason.NOT_AN_IMAGE: 1}
    names = ["a.png", "b.png", "c.png", "e.png", "text.png", "ward/d.png", "wide.png"]
    assert_whole(out, names)
    again = run(again=frozenset({Status.FAILED}))
    assert (again.judged, again.known) == (2, 5)
    assert_whole(out, names)
    assert {row["path"]: row["status"] for row in rows(out)}["wide.png"] == "ok"
    assert paths(out)[-2:] == ["text.png", "wide.png"]
    everything = run(again=frozenset(Status))
    assert everything.judged == 7
    assert_whole(out, names)
    assert run().judged == 0


@pytest.mark.parametrize("step", ["marked", "written", "deleted"])
def test_a_crash_while_rows_are_replaced_costs_nothing(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """After the old rows were marked, after the CSV was written without them, after they were deleted."""
    run()
    before = {row["path"]: row["scanned_at"] for row in rows(out)}
    whole = Ledger._write_anew

    def crash(ledger: Ledger) -> None:
        if step == "deleted":
            whole(ledger)
        elif step == "written":
            (out / "verdicts.csv").write_bytes(b"".join(ledger._lines(with_replaced=False)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "_write_anew", crash)
        with pytest.raises(KeyboardInterrupt):
            run(again=frozenset(Status))
    assert run().judged == 0
    assert_whole(out, list(before))
    assert not list(out.glob("verdicts.edited-*"))


# Files that are being written


def test_a_young_file_is_judged_when_it_has_settled(run: Run, folder: Path) -> None:
    (folder / "a.png").touch()
    tally = run(settle=0.3)
    assert (tally.judged, tally.left) == (4, {})


def test_a_file_that_somebody_writes_to_is_left_for_the_next_time(
    run: Run, folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = put(folder / "growing.png", png()[:1000])

    def written_to(_: float) -> None:
        with growing.open("ab") as file:
            file.write(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", written_to)
        tally = run(settle=0.2)
    assert tally.left == {Left.CHANGING: 1}
    assert tally.exit_code is ExitCode.OK
    assert "growing.png" not in paths(out)
    put(growing, png(8))
    assert run(settle=0.1).judged == 1


def test_a_clock_that_jumps_keeps_nobody_waiting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back by ten years, every file is of the future; set forward, every file is old."""
    now = time.time_ns()
    for jump in (-10, 10):
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: now + jump * 365 * 86_400 * 10**9)
        found = discover(folder, leave_out=folder / "out", warn=lambda notice: pytest.fail(str(notice)))
        assert len(list(settled(found, 1e6, pytest.fail, lambda: False))) == 4


def test_a_clock_that_was_set_back_between_nights_changes_nothing(run: Run, folder: Path, out: Path) -> None:
    future = time.time_ns() + 10**18
    os.utime(folder / "b.png", ns=(future, future))
    run(settle=5.0)
    os.utime(folder / "a.png", ns=(1, 1))
    assert run().judged == 0
    assert_whole(out, ["a.png", "b.png", "c.png", "ward/d.png"])


def test_a_file_beside_the_walk_is_found_like_in_it(folder: Path) -> None:
    walked = {found.name: found for found in discover(folder, leave_out=folder / "out", warn=lambda _: None)}
    assert find(folder, folder / "ward" / "d.png") == walked["ward/d.png"]
    (folder / "link.png").symlink_to("a.png")
    assert find(folder, folder / "link.png") is find(folder, folder / "absent.png") is find(folder, folder) is None


# Places that go away


def test_a_share_that_goes_away_costs_no_row_and_the_next_night_goes_on(
    run: Run, folder: Path, out: Path, tmp_path: Path
) -> None:
    """An unmounted share leaves an empty folder, which is another one than before."""
    for seed in range(10, 30):
        put(folder / f"{seed}.png", png(seed))
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    seen = 0

    def unmount() -> None:
        nonlocal seen
        seen += 1
        if seen == 5:
            folder.rename(tmp_path / "elsewhere")
            folder.mkdir()

    tally = run(progress=unmount)
    assert (tally.stopped, tally.exit_code) == (Stop.FOLDER_GONE, ExitCode.SOME_FAILED)
    assert tally.statuses[Status.FAILED] == 0
    assert 5 <= len(paths(out)) < len(names)
    folder.rmdir()
    (tmp_path / "elsewhere").rename(folder)
    assert run().exit_code is ExitCode.OK
    assert_whole(out, names)


def test_a_share_that_goes_away_while_nothing_is_judged_is_said(run: Run, folder: Path, tmp_path: Path) -> None:
    run()

    def unmount() -> None:
        if folder.is_dir():
            folder.rename(tmp_path / "elsewhere")

    tally = run(progress=unmount)
    assert (tally.stopped, tally.judged, tally.exit_code) == (Stop.FOLDER_GONE, 0, ExitCode.SOME_FAILED)


def test_a_folder_that_cannot_be_listed_is_said_and_shows_in_the_exit_code(
    folder: Path, out: Path, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir, said = os.scandir, list[Notice]()

    def refuse(path: str) -> Any:
        if str(path).endswith("ward"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with Sweep(folder, out, model, Settings(isolate=False), warn=said.append) as sweep:
        tally = sweep.run()
    assert (tally.judged, tally.unseen, tally.exit_code) == (3, 1, ExitCode.SOME_FAILED)
    assert [notice.text for notice in said] == ["cannot be listed: Permission denied"]


# Decoders that die


def test_hostile_files_cost_a_row_each_and_the_others_are_judged(
    folder: Path, out: Path, model: ModelFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_pid, opened = os.getpid(), Image.open

    def hostile(file: io.BytesIO, *args: Any, **kwargs: Any) -> Image.Image:
        if os.getpid() != sweep_pid:  # else nobody would be left to tell
            data = file.read()
            file.seek(0)
            if b"crash-me" in data:
                os.kill(os.getpid(), signal.SIGSEGV)
            while b"hang-me" in data:
                pass
            if b"eat-memory" in data:
                bytearray(2**31)
        return opened(file, *args, **kwargs)

    monkeypatch.setattr(Image, "open", hostile)
    put(folder / "aa.png", png(5) + b"crash-me")
    put(folder / "bb.png", png(6) + b"hang-me")
    put(folder / "cc.png", png(7) + b"eat-memory")
    put(folder / "z.png", png(8))
    monkeypatch.setattr(Nursery, "decoder", lambda self: IsolatedDecoder(lambda: self._child(3.0)))
    with Sweep(folder, out, model, Settings(workers=2, memory=64 * 2**20)) as sweep:
        sweep.run()
    assert_whole(out, ["a.png", "aa.png", "b.png", "bb.png", "c.png", "cc.png", "ward/d.png", "z.png"])
    reasons = {row["path"]: row["reason_code"] for row in rows(out) if row["status"] == "failed"}
    assert reasons.pop("aa.png") == "decoder_crashed"
    assert reasons.pop("bb.png") == "timed_out"
    assert reasons.pop("cc.png") in ("too_large", "decoder_crashed")
    assert not reasons


def test_isolated_or_not_the_verdicts_are_the_same(folder: Path, out: Path, radiographs: list[Path]) -> None:
    for number, path in enumerate(radiographs):
        shutil.copy(path, folder / f"{number}{path.suffix}")
    results = []
    for option in ("--isolate", "--no-isolate"):
        target = out.with_name(out.name + option)
        assert scan(folder, "-o", target, option).returncode == 0
        results.append([row | {"ms": "", "scanned_at": ""} for row in rows(target)])
    assert results[0] == results[1]


# A budget of memory


def test_a_hundred_megapixels_wait_for_their_memory_or_are_refused_with_a_reason(folder: Path, out: Path) -> None:
    huge = io.BytesIO()
    Image.fromarray(draw(3, width=500, height=500).image).resize((10_000, 10_000)).save(huge, "PNG", compress_level=1)
    put(folder / "huge.png", huge.getvalue())
    assert scan(folder, "-o", out, "--memory", "64M").returncode == ExitCode.SOME_FAILED
    row = next(row for row in rows(out) if row["path"] == "huge.png")
    assert (row["status"], row["reason_code"]) == ("failed", "too_large")
    assert "of 64 MiB allowed (--memory)" in row["reason"]
    done = scan(folder, "-o", out, "--memory", "600M", "--again", "failed")
    assert done.returncode == 0, done.stderr
    row = next(row for row in rows(out) if row["path"] == "huge.png")
    assert (row["status"], row["width"]) == ("ok", "10000")
    with Image.open(out / row["mask"]) as mask:
        assert mask.size == (10_000, 10_000)
    assert_whole(out, ["a.png", "b.png", "c.png", "ward/d.png", "huge.png"])


# As cron and services run it


def test_its_time_is_over_and_the_next_night_goes_on(folder: Path, out: Path) -> None:
    for seed in range(10, 60):
        put(folder / f"{seed}.png", png(seed % 7) + bytes([seed]))
    done = scan(folder, "-o", out, "--limit-time", "0.01s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "stopped: its time was over" in done.stdout
    assert len(paths(out)) < 54
    scan(folder, "-o", out)
    assert len(paths(out)) == 54


def test_a_log_in_json_is_json_to_its_last_line(folder: Path, out: Path, tmp_path: Path) -> None:
    done = scan(folder, "-o", out, "--log-format", "json")
    swept = json.loads(done.stdout)
    assert (swept["judged"], swept["ok"], swept["level"], swept["message"]) == (4, 4, "info", "swept")
    (tmp_path / "empty").mkdir()
    done = scan(tmp_path / "empty", "-o", tmp_path / "none", "--log-format", "json")
    error = json.loads(done.stderr)
    assert (error["level"], error["exit_code"]) == ("error", 4)
    done = scan(folder, "-o", out, "--log-format", "json", "--model", "absent.tflite")
    assert json.loads(done.stderr)["exit_code"] == 5


def test_a_summary_fits_a_mail(folder: Path, out: Path) -> None:
    put(folder / "damaged.png", png()[:2000])
    done = scan(folder, "-o", out)
    assert done.stdout.count("\n") == 1
    for part in ("4 judged (", "1 failed (damaged 1)", "0 known", str(out / "verdicts.csv"), "never a diagnosis"):
        assert part in done.stdout


def test_names_are_hashed_on_request(folder: Path, out: Path) -> None:
    done = scan(folder, "-o", out, "--redact")
    assert "verdicts.csv" not in done.stdout + done.stderr
    assert hashlib.sha256(str(out / "verdicts.csv").encode()).hexdigest()[:12] in done.stdout


@pytest.mark.parametrize(
    "wrong", [["--memory", "much"], ["--memory", "10K"], ["--limit-time", "6"], ["--again", "ok"], ["--nice", "-5"]]
)
def test_options_that_make_no_sense_are_refused(folder: Path, out: Path, wrong: list[str]) -> None:
    done = scan(folder, "-o", out, *wrong)
    assert done.returncode == ExitCode.USAGE
    assert wrong[0] in done.stderr
    assert not out.exists()


def test_a_run_is_recorded(folder: Path, out: Path) -> None:
    scan(folder, "-o", out)
    scan(folder, "-o", out)
    records = [json.loads(path.read_text()) for path in sorted((out / "runs").iterdir())]
    assert sorted((record["files"]["judged"], record["files"]["known"]) for record in records) == [(0, 4), (4, 0)]


def test_a_drift_is_said_where_cron_mails_it(folder: Path, out: Path) -> None:
    scan(folder, "-o", out)
    (path,) = (out / "runs").iterdir()
    record = json.loads(path.read_text())
    record["files"]["judged"], record["statuses"], record["verdicts"] = 1000, {"ok": 1000}, {"normal": 1000}
    path.write_text(json.dumps(record))
    for number in range(25):
        put(folder / f"text{number}.png", b"no radiograph" + bytes([number]))
    done = scan(folder, "-o", out)
    assert "the verdicts drift: failed: 100% of the files, 0% in the runs before" in done.stderr


def test_watch_judges_what_arrives_however_it_arrives(folder: Path, out: Path, tmp_path: Path) -> None:
    (folder / "gone").mkdir()
    with started(folder, "-o", out, "--watch", "--settle", "0.5") as process:
        until(lambda: len(paths(out)) == 4)
        # Copied slowly, with pauses.
        with (folder / "slow.png").open("wb") as file:
            for start in range(0, len(png(5)), 4000):
                file.write(png(5)[start : start + 4000])
                file.flush()
                time.sleep(0.05)
        # Renamed in, alone and with its folder; deleted at once; a folder made here.
        put(tmp_path / "new" / "e.png", png(6)).rename(folder / "renamed.png")
        put(tmp_path / "new" / "f.png", png(7)).parent.rename(folder / "new")
        put(folder / "gone" / "short.png", png(8)).unlink()
        put(folder / "made" / "deep" / "g.png", png(9))
        until(lambda: len(paths(out)) == 8)
        second = scan(folder, "-o", out)
        assert second.returncode == ExitCode.LOCKED
        assert f"process {process.pid} on" in second.stderr
        put(folder / "last.png", png(10))
        until(lambda: "last.png" in paths(out))
        process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate()
    assert (process.returncode, complaints) == (ExitCode.INTERRUPTED, "")
    assert "stopped: interrupted" in said
    names = ["a.png", "b.png", "c.png", "ward/d.png", "slow.png", "renamed.png", "new/f.png", "made/deep/g.png"]
    assert_whole(out, [*names, "last.png"])
    assert {row["status"] for row in rows(out)} == {"ok"}
    (record,) = (out / "runs").iterdir()
    assert json.loads(record.read_text())["files"]["judged"] == 9


# kill -9


def test_killed_at_random_moments_and_resumed_each_time(folder: Path, out: Path) -> None:
    names = ["a.png", "b.png", "c.png", "ward/d.png"]
    dice = random.Random(4)
    for number in range(2 * KILLS):
        name = f"{number % 5}/{number:03d}.png"
        put(folder / name, png(number % 7) + number.to_bytes(2, "big"))
        names.append(name)
    killed = 0
    for _ in range(KILLS):
        with started(folder, "-o", out, "--settle", "0", "--workers", "2") as process:
            time.sleep(dice.uniform(0.15, 0.9))
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        for mask in (out / "masks").rglob("*.png"):
            with Image.open(mask) as image:
                image.load()
        if len(set(paths(out))) == len(names):  # so that the next sweep has something to do as well
            for name in dice.sample(names, 20):
                with (folder / name).open("ab") as file:
                    file.write(b"x")
    assert killed > KILLS // 4
    done = scan(folder, "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    current = {row["path"]: row for row in rows(out)}
    assert set(current) == set(names)
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    assert {name: row["sha256"] for name, row in current.items()} == digests
    assert len({(row["path"], row["sha256"]) for row in rows(out)}) == len(rows(out))
