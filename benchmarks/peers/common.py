"""What an engineer would write once, whatever engine he takes: prepare, judge, draw, record. numpy and Pillow only.

It does the work that can be seen of `cxr-edge scan`: a label for each picture in a CSV, and the lung mask at the
picture's own size. It does not hash, sync, keep a ledger, or refuse what is no radiograph; a broken file ends it.
"""

from __future__ import annotations

import csv
import json
import math
import os
import threading
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Infer = Callable[[NDArray[np.uint8]], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
"""uint8[1, H, W, 1] -> probabilities uint8[labels] and lungs uint8[h, w], both in units of 1/256."""

CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Notes:
    """The numbers of a model's manifest that a script needs."""

    labels: list[str]
    negative: str
    size: tuple[int, int]
    percentiles: tuple[float, float]
    tensors: dict[str, str]
    temperature: float
    uncertain_below: float
    operating_point: float
    mask_threshold: float


def read_notes(model: Path) -> Notes:
    """Read manifest.json from the archive at the end of the .tflite file."""
    with zipfile.ZipFile(model) as archive:
        manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
    seen = manifest["input"]
    return Notes(
        manifest["labels"],
        manifest["negative"],
        (seen["width"], seen["height"]),
        (seen["low_percentile"], seen["high_percentile"]),
        manifest["outputs"],
        manifest["temperature"],
        manifest["uncertain_below"],
        manifest["operating_points"]["balanced"],
        manifest["mask_threshold"],
    )


def load(path: Path, notes: Notes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decode, resize and stretch one picture: uint8[H, W] of the model's input, and the file's width and height."""
    with Image.open(path) as image:
        size = image.size
        image.draft(None, (2 * notes.size[0], 2 * notes.size[1]))
        small = image.convert("L").resize(notes.size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return stretch(np.asarray(small), notes.percentiles), size


def stretch(gray: NDArray[np.uint8], percentiles: tuple[float, float]) -> NDArray[np.uint8]:
    """Bring two percentiles (0 to 100) of uint8[H, W] to 0 and 255."""
    cumulated = np.cumsum(np.bincount(gray.ravel(), minlength=256))
    low, high = np.searchsorted(cumulated, [gray.size * percentile / 100 for percentile in percentiles])
    if high <= low:
        return gray
    levels = (np.arange(256, dtype=np.float32) - low) * (255 / (high - low))
    return np.asarray(np.clip(np.rint(levels), 0, 255), dtype=np.uint8)[gray]


def judge(units: NDArray[Any], notes: Notes) -> tuple[str, float]:
    """Verdict and calibrated confidence (0 to 1), from probabilities of each label in units of 1/256."""
    scaled = np.maximum(units.astype(np.float64), 0.5) ** (1 / notes.temperature)
    calibrated = scaled / scaled.sum()
    negative = notes.labels.index(notes.negative)
    others = calibrated.copy()
    others[negative] = -1
    label = int(others.argmax()) if 1 - calibrated[negative] >= notes.operating_point else negative
    sure = calibrated[label] >= notes.uncertain_below
    return notes.labels[label] if sure else "uncertain", float(calibrated.max())


def draw(lungs: NDArray[np.uint8], size: tuple[int, int], threshold: float, target: Path) -> None:
    """Write lungs, uint8[h, w] in units of 1/256, as a black and white PNG of `size`."""
    cut = math.ceil(threshold * 256)
    table = [0] * cut + [255] * (256 - cut)
    mask = Image.fromarray(lungs).resize(size, Image.Resampling.BILINEAR).point(table, "1")
    mask.save(target, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def write(out: Path, rows: list[tuple[str, str, float]]) -> None:
    """Write path, verdict and confidence of each picture."""
    with (out / "verdicts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "verdict", "confidence"))
        writer.writerows((path, verdict, f"{confidence:.3f}") for path, verdict, confidence in rows)


def scan(folder: Path, out: Path, notes: Notes, new_engine: Callable[[], Infer]) -> None:
    """Judge every picture of a folder in a pool of one thread for each core, each with an engine of its own."""
    (out / "masks").mkdir(parents=True, exist_ok=True)
    own = threading.local()

    def start() -> None:
        own.infer = new_engine()

    def one(path: Path) -> tuple[str, str, float]:
        pixels, size = load(path, notes)
        probabilities, lungs = own.infer(pixels[np.newaxis, :, :, np.newaxis])
        draw(lungs, size, notes.mask_threshold, out / "masks" / f"{path.name}.png")
        return path.name, *judge(probabilities, notes)

    with ThreadPoolExecutor(CORES, initializer=start) as pool:
        write(out, list(pool.map(one, sorted(folder.iterdir()))))
