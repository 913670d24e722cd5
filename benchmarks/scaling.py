"""How a sweep grows: with the number of files, first and second night; with the size of pictures; and how it starts.

Run from the repository's root, on Linux: python -m benchmarks.scaling
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
import tempfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks import figures, measure, pictures
from benchmarks.side_by_side import machine
from cxr_edge import phantom
from cxr_edge.bench.figures import Spread, spread

FOLDER_FILES = 1000
"""Files in each folder of many."""
MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0, 40.0)
COPIES = 24
"""Radiographs of each size, or among tiny files."""
COMMAND = Path(sys.executable).with_name("cxr-edge")


@dataclass(frozen=True)
class Nights:
    """A first and a second sweep of so many files: seconds of the whole process, and peak MiB of all its processes."""

    files: int
    first: float
    first_peak: float
    second: float
    second_peak: float


@dataclass(frozen=True)
class OfSize:
    """Sweeps of pictures of one size: images a second, start-up left out, and peak MiB of all its processes."""

    megapixels: float
    rate: Spread
    peak: float


def tiny(number: int) -> bytes:
    """A PNG of 32 x 32 pixels, no two with the same bytes: read, hashed, decoded as far as its header, recorded."""
    header = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + (number * 32 + row).to_bytes(32, "big") for row in range(32)), 1)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def scan(folder: Path, out: Path, log: Path) -> measure.Run:
    """Sweep a folder as it comes. Raises ClickException where it fails."""
    run = measure.run([str(COMMAND), "scan", str(folder), "-o", str(out), "--settle", "0"], pictures.ROOT, log)
    if run.status != 0:
        raise click.ClickException(f"cxr-edge left with {run.status}:\n{log.read_text()[-1000:]}")
    return run


def nights(count: int, work: Path) -> Nights:
    """Two sweeps of `count` tiny files, among them `COPIES` radiographs of a megapixel, evenly spread."""
    folder, out = work / "many", work / "out"
    radiograph = _radiograph(1.0)
    for number in range(count):
        place = folder / f"{number // FOLDER_FILES:04}"
        if number % FOLDER_FILES == 0:
            place.mkdir(parents=True)
        judged = number % (count // COPIES) == 0
        content = pictures.numbered(radiograph, number) if judged else tiny(number)
        (place / f"{number}.png").write_bytes(content)
    first, second = (scan(folder, out, work / "log") for _ in range(2))
    shutil.rmtree(folder)
    shutil.rmtree(out)
    return Nights(count, first.seconds, first.peak, second.seconds, second.peak)


def of_size(megapixels: float, rounds: int, work: Path) -> OfSize:
    """Sweeps of pictures of one size."""
    folder, one, out = work / "sized", work / "sized-one", work / "out"
    folder.mkdir()
    one.mkdir()
    png = _radiograph(megapixels)
    for number in range(COPIES):
        (folder / f"{number}.png").write_bytes(pictures.numbered(png, number))
    (one / "0.png").write_bytes(png)
    rates, peak = [], 0.0
    for _ in range(rounds):
        alone = scan(one, out, work / "log")
        shutil.rmtree(out)
        every = scan(folder, out, work / "log")
        shutil.rmtree(out)
        rates.append((COPIES - 1) / (every.seconds - alone.seconds))
        peak = max(peak, every.peak)
    shutil.rmtree(folder)
    shutil.rmtree(one)
    return OfSize(megapixels, spread(rates), peak)


def starts(rounds: int, work: Path) -> dict[str, Spread]:
    """Seconds of `--help`, and of a scan of one radiograph of a megapixel to its end."""
    (work / "one").mkdir()
    (work / "one" / "0.png").write_bytes(_radiograph(1.0))
    help_, first = [], []
    for _ in range(rounds):
        help_.append(measure.run([str(COMMAND), "--help"], pictures.ROOT, work / "log").seconds)
        first.append(scan(work / "one", work / "out", work / "log").seconds)
        shutil.rmtree(work / "out")
    return {"--help": spread(help_), "one picture": spread(first)}


def _radiograph(megapixels: float) -> bytes:
    side = round((megapixels * 1e6) ** 0.5)
    drawn = Image.fromarray(phantom.draw(1, width=min(side, 1000), height=min(side, 1000)).image)
    file = io.BytesIO()
    drawn.resize((side, side)).save(file, "PNG")
    return file.getvalue()


@click.command(help=__doc__)
@click.option("--files", default="1000,10000,100000", show_default=True, help="Numbers of files.")
@click.option("--rounds", default=5, show_default=True, help="Of sizes and starts.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/bench"), show_default=True)
def main(files: str, rounds: int, out: Path) -> None:
    """Measure."""
    console = Console(width=120, highlight=False)
    with tempfile.TemporaryDirectory() as temp:
        work = Path(temp)
        started = starts(rounds, work)
        sizes = [of_size(megapixels, rounds, work) for megapixels in MEGAPIXELS]
        grown = [nights(int(count), work) for count in files.split(",")]
    console.print(machine(), markup=False)
    for name, seconds in started.items():
        console.print(f"{name}: {figures.told(seconds, 2)} s", markup=False)
    table = Table("files", "first sweep, s", "files/s", "peak, MiB", "second sweep, s", "peak, MiB")
    for each in grown:
        cells = (each.first, each.files / each.first, each.first_peak, each.second, each.second_peak)
        table.add_row(f"{each.files:,}", *(f"{cell:,.1f}" for cell in cells))
    console.print(table)
    table = Table("megapixels (gray PNG)", "images/s", "peak, MiB")
    for one in sizes:
        table.add_row(f"{one.megapixels:g}", figures.told(one.rate, 1), f"{one.peak:.0f}")
    console.print(table)
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "machine": machine(),
        "starts": {name: asdict(seconds) for name, seconds in started.items()},
        "nights": [asdict(each) for each in grown],
        "sizes": [asdict(one) for one in sizes],
    }
    (out / "scaling.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
