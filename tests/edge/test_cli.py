"""`cxr-edge` as a clinic's box runs it: real processes, hostile folders, kills, full disks, exit codes."""

from __future__ import annotations

import csv
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from cxr_edge.cli import main
from cxr_edge.errors import ExitCode
from cxr_edge.model_file import SHIPPED
from cxr_edge.phantom import draw

SCRIPT = Path(sys.executable).with_name("cxr-edge")
Done = subprocess.CompletedProcess[str]


@cache
def pixels(seed: int = 0) -> NDArray[np.uint8]:
    return draw(seed, height=300, width=300).image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@cache
def png(seed: int = 0) -> bytes:
    return encoded(Image.fromarray(pixels(seed)), "PNG")


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def scan(*arguments: str | Path, **options: Any) -> Done:
    """Run `cxr-edge scan` as cron would: no terminal on any side."""
    command = [SCRIPT, "scan", "--settle", "0", *arguments]
    options = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "timeout": 120} | options
    return subprocess.run(command, check=False, **options)


@contextmanager
def started(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A running sweep, which does not outlive a failed test."""
    command = [SCRIPT, "scan", "--settle", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "verdicts.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def paths(out: Path) -> list[str]:
    return [row["path"].removeprefix("./") for row in rows(out)]


def masks_on_disk(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in (out / "masks").rglob("*") if path.is_file())


def assert_whole(out: Path, names: list[str]) -> None:
    """One row for each name, every mask opens and has its image's size, and nothing else lies about."""
    assert (out / "verdicts.csv").read_bytes().endswith(b"\r\n")
    assert Counter(paths(out)) == Counter(names)
    judged = [row for row in rows(out) if row["status"] == "ok"]
    for row in judged:
        with Image.open(out / row["mask"]) as mask:
            mask.load()
            assert mask.size == (int(row["width"]), int(row["height"]))
    assert masks_on_disk(out) == sorted(row["mask"] for row in judged)
    assert not [path for path in out.rglob("*") if "tmp" in path.name or "journal" in path.name]
    assert not list(out.glob("verdicts.edited-*"))


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait for a running sweep to have got somewhere; fail if it ended before."""
    while not condition():
        assert process.poll() is None, "the sweep ended before the test got hold of it"
        time.sleep(0.002)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two radiographs."""
    put(tmp_path / "in" / "a.png", png(0))
    put(tmp_path / "in" / "b.png", png(1))
    return tmp_path / "in"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


CROWD = [f"{i:03d}.png" for i in range(150)]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 radiographs, no two alike. For reading only."""
    folder = tmp_path_factory.mktemp("crowd")
    for i, name in enumerate(CROWD):
        changed = pixels().copy()
        changed[i // 10, i % 10] ^= 1
        put(folder / name, encoded(Image.fromarray(changed), "PNG", compress_level=1))
    return folder


# What a good night looks like


@pytest.mark.parametrize("command", [[], *([name] for name in main.commands)], ids=str)
def test_help(command: list[str]) -> None:
    done = subprocess.run([SCRIPT, *command, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: cxr-edge" in done.stdout
    assert "Exit codes: 0 " in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["scan", "--help"], ["--version"]], ids=str)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = "import sys; from cxr_edge.cli import main; main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert not {"numpy", "PIL", "rich", "sqlite3", "ai_edge_litert"} & set(done.stdout.split())


def test_a_night_writes_its_output_folder_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = os.environ | {"HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    before = {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir(), home]}
    done = scan("in", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"home", "in", "in-verdicts"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert_whole(tmp_path / "in-verdicts", ["a.png", "b.png"])
    assert str(tmp_path / "in-verdicts" / "verdicts.csv") in done.stdout
    assert "never a diagnosis" in done.stdout


def test_the_default_output_lies_beside_the_folder_however_it_is_named(folder: Path, tmp_path: Path) -> None:
    assert scan(".", cwd=folder).returncode == 0
    assert_whole(tmp_path / "in-verdicts", ["a.png", "b.png"])


def test_the_second_night_has_nothing_to_do(folder: Path, out: Path) -> None:
    assert scan(folder, "-o", out).returncode == 0
    before = (out / "verdicts.csv").read_bytes()
    done = scan(folder, "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "verdicts.csv").read_bytes() == before


def test_the_output_is_not_scanned_where_it_lies_in_the_folder(folder: Path) -> None:
    for _ in range(2):
        assert scan(folder, "-o", folder / "out").returncode == 0
    assert_whole(folder / "out", ["a.png", "b.png"])


def test_the_folder_itself_is_no_output_or_never_scans_what_it_wrote(folder: Path) -> None:
    for _ in range(2):
        assert scan(folder, "-o", folder).returncode in (ExitCode.OK, ExitCode.USAGE)
    if (folder / "verdicts.csv").exists():
        assert paths(folder) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", [b"R\xf6ntgen", b"ward [/b]", b"[red]", b"\n"], ids=ascii)
def test_a_folder_may_have_any_name(tmp_path: Path, name: bytes) -> None:
    folder = tmp_path / os.fsdecode(name)
    put(folder / "a.png", png())
    done = scan(folder, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}, errors="surrogateescape")
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(tmp_path / os.fsdecode(name + b"-verdicts"), ["a.png"])


def test_a_stdout_that_cannot_be_written_is_no_bug(folder: Path, out: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = scan(folder, "-o", out, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode != ExitCode.BUG
    assert "Traceback" not in done.stderr
    assert_whole(out, ["a.png", "b.png"])


def test_a_reader_of_stdout_that_has_left_is_no_bug(folder: Path, out: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = scan(folder, "-o", out, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert done.returncode != ExitCode.BUG
    assert "Traceback" not in done.stderr
    assert_whole(out, ["a.png", "b.png"])


# The hostile folder


def dicom() -> bytes:
    """A DICOM file with a few bytes too many, of which decoders like to warn."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["test"])
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.PatientName = "Doe^Jane"
    dataset.Rows = dataset.Columns = 300
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelData = pixels().tobytes() + bytes(64)
    content = io.BytesIO()
    dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def jpeg_with_broken_exif() -> bytes:
    jpeg = encoded(Image.fromarray(pixels()), "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(8)  # 65535 entries, of which there is not one
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]


def hostile_folder() -> dict[bytes, tuple[bytes, str, str]]:
    """Name, content, status and reason code that the row must have."""
    picture = Image.fromarray(pixels())
    wide = Image.fromarray(pixels().astype(np.uint16) * 257)
    damaged, rejected, good = ("failed", "damaged"), ("rejected", "too_small"), ("ok", "")
    return {
        b"ward-a/0001.png": (png(1), *good),
        b"ward-a/0002.jpg": (encoded(picture, "JPEG"), *good),
        b"ward-b/0001.png": (png(2), *good),
        b"UPPER.PNG": (png(3), *good),
        b"no extension": (png(4), *good),
        b"wrong.jpg": (png(5), *good),
        b"sixteen bit.png": (encoded(wide, "PNG"), *good),
        b"cmyk.jpg": (encoded(picture.convert("CMYK"), "JPEG"), *good),
        b"broken exif.jpg": (jpeg_with_broken_exif(), *good),
        b"patient.dcm": (dicom(), *good),
        b"truncated.jpg": (encoded(picture, "JPEG")[:3000], *damaged),
        b"truncated.png": (png()[:3000], *damaged),
        b"header only.png": (png()[:8], *damaged),
        b"empty.png": (b"", "failed", "empty_file"),
        b"text.png": (b"no radiograph, whatever the name says\n", "failed", "not_an_image"),
        b"pixel.png": (encoded(Image.new("L", (1, 1)), "PNG"), *rejected),
        b"black.png": (encoded(Image.new("L", (300, 300)), "PNG"), "rejected", "blank"),
        b"x.png/in a folder.png": (png(6), *good),
        b"line\nbreak.png": (png(7), *good),
        b"carriage\rreturn.png": (png(7), *good),
        b'quote".png': (png(8), *good),
        b"comma,.png": (png(9), *good),
        b"=1+1.png": (png(10), *good),
        b" ": (png(11), *good),
        b"latin-\xe9.png": (png(12), *good),
        "ümläut-中.png".encode(): (png(13), *good),
        b"n" * 251 + b".png": (png(14), *good),
    }


class Night:
    """The hostile folder, scanned once."""

    def __init__(self, parent: Path) -> None:
        self.folder, self.out, self.files = parent / "in", parent / "out", hostile_folder()
        for name, (content, _, _) in self.files.items():
            put(self.folder / os.fsdecode(name), content)
        (self.folder / "empty folder.png").mkdir()
        (self.folder / "link.png").symlink_to("UPPER.PNG")
        self.done = scan(self.folder, "-o", self.out)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    return Night(tmp_path_factory.mktemp("hostile"))


def test_the_hostile_folder_is_judged_to_its_end(night: Night) -> None:
    assert night.done.returncode == ExitCode.SOME_FAILED, night.done.stderr
    assert_whole(night.out, [name.decode("utf-8", "backslashreplace") for name in night.files])


def test_every_hostile_file_gets_the_row_that_it_deserves(night: Night) -> None:
    expected = {
        name.decode("utf-8", "backslashreplace"): (status, code) for name, (_, status, code) in night.files.items()
    }
    codes = {row["path"].removeprefix("./"): (row["status"], row["reason_code"]) for row in rows(night.out)}
    assert {name: (status, "" if status == "ok" else code) for name, (status, code) in codes.items()} == expected


def test_no_failed_or_rejected_row_can_look_like_a_verdict(night: Night) -> None:
    without = [row for row in rows(night.out) if row["status"] != "ok"]
    assert without
    for row in without:
        numbers = [value for key, value in row.items() if key.startswith("p_")]
        assert len(numbers) >= 2
        assert not any([row["verdict"], row["confidence"], row["mask"], row["lung_area_pct"], *numbers])
        assert row["reason_code"]
        assert row["reason"]


def test_every_ok_row_is_complete(night: Night) -> None:
    for row in rows(night.out):
        if row["status"] == "ok":
            total = sum(float(value) for key, value in row.items() if key.startswith("p_"))
            assert total == pytest.approx(1, abs=0.01)
            assert all(row[key] for key in ("verdict", "confidence", "mask", "sha256", "model", "scanned_at", "ms"))


def test_the_hostile_folder_leaves_cron_in_peace(night: Night) -> None:
    assert night.done.stderr == ""
    assert "never a diagnosis" in night.done.stdout
    assert "\x1b" not in night.done.stdout


def test_no_name_of_a_patient_gets_out(night: Night) -> None:
    everything = (night.out / "verdicts.csv").read_text(encoding="utf-8") + night.done.stdout + night.done.stderr
    assert "Doe" not in everything


def test_the_hostile_folder_is_known_the_next_night(night: Night) -> None:
    before = (night.out / "verdicts.csv").read_bytes()
    scan(night.folder, "-o", night.out)
    assert (night.out / "verdicts.csv").read_bytes() == before


# Exit codes


def assert_says(done: Done, code: ExitCode, *words: str) -> None:
    """One sentence and a remedy on stderr, no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_2_no_such_folder(tmp_path: Path) -> None:
    assert_says(scan(tmp_path / "absent"), ExitCode.USAGE, "does not exist")


def test_2_a_file_is_no_folder(folder: Path) -> None:
    assert_says(scan(folder / "a.png"), ExitCode.USAGE, "is a file")


@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--bogus"]], ids=str)
def test_2_wrong_options(folder: Path, wrong: list[str]) -> None:
    assert_says(scan(folder, *wrong), ExitCode.USAGE, wrong[0])


def test_2_verdicts_of_a_model_with_other_labels(folder: Path, out: Path) -> None:
    from cxr_edge.ledger import Ledger

    out.mkdir()
    with Ledger(out, ("cat", "dog"), "0" * 12):
        pass
    assert_says(scan(folder, "-o", out), ExitCode.USAGE, "other labels", "try:")


def test_4_an_empty_folder(folder: Path, out: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    assert_says(scan(folder, "-o", out), ExitCode.NOTHING_FOUND, str(folder), "try:")


def test_4_a_folder_of_text_files(folder: Path, out: Path) -> None:
    for path in folder.iterdir():
        path.write_text("no radiograph")
    assert_says(scan(folder, "-o", out), ExitCode.NOTHING_FOUND, str(folder), "2 other files")
    assert paths(out) == ["a.png", "b.png"]


def test_5_a_missing_model(folder: Path, out: Path) -> None:
    assert_says(scan(folder, "-o", out, "--model", "absent.tflite"), ExitCode.MODEL_REFUSED, "absent.tflite", "try:")
    assert not out.exists()


def test_5_a_damaged_model(folder: Path, out: Path) -> None:
    content = bytearray(SHIPPED.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = put(out.with_name("damaged.tflite"), bytes(content))
    assert_says(scan(folder, "-o", out, "--model", damaged), ExitCode.MODEL_REFUSED, "damaged", "try:")
    assert not out.exists()


@pytest.mark.parametrize("place", ["{file}", "{file}/below", "/dev/full/below", "/proc/cxr-edge"])
def test_6_an_output_that_cannot_be(folder: Path, place: str) -> None:
    done = scan(folder, "-o", place.format(file=folder / "a.png"))
    assert_says(done, ExitCode.OUTPUT_UNWRITABLE, "cannot be written", "try:")
    assert (folder / "a.png").read_bytes() == png(0)


@pytest.mark.parametrize("kilobytes", [0, 1, 8, 28, 40])
def test_6_a_limit_on_file_sizes(crowd: Path, out: Path, kilobytes: int) -> None:
    """The disk refuses ever later: the lock, the header, the ledger, rows. No privilege is needed for this one."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, kilobytes * 1024))

    done = scan(crowd, "-o", out, preexec_fn=limit)
    assert_says(done, ExitCode.OUTPUT_UNWRITABLE, "cannot be written", "try:")
    assert scan(crowd, "-o", out).returncode == 0
    assert_whole(out, CROWD)


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """Mount a RAM disk at `place`, which only root may do."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        assert os.geteuid() != 0 or "denied" in mounted.stderr or "permitted" in mounted.stderr
        pytest.skip(f"only root may mount a small disk: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("full_from_the_start", [False, True])
def test_6_a_full_disk_and_the_night_after_it_is_freed(crowd: Path, out: Path, full_from_the_start: bool) -> None:
    with small_disk(out, kilobytes=256):
        ballast = out / ".ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass
        assert shutil.disk_usage(out).free == 0
        if not full_from_the_start:
            os.truncate(ballast, 4096)
        done = scan(crowd, "-o", out)
        assert_says(done, ExitCode.OUTPUT_UNWRITABLE, str(out), "No space left", "free some space")
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=16m", out], check=True)
        assert scan(crowd, "-o", out).returncode == 0
        assert_whole(out, CROWD)


def test_7_an_output_that_another_sweep_holds(crowd: Path, out: Path) -> None:
    with started(crowd, "-o", out, "--workers", "1") as first:
        until((out / "verdicts.csv").exists, first)
        first.send_signal(signal.SIGSTOP)
        before = (out / "verdicts.csv").read_bytes()
        second = scan(crowd, "-o", out)
        assert_says(second, ExitCode.LOCKED, "held by another sweep", f"process {first.pid} on", "try:")
        assert (out / "verdicts.csv").read_bytes() == before
        first.send_signal(signal.SIGCONT)
        assert first.wait() == 0
    assert_whole(out, CROWD)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_130_interrupted(crowd: Path, out: Path, number: signal.Signals) -> None:
    with started(crowd, "-o", out, "--workers", "1") as process:
        until(lambda: (out / "masks").exists() and masks_on_disk(out), process)
        process.send_signal(number)
        summary, complaints = process.communicate()
    assert (process.returncode, complaints) == (ExitCode.INTERRUPTED, "")
    assert "stopped: interrupted" in summary
    judged = paths(out)
    assert 0 < len(judged) < len(CROWD)
    assert_whole(out, CROWD[: len(judged)])
    assert scan(crowd, "-o", out).returncode == 0
    assert_whole(out, CROWD)


# kill -9


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_kill_9_at_any_moment_costs_nothing(crowd: Path, out: Path) -> None:
    dice, kills = random.Random(9), 0
    table, lock = out / "verdicts.csv", out / ".lock"
    # Half of the kills at any moment of the sweep, the others just after rows were written, around their commit.
    for moment in ["any", "rows"] * 4:
        before = size_of(table)
        with started(crowd, "-o", out, "--workers", "2") as process:
            mine = f"process {process.pid} "
            while process.poll() is None and not (lock.exists() and lock.read_text().startswith(mine)):
                time.sleep(0.001)
            while process.poll() is None and moment == "rows" and size_of(table) <= before:
                time.sleep(0.0005)
            time.sleep(dice.uniform(0, 0.01 if moment == "rows" else 0.4))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
        if out.exists() and (out / "masks").exists():
            for name in masks_on_disk(out):
                with Image.open(out / name) as mask:
                    mask.load()
    assert kills >= 2
    done = scan(crowd, "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert_whole(out, CROWD)
