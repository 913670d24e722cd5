"""`cxr-edge bench`: what its reports hold, how it leaves, and that it leaves nothing behind. No time is looked at."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr_edge import machine
from cxr_edge.bench import against, figures, pictures, plot, tables
from cxr_edge.bench.figures import EngineFacts, Figures, ModelFacts, PictureFacts, Quantiles, Spread, Sweep
from cxr_edge.bench.run import Reports
from cxr_edge.errors import ExitCode, OutputUnwritable, UsageError
from cxr_edge.machine import Machine
from cxr_edge.phantom import draw

SCRIPT = Path(sys.executable).with_name("cxr-edge")
MADE_UP = Figures(
    version="0.1.0",
    measured_at="2026-01-01T00:00:00Z",
    machine=Machine("A box", ("neon", "asimddp"), 4, 4096.0, None, "Linux 6 aarch64", "CPython 3.11.2"),
    disk="ext4",
    engine=EngineFacts("ai-edge-litert", "2.3.0", 1, "XNNPACK in 2 parts"),
    model=ModelFacts("a-model", "0123456789ab", 224, 224),
    pictures=PictureFacts("a sample of incoming", 48, 46, 1.05, 350.0),
    start_ms={name: Spread(400.0, 390.0, 450.0) for name in ("help", "first verdict", "model load")},
    steps_ms={name: Quantiles(100, 5.0, 4.0, 9.0, 12.0) for name in figures.STEPS}
    | {"judge": Quantiles(100, 0.2, 0.1, 0.3, 0.4)},
    image_ms=Spread(35.0, 33.0, 36.0),
    computing_ms=Spread(30.0, 29.0, 31.0),
    sweeps=tuple(Sweep(n, 48 * n, Spread(27.0 * n, 26.0 * n, 28.0 * n), 0.95, 60.0 + 20 * n) for n in (1, 2, 3, 4)),
    notes=("made up",),
)


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [SCRIPT, "bench", "--seconds", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, **options)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def incoming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small radiographs, a file that is none, and a hidden one."""
    folder = tmp_path_factory.mktemp("clinic") / "incoming"
    (folder / "ward").mkdir(parents=True)
    for seed, name in enumerate(("a.png", "b.jpg", "ward/c.png")):
        Image.fromarray(draw(seed, height=300, width=340).image).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"being copied")
    return folder


