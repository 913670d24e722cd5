"""`cxr-edge scan` beside plain Keras `predict`, over the same 1024 px PNGs, interleaved in one run.

Prints the machine, medians with minimum and maximum, and ratios of the medians. The Keras model has the architecture
of the shipped one with random weights: weights change neither time nor memory. scan also hashes each file, writes a
full-size mask for each picture and keeps its ledger; the Keras scripts only write a label for each.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from cxr_edge import phantom

HERE = Path(__file__).parent
DATA = Path(os.environ.get("CXR_DATA", HERE.parents[1] / "shared" / "data"))


@dataclass(frozen=True)
class Round:
    """One run of one contender: seconds of the whole process, of the work without start-up, and peak memory in MiB."""

    whole: float
    work: float
    peak: float


def fill(folder: Path, pictures: int) -> str:
    """Fill `folder` with 1024 px PNGs, real ones where there are any, each with its own content; say which."""
    folder.mkdir()
    real = sorted((DATA / "originals" / "nih_png_1024").glob("*.png"))
    drawn = [Image.fromarray(phantom.draw(seed).image) for seed in range(0 if real else 24)]
    for number in range(pictures):
        image = Image.open(real[number % len(real)]).convert("L") if real else drawn[number % len(drawn)]
        pixels = np.array(image)
        pixels[0, : number // 24 + 1] ^= 1
        Image.fromarray(pixels).save(folder / f"{number:05}.png")
    return "NIH ChestX-ray8 PNGs" if real else "phantoms"


def measure(command: list[str]) -> Round:
    """Run a process to its end; peak memory is the kernel's count for that process."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        start = os.times().elapsed
        _, status, usage = os.wait4(process.pid, 0)
        whole = os.times().elapsed - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} left with {process.returncode}")
    work = re.search(r"^(?:time|seconds)\s+([\d.]+)", text, re.MULTILINE)
    assert work, text
    return Round(whole, float(work[1]), usage.ru_maxrss / 1024)


def machine() -> str:
    """One line: processor, cores, Python and the versions that matter."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("ai-edge-litert", "tensorflow", "pillow"))
    return f"{model}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {versions}"


@click.command()
@click.option("--pictures", default=480, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(pictures: int, rounds: int) -> None:
    """Compare cxr-edge scan with Keras predict on the same pictures."""
    console = Console(width=110, highlight=False)
    with tempfile.TemporaryDirectory() as temp:
        folder, model = Path(temp) / "incoming", Path(temp) / "model.keras"
        kind = fill(folder, pictures)
        build = "from cxr_train import network, presets; network.build(presets.Settings(weights=None), 3).model.save"
        subprocess.run([sys.executable, "-c", f"{build}({str(model)!r})"], check=True, capture_output=True)
        out = Path(temp) / "out"
        keras = [sys.executable, str(HERE / "keras_predict.py")]
        scan = [str(Path(sys.executable).with_name("cxr-edge")), "scan", str(folder), "-o", str(out)]
        contenders = {
            "cxr-edge scan": scan,
            "Keras predict, generator": [*keras, "generator", str(model), str(folder), f"{temp}/generator.csv"],
            "Keras predict, one by one": [*keras, "loop", str(model), str(folder), f"{temp}/loop.csv"],
        }
        results: dict[str, list[Round]] = {name: [] for name in contenders}
        for _ in range(rounds):
            for name, command in contenders.items():
                shutil.rmtree(out, ignore_errors=True)
                results[name].append(measure(command))

    console.print(machine(), f"\n{pictures} {kind}, 1024 x 1024, 8 bit; {rounds} rounds, interleaved", markup=False)
    table = Table("", "images/s", "images/s with start-up", "peak memory, MiB")
    for name, some in results.items():
        columns = ([pictures / r.work for r in some], [pictures / r.whole for r in some], [r.peak for r in some])
        table.add_row(name, *(f"{statistics.median(c):.1f} ({min(c):.1f}-{max(c):.1f})" for c in columns))
    console.print(table)
    ours, *theirs = results
    for name in theirs:
        rate = median_ratio(results[name], results[ours], "work")
        whole = median_ratio(results[name], results[ours], "whole")
        memory = median_ratio(results[name], results[ours], "peak")
        sentence = f"{rate:.1f} times the rate ({whole:.1f} with start-up), 1/{memory:.1f} of the memory"
        console.print(f"{ours} against {name}: {sentence}")


def median_ratio(theirs: list[Round], ours: list[Round], figure: str) -> float:
    """Median of theirs over median of ours."""
    return float(
        statistics.median(getattr(r, figure) for r in theirs) / statistics.median(getattr(r, figure) for r in ours)
    )


if __name__ == "__main__":
    main()
