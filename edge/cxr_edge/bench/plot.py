"""What a PNG shows of a bench, drawn with Pillow alone: the box has no plotting library."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from cxr_edge.bench.figures import Figures, bound

SIZE = (1280, 860)
INK, FAINT, BLUE, PALE, ORANGE = "#1f2430", "#d9dde3", "#2f6fb0", "#a9c8e6", "#d9822b"
Box = tuple[int, int, int, int]


def png(figures: Figures) -> bytes:
    """Draw steps, rates and memory as a PNG's bytes."""
    image = Image.new("RGB", SIZE, "white")
    canvas = _Canvas(ImageDraw.Draw(image))
    machine, engine, pictures = figures.machine, figures.engine, figures.pictures
    canvas.text((40, 24), f"cxr-edge bench: {machine.cpu}, {machine.cores} cores", 26)
    canvas.text((40, 60), f"{engine.name} {engine.version}, {engine.kernels}; {figures.measured_at}", 17)
    canvas.text((40, 84), f"{pictures.origin}: {pictures.files} files, median {pictures.megapixels:.2f} megapixels", 17)
    _steps(canvas, (130, 170, 640, 770), figures)
    cores = [sweep.cores for sweep in figures.sweeps]
    rates = [sweep.images_per_second.median for sweep in figures.sweeps]
    bounds = [bound(n, figures.image_ms.median) for n in cores]
    right = (760, 170, 1230, 420)
    _curve(canvas, right, cores, rates, "Whole sweeps, images/s", bounds)
    canvas.text((right[0] + 10, right[1] + 6), "dashed: bound by parts", 15, ORANGE)
    memory = [sweep.peak_mib for sweep in figures.sweeps]
    _curve(canvas, (760, 540, 1230, 770), cores, memory, "Peak memory, MiB")
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def nice_ticks(top: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least `top` (positive), about so many: steps of 1, 2 or 5 times a power of ten."""
    rough = top / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]


class _Canvas:
    """Text and lines in whole pixels; texts hang from an anchor of Pillow's ('la' left top, 'mm' middle, 'rm')."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def text(self, at: tuple[float, float], text: str, size: int, fill: str = INK, anchor: str = "la") -> None:
        self.draw.text(at, text, fill, ImageFont.load_default(size), anchor)

    def line(self, points: Sequence[tuple[float, float]], fill: str = INK, width: int = 1) -> None:
        self.draw.line(points, fill, width)

    def dashes(self, start: tuple[float, float], end: tuple[float, float], fill: str) -> None:
        pieces = max(2, round(math.dist(start, end) / 9))
        for i in range(0, pieces, 2):
            a, b = i / pieces, min(i + 1, pieces) / pieces
            x, y = end[0] - start[0], end[1] - start[1]
            ends = [(start[0] + a * x, start[1] + a * y), (start[0] + b * x, start[1] + b * y)]
            self.line(ends, fill, 3)


def _steps(canvas: _Canvas, box: Box, figures: Figures) -> None:
    """A bar for each step: its median, and a whisker to p95 and p99."""
    left, top, right, bottom = box
    canvas.text((left - 90, top - 42), "One image on one core, ms (bar p50, ticks p95 and p99)", 18)
    ticks = nice_ticks(max(step.p99 for step in figures.steps_ms.values()))

    def x(ms: float) -> float:
        return left + (right - left) * ms / ticks[-1]

    for tick in ticks:
        canvas.line([(x(tick), top), (x(tick), bottom)], FAINT)
        canvas.text((x(tick), bottom + 8), f"{tick:g}", 15, anchor="ma")
    height = (bottom - top) / len(figures.steps_ms)
    for i, (name, step) in enumerate(figures.steps_ms.items()):
        middle = top + (i + 0.5) * height
        canvas.draw.rectangle((left, middle - height * 0.28, x(step.p50), middle + height * 0.28), BLUE)
        canvas.line([(x(step.p50), middle), (x(step.p99), middle)], ORANGE, 2)
        for ms in (step.p95, step.p99):
            canvas.line([(x(ms), middle - 9), (x(ms), middle + 9)], ORANGE, 2)
        canvas.text((left - 10, middle - 10), name, 17, anchor="rm")
        canvas.text((left - 10, middle + 12), f"{step.p50:.2f}", 15, anchor="rm")
    canvas.line([(left, top), (left, bottom), (right, bottom)])
    canvas.text(((left + right) / 2, bottom + 34), "milliseconds", 16, anchor="ma")


def _curve(
    canvas: _Canvas,
    box: Box,
    cores: Sequence[int],
    values: Sequence[float],
    title: str,
    dashed: Sequence[float] = (),
) -> None:
    """A value for each number of cores, from 0 upwards, with a dashed line for comparison."""
    left, top, right, bottom = box
    canvas.text((left - 50, top - 42), title, 18)
    ticks = nice_ticks(1.05 * max(*values, *dashed, 1e-9))

    def at(n: float, value: float) -> tuple[float, float]:
        return left + (right - left) * n / (cores[-1] + 0.5), bottom - (bottom - top) * value / ticks[-1]

    for tick in ticks:
        y = at(0, tick)[1]
        canvas.line([(left, y), (right, y)], FAINT)
        canvas.text((left - 8, y), f"{tick:g}", 15, anchor="rm")
    written = 0.0
    for n in cores:
        # Left out where it would run into its neighbour.
        if (x := at(n, 0)[0]) > written + 26:
            canvas.text((x, bottom + 8), str(n), 15, anchor="ma")
            written = x
    points = [at(n, value) for n, value in zip(cores, values, strict=True)]
    if dashed:
        canvas.dashes(at(0, 0), at(cores[-1], dashed[-1]), ORANGE)
    canvas.line(points, BLUE, 3)
    for (x, y), value in zip(points, values, strict=True):
        canvas.draw.ellipse((x - 5, y - 5, x + 5, y + 5), BLUE)
        canvas.text((x + 9, y + 8), f"{value:.0f}" if value >= 10 else f"{value:.1f}", 15)
    canvas.line([(left, top), (left, bottom), (right, bottom)])
    canvas.text(((left + right) / 2, bottom + 32), "cores (one worker each)", 16, anchor="ma")