@pytest.fixture(scope="module")
def measured(incoming: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """One bench on `incoming`: what it printed, its JSON, and its plot."""
    reports = tmp_path_factory.mktemp("reports")
    before = everything_in(incoming.parent)
    done = run(incoming, "--json", reports / "bench.json", "--plot", reports / "bench.png")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert everything_in(incoming.parent) == before, "the bench left something behind"
    assert [path.name for path in incoming.parent.iterdir()] == ["incoming"]
    return done.stdout, json.loads((reports / "bench.json").read_text()), reports / "bench.png"


# a whole run


def test_every_step_has_its_quantiles(measured: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = measured
    assert list(report["steps_ms"]) == list(figures.STEPS)
    passes = report["steps_ms"]["read"]["n"] // 4
    for name, step in report["steps_ms"].items():
        assert 0 < step["p50"] <= step["p95"] <= step["p99"]
        # The text file is read, refused by the decoder, and recorded.
        assert step["n"] == (4 if name in ("read", "decode", "record") else 3) * passes
    assert report["image_ms"]["least"] <= report["image_ms"]["median"] <= report["image_ms"]["most"]
    assert report["computing_ms"]["median"] > 0


def test_it_measured_what_it_was_given(measured: tuple[str, dict[str, Any], Path], incoming: Path) -> None:
    _, report, _ = measured
    assert report["pictures"] | {"megapixels": 0, "kilobytes": 0} == {
        "origin": f"a sample of {incoming}",
        "files": 4,
        "judged": 3,
        "megapixels": 0,
        "kilobytes": 0,
    }
    assert report["pictures"]["megapixels"] == pytest.approx(0.102)
    assert report["engine"]["threads"] == 1
    assert report["engine"]["kernels"].startswith("XNNPACK")
    assert len(report["model"]["digest"]) == 12
    assert report["machine"]["cores"] == machine.cores()


def test_it_sweeps_on_one_to_all_cores(measured: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = measured
    assert [sweep["cores"] for sweep in report["sweeps"]] == figures.core_counts(machine.cores())
    for sweep in report["sweeps"]:
        assert sweep["files"] % 4 == 0
        assert sweep["images_per_second"]["median"] > 0
        # More than Python with numpy alone, less than anything that would hold the folder.
        assert 30 < sweep["peak_mib"] < 1000
        bound = report["bound_images_per_second"][str(sweep["cores"])]
        assert bound == pytest.approx(1000 * sweep["cores"] / report["image_ms"]["median"])
    assert set(report["start_ms"]) == {"help", "first verdict", "model load"}


def test_the_plan_follows_from_all_cores(measured: tuple[str, dict[str, Any], Path]) -> None:
    _, report, _ = measured
    rate = report["sweeps"][-1]["images_per_second"]["median"]
    assert report["images_per_hour"] == pytest.approx(3600 * rate)
    assert [line["files"] for line in report["plan"]] == [1_000, 10_000, 100_000, 1_000_000]
    for line in report["plan"]:
        assert line["hours"] == pytest.approx(line["files"] / rate / 3600)
        assert 8 * (line["nights_of_8_h"] - 1) <= line["hours"] <= 8 * line["nights_of_8_h"]


def test_the_terminal_shows_the_same(measured: tuple[str, dict[str, Any], Path]) -> None:
    said, report, _ = measured
    assert report["machine"]["cpu"] in said
    assert report["engine"]["kernels"] in said
    for name in (*figures.STEPS, "first verdict", "bound by parts", "peak memory", "1,000,000"):
        assert name in said
    assert f"{report['steps_ms']['decode']['p95']:.2f}" in said
    assert "never a diagnosis" in said


def test_the_plot_is_a_png_with_something_on_it(measured: tuple[str, dict[str, Any], Path]) -> None:
    _, _, file = measured
    with Image.open(file) as image:
        assert (image.format, image.size) == ("PNG", plot.SIZE)
        levels = np.asarray(image)
    assert {(255, 255, 255), (0x2F, 0x6F, 0xB0), (0xD9, 0x82, 0x2B)} <= {tuple(p) for p in levels.reshape(-1, 3)[::3]}


def test_without_a_folder_it_says_that_phantoms_were_drawn(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "--json", tmp_path / "bench.json")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert "note: measured on phantoms" in done.stdout
    report = json.loads((tmp_path / "bench.json").read_text())
    assert 0 < report["pictures"]["judged"] <= pictures.PHANTOMS
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


# how it leaves when it cannot measure


def test_an_empty_folder(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == ExitCode.NOTHING_FOUND
    assert "holds no file" in done.stderr


def test_a_model_that_is_none(incoming: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(b"nothing")
    done = run(incoming, "--model", tmp_path / "model.tflite")
    assert done.returncode == ExitCode.MODEL_REFUSED
    assert "not a TFLite model" in done.stderr


def test_a_disk_that_cannot_be_written(incoming: Path) -> None:
    done = run(incoming, "-o", "/proc")
    assert done.returncode in (ExitCode.OUTPUT_UNWRITABLE, ExitCode.USAGE)  # usage where there is no /proc
    assert "Traceback" not in done.stderr


def test_a_report_without_a_folder_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="its folder does not exist"):
        Reports(tmp_path / "none" / "bench.json", None, None, 1.2)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "cxr-edge bench", "format_version": 99}', "\N{LATIN SMALL LETTER E WITH ACUTE}"],
)
def test_an_earlier_report_that_is_none_is_usage(incoming: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "earlier.json").write_text(content, encoding="latin-1")
    done = run(incoming, "--against", tmp_path / "earlier.json")
    assert done.returncode == ExitCode.USAGE
    assert "earlier.json" in done.stderr
    assert "try: give a file that cxr-edge bench --json has written" in done.stderr


# against an earlier bench


def earlier_than(now: Figures, tmp_path: Path, **changes: Any) -> Path:
    """The report of a bench that differs in what is named."""
    path = tmp_path / "earlier.json"
    path.write_text(figures.to_json(replace(now, **changes)))
    return path


def give(tmp_path: Path, earlier: Path, threshold: float = 1.2) -> ExitCode:
    code = Reports(tmp_path / "now.json", tmp_path / "now.png", earlier, threshold).give(MADE_UP)
    assert json.loads((tmp_path / "now.json").read_text())["format"] == figures.FORMAT
    return code


def test_against_itself_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert give(tmp_path, earlier_than(MADE_UP, tmp_path), threshold=1.0) is ExitCode.OK
    said = capsys.readouterr().out
    assert "the same" in said
    assert "worse" not in said
    assert "differs" not in said


def test_a_slower_sweep_leaves_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faster = tuple(replace(each, images_per_second=Spread(130.0, 120.0, 140.0)) for each in MADE_UP.sweeps)
    earlier = earlier_than(MADE_UP, tmp_path, sweeps=faster)
    assert give(tmp_path, earlier) == 1
    assert "PAST IT" in capsys.readouterr().out
    # 130 images/s before, 27 on one core now.
    assert give(tmp_path, earlier, threshold=5.0) is ExitCode.OK


def test_more_memory_leaves_with_1(tmp_path: Path) -> None:
    smaller = tuple(replace(each, peak_mib=each.peak_mib / 1.3) for each in MADE_UP.sweeps)
    earlier = earlier_than(MADE_UP, tmp_path, sweeps=smaller)
    assert give(tmp_path, earlier) == 1
    assert give(tmp_path, earlier, threshold=1.31) is ExitCode.OK


def test_what_became_better_is_no_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = {
        "image_ms": Spread(350.0, 330.0, 360.0),
        "sweeps": tuple(
            replace(each, images_per_second=Spread(1.0, 1.0, 1.0), peak_mib=900.0) for each in MADE_UP.sweeps
        ),
    }
    assert give(tmp_path, earlier_than(MADE_UP, tmp_path, **worse)) is ExitCode.OK
    assert "10.00 x better" in capsys.readouterr().out


def test_a_step_too_short_to_tell_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = MADE_UP.steps_ms | {"judge": Quantiles(100, 0.02, 0.01, 0.02, 0.02)}
    assert give(tmp_path, earlier_than(MADE_UP, tmp_path, steps_ms=quick)) is ExitCode.OK
    said = capsys.readouterr().out
    assert "10.00 x worse" in said
    assert "too short to tell" in said
    quick = MADE_UP.steps_ms | {"decode": Quantiles(100, 0.4, 0.4, 0.4, 0.4)}
    assert give(tmp_path, earlier_than(MADE_UP, tmp_path, steps_ms=quick)) == 1


def test_another_machine_and_model_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = replace(MADE_UP.machine, cpu="Another box", cores=2)
    earlier = earlier_than(MADE_UP, tmp_path, machine=other, model=replace(MADE_UP.model, digest="f" * 12))
    give(tmp_path, earlier)
    said = capsys.readouterr().out
    assert "differs: machine cpu: Another box before, A box now" in said
    assert "differs: model digest: ffffffffffff before, 0123456789ab now" in said


def test_only_what_both_have_is_compared() -> None:
    before = json.loads(figures.to_json(replace(MADE_UP, sweeps=MADE_UP.sweeps[:1])))
    names = [change.name for change in against.compare(before, figures.to_dict(MADE_UP))]
    assert "sweep on 1 core" in names
    assert "sweep on 2 cores" not in names


@pytest.mark.parametrize("change", [{"sweeps": None}, {"image_ms": {}}, {"image_ms": {"median": 0}}, {"steps_ms": 3}])
def test_a_report_with_holes_is_usage(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the earlier report"):
        against.compare(figures.to_dict(MADE_UP) | change, figures.to_dict(MADE_UP))


# the figures


@given(st.lists(st.floats(min_value=0.001, max_value=1e6), min_size=1, max_size=300))
def test_quantiles_are_samples_in_order(samples: list[float]) -> None:
    found = figures.quantiles(samples)
    assert {found.p50, found.p95, found.p99} <= set(samples)
    assert min(samples) <= found.p50 <= found.p95 <= found.p99 <= max(samples)
    for quantile, share in ((found.p50, 0.5), (found.p95, 0.95), (found.p99, 0.99)):
        assert sum(sample <= quantile for sample in samples) >= share * len(samples)


def test_quantiles_of_a_hundred() -> None:
    assert figures.quantiles(range(100, 0, -1)) == Quantiles(100, 50.5, 50, 95, 99)


@pytest.mark.parametrize(
    ("cores", "counts"),
    [
        (1, [1]),
        (2, [1, 2]),
        (4, [1, 2, 3, 4]),
        (6, [1, 2, 3, 4, 6]),
        (8, [1, 2, 3, 4, 8]),
        (20, [1, 2, 3, 4, 8, 16, 20]),
    ],
)
def test_core_counts(cores: int, counts: list[int]) -> None:
    assert figures.core_counts(cores) == counts


def test_nights_are_whole() -> None:
    """10 images a second: 36,000 an hour, 288,000 a night."""
    assert [nights for _, _, nights in figures.plan(10.0)] == [1, 1, 1, 4]


@pytest.mark.parametrize(
    ("hours", "says"), [(1 / 3600, "1 s"), (59 / 3600, "59 s"), (0.5, "30.0 min"), (2.75, "2.8 h"), (100, "100.0 h")]
)
def test_durations(hours: float, says: str) -> None:
    assert tables.duration(hours) == says


@given(st.floats(min_value=1e-3, max_value=1e7))
def test_ticks_are_few_and_reach_the_top(top: float) -> None:
    ticks = plot.nice_ticks(top)
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 12
    assert ticks[-2] < top <= ticks[-1] * (1 + 1e-6)


@pytest.mark.parametrize("cores", [1, 64])
def test_a_plot_of_few_and_of_many_cores(cores: int) -> None:
    sweeps = tuple(replace(MADE_UP.sweeps[0], cores=n) for n in figures.core_counts(cores))
    with Image.open(io.BytesIO(plot.png(replace(MADE_UP, sweeps=sweeps)))) as image:
        image.load()
        assert image.size == plot.SIZE


# the machine


@pytest.mark.parametrize(
    ("cpuinfo", "cpu", "instructions"),
    [
        ("model name\t: A CPU\nflags\t\t: fpu avx2 avx512_vnni avx2x\n", "A CPU", ("avx2", "avx512_vnni")),
        ("Features\t: fp asimd asimddp\n\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5", ("asimd", "asimddp")),
        ("", None, ()),
    ],
)
def test_the_processor(tmp_path: Path, cpuinfo: str, cpu: str | None, instructions: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    (tmp_path / "meminfo").write_text("MemTotal:        1024 kB\nHugePages_Total:  0\n")
    found = machine.look(tmp_path, tmp_path)
    assert found.cpu == cpu or (cpu is None and found.cpu)
    assert found.instructions == instructions
    assert found.memory_mib == 1
    assert found.limit_mib is None


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    inside = tmp_path / "a disk"
    inside.mkdir()
    mounts = f"/dev/root / ext4 rw 0 0\nshare {str(tmp_path).replace(' ', chr(92) + '040')}/a\\040disk nfs4 rw 0 0\n"
    (tmp_path / "self/mounts").write_text(mounts)
    assert machine.filesystem(inside, tmp_path) == "nfs4"
    assert machine.filesystem(tmp_path, tmp_path) == "ext4"


# the sample


def test_the_sample_is_the_same_each_time_and_small(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number}.png").write_bytes(b"%d" % number)
    first, second = (pictures.sample(folder, tmp_path / name) for name in ("a", "b"))
    assert len(first) == pictures.SAMPLE
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert len({path.read_bytes() for path in first}) == pictures.SAMPLE


def test_large_files_make_a_smaller_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SAMPLE_BYTES", 250)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.png").write_bytes(bytes(100))
    assert len(pictures.sample(folder, tmp_path / "out")) == 2


@pytest.mark.parametrize("links", [True, False])
def test_repeating_needs_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def none(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", none)
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text(name)
    pictures.repeat([tmp_path / "a.png", tmp_path / "b.jpg"], 5, tmp_path / "many")
    made = sorted((tmp_path / "many").iterdir())
    assert [path.read_text() for path in made] == ["a.png", "b.jpg", "a.png", "b.jpg", "a.png"]
