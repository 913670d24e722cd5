"""Draw the README's picture: phantoms scanned by the shipped model, with the outline of each mask and the verdict."""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

TILE = 320


def tile(picture: Path, mask: Path, text: str) -> Image.Image:
    """One picture with the outline of its mask, and a line of text under it."""
    with Image.open(picture) as gray, Image.open(mask) as lung:
        shown, small = gray.convert("L").resize((TILE, TILE)), lung.convert("L").resize((TILE, TILE))
    outline = ImageChops.difference(small, small.filter(ImageFilter.MinFilter(5)))
    canvas = Image.new("RGB", (TILE, TILE + 24), "white")
    canvas.paste(Image.composite(Image.new("RGB", shown.size, (255, 140, 0)), shown.convert("RGB"), outline))
    ImageDraw.Draw(canvas).text((6, TILE + 6), text, fill="black")
    return canvas


def main(out: Path) -> None:
    """Scan four phantoms and write the picture to `out`."""
    with tempfile.TemporaryDirectory() as temp:
        incoming, verdicts = Path(temp) / "incoming", Path(temp) / "verdicts"
        command = [sys.executable, "-m", "cxr_edge.phantom", str(incoming), "--count", "4"]
        subprocess.run(command, check=True, capture_output=True)
        scan = [str(Path(sys.executable).with_name("cxr-edge")), "scan", str(incoming), "-o", str(verdicts)]
        subprocess.run(scan, check=True, capture_output=True)
        with (verdicts / "verdicts.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        tiles = [
            tile(incoming / row["path"], verdicts / row["mask"], f"{row['path']}: {row['verdict']} {row['confidence']}")
            for row in rows
        ]
    canvas = Image.new("RGB", (TILE * len(tiles), TILE + 24), "white")
    for number, one in enumerate(tiles):
        canvas.paste(one, (TILE * number, 0))
    canvas.quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
