"""Synthetic chest radiographs with exact lung masks, for tests and for the demo: no patient is needed to try the tool.

A phantom is drawn as a film is exposed: tissues add up to an attenuation along each ray, and a film curve turns it
into gray. Coordinates run from -1 to 1 over the width (x, the patient's left is positive: the picture's right)
and over the height (y, downwards), before the patient's tilt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.floating[Any]]  # [H, W], float32 in fact: half the memory, twice the speed
MIN_SIDE = 96  # under this, a costophrenic angle is thinner than a pixel
UNEVEN = ((5, 0.045), (17, 0.022), (51, 0.012))  # grains across the picture, share of the tissue: no body is smooth


@dataclass(frozen=True)
class Phantom:
    """One synthetic radiograph with its truth; all three arrays share the shape [H, W]."""

    image: NDArray[np.uint8]  # 0..255, air dark, bone and heart bright (MONOCHROME2)
    lung_mask: NDArray[np.bool_]  # both lung fields, including the lung behind the heart
    opacity_mask: NDArray[np.bool_]  # where an opacity was drawn, a subset of lung_mask; all False without one


@dataclass(frozen=True)
class _Lungs:
    """Air along each ray and where the ribs lie, all [H, W]."""

    mask: NDArray[np.bool_]
    air: Field  # 0..1, lung tissue along the ray before the heart takes its share
    across: Field  # 0 at the midline, 1 at the inside of the chest wall
    down: Field  # 0 at the apex, 1 at the costophrenic angle
    below: Field  # 0 above the diaphragm, 1 well below it
    apex: float  # level of the top of the lungs, before tilt
    dome: float  # level of the left hemidiaphragm


def _step(value: Field, width: float) -> Field:
    """0 to 1 over `width` around zero, smooth: a projected edge."""
    t: Field = np.clip(value / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _round(value: Field) -> Field:
    """Chord through a round body: 0 at the rim (value 0), 1 in the depth (value >= 1)."""
    t: Field = 1 - np.clip(value, 0, 1)
    return np.sqrt(1 - t * t)


def _ellipse(x: Field, y: Field, cx: float, cy: float, rx: float, ry: float, lean: float = 0.0) -> Field:
    """1 at the centre, 0 on the rim, negative outside."""
    u, v = (x - cx - lean * (y - cy)) / rx, (y - cy) / ry
    return 1 - np.sqrt(u * u + v * v)


def _patches(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """Smooth noise of about unit deviation with `cells` grains across the picture."""
    grains = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(grains).resize((width, height), Image.Resampling.BICUBIC)) * np.float32(1.4)


def _lungs(rng: np.random.Generator, x: Field, y: Field) -> _Lungs:
    apex, depth = rng.uniform(-0.80, -0.62), rng.uniform(1.15, 1.45)
    medial, lateral = rng.uniform(0.09, 0.14), rng.uniform(0.66, 0.81)
    fullness, dome = rng.uniform(0.5, 0.66), rng.uniform(0.16, 0.26)
    left = _step(x, 2 * medial)  # no seam where the two sides meet in the midline

    def sides(right_lung: float, left_lung: float) -> Field:
        return right_lung + (left_lung - right_lung) * left

    ax = np.abs(x)
    base = apex + depth
    wall = sides(lateral * rng.uniform(0.96, 1.02), lateral * rng.uniform(0.94, 1.0))
    tip = medial + 0.22 * (lateral - medial)
    down = (y - apex) / depth
    v = np.clip(down, 0, 1)
    outer = tip + (wall - tip) * (1 - (1 - v) ** 2) ** fullness
    shoulder = 1 - np.clip(v / 0.14, 0, 1)
    inner = medial + (tip - medial) * (1 - np.sqrt(1 - shoulder * shoulder))
    crest = base - dome - sides(rng.uniform(0.03, 0.07), 0.0)  # the liver lifts the right dome
    t = (ax - medial) / (wall - medial)
    top = sides(rng.uniform(0.36, 0.46), rng.uniform(0.42, 0.52))
    out = np.maximum(t - top, 0) / (1 - top)
    diaphragm = crest + (base - crest + 0.055) * out * out * np.sqrt(out) + 0.25 * np.maximum(top - t, 0) ** 2
    blunt = (ax - inner) + (diaphragm - y) > 0.04  # a sharp cardiophrenic corner, tilted, would shed a pixel
    mask = (ax > inner) & (ax < outer) & (y < diaphragm) & (down > 0) & (down < 1) & blunt
    air = _round((outer - ax) / 0.22) * _round((ax - inner) / 0.1) * _round((diaphragm - y) / 0.05)
    air *= _round(down / 0.25) * mask
    return _Lungs(mask, air, ax / (outer + 0.025), down, _step(y - diaphragm - 0.1, 0.3), apex, base - dome)


def _ribs(rng: np.random.Generator, x: Field, y: Field, lungs: _Lungs) -> Field:
    """Bone of the rib cage along the ray, 0..about 1.5."""
    spacing, drop, fill = rng.uniform(0.125, 0.16), rng.uniform(0.2, 0.3), rng.uniform(0.4, 0.5)
    a = np.clip(lungs.across, 0, 1)
    arc = np.sqrt(1 - a * a)
    phase = np.where(x > 0, np.float32(rng.uniform(0, 0.15)), np.float32(0))

    def band(fall: Field) -> Field:
        u = np.abs((y - fall) / spacing + phase - np.floor((y - fall) / spacing + phase) - 0.5) * 2
        return _step(fill - u, 0.16) * (0.65 + 0.7 * np.minimum(u / fill, 1) ** 2)

    # a rib leaves the spine, turns at the wall and comes back lower in front, where it ends in unseen cartilage
    behind = band(drop * (1 - arc))
    before = band(drop * (1 + 1.2 * arc)) * _step(a - 0.5, 0.2)
    inside = _step(1 - lungs.across, 0.03) * _step(a - 0.09, 0.08) * _step(lungs.down - 0.05, 0.1)
    return (behind + 0.55 * before) * inside * (1 - 0.8 * lungs.below)


def _bones(rng: np.random.Generator, x: Field, y: Field, lungs: _Lungs) -> Field:
    """Spine, clavicles and shoulder joints along the ray, 0..about 1.5."""
    ax = np.abs(x)
    vertebra, half = rng.uniform(0.10, 0.13), rng.uniform(0.075, 0.095)
    disc = np.cos((y + rng.uniform(0, 1)) * (2 * np.pi / vertebra))
    body = _step(half - 0.008 * disc - ax, 0.03)
    spine = body * (0.7 + 0.25 * _step(0.6 - disc, 0.5))
    level, rise, thick = lungs.apex + rng.uniform(0.14, 0.24), rng.uniform(0.10, 0.22), rng.uniform(0.032, 0.04)
    s = (ax - 0.09) / 0.66
    edge = 1 - np.abs(y - level + rise * s + 0.012 * np.sin(2 * np.pi * s)) / (thick * (1.3 - 0.5 * s))
    ends = _step(s, 0.08) * _step(1.05 - s, 0.15)
    clavicle = _step(edge - 0.12, 0.3) * (1.1 - 0.35 * np.clip(edge, 0, 1)) * ends
    joint = _round(_ellipse(ax, y, 0.98, lungs.apex + 0.1, 0.15, 0.17) * 1.5)
    return spine + 1.2 * clavicle + 0.6 * joint


def _soft_tissue(rng: np.random.Generator, x: Field, y: Field, lungs: _Lungs) -> Field:
    """Trunk, neck and shoulders along the ray, 0 (open air) to about 1.2 (abdomen)."""
    torso, axilla = rng.uniform(0.92, 1.08), rng.uniform(-0.15, 0.1)
    half = torso + 0.05 * (y - 0.3) ** 2 + 0.7 * _step(axilla - y, 0.35)
    slope = np.maximum(y + rng.uniform(0.8, 0.9), 0)
    half = np.minimum(half, rng.uniform(0.24, 0.3) + 3.2 * slope + 12 * slope * slope)
    trunk: Field = 0.9 * np.sqrt(np.clip(1 - np.square(x / half), 0, 1)) * (0.72 + 0.28 * _step(y + 0.65, 0.9))
    bubble = _round(3 * _ellipse(x, y, 0.36, lungs.dome + 0.15, rng.uniform(0.1, 0.2), 0.08, 0.4))
    breast = float(rng.choice([0.0, 0.09])) * _round(2 * _ellipse(np.abs(x), y, 0.48, lungs.dome - 0.1, 0.34, 0.3))
    windpipe = _step(0.05 - np.abs(x + 0.015), 0.02) * _step(-0.2 - y, 0.06)
    return trunk * (1 + breast) + lungs.below * (0.22 * trunk - 0.16 * bubble) - 0.12 * windpipe


def _heart(rng: np.random.Generator, x: Field, y: Field, lungs: _Lungs) -> Field:
    """Share of the ray through the middle of the chest that heart and great vessels fill, 0..1."""
    size, level, arch = rng.uniform(0.85, 1.2), lungs.dome - 0.16, lungs.apex + rng.uniform(0.38, 0.46)
    parts = (
        _ellipse(x, y, 0.13, level, 0.24 * size, 0.30, rng.uniform(0.2, 0.5)) * 6,  # ventricles
        _ellipse(x, y, -0.05, level, 0.17 * size, 0.26) * 5,  # right atrium
        _ellipse(x, y, 0.11, arch, rng.uniform(0.07, 0.1), 0.1) * 3,  # aortic knob
        _ellipse(x, y, 0.09, (arch + level) / 2, 0.13 * size, 0.26, 0.15) * 4,  # pulmonary trunk and left auricle
        _ellipse(x, y, 0.0, arch, rng.uniform(0.13, 0.17), 0.8) * 2.5,  # upper mediastinum
    )
    return _round(np.maximum.reduce(parts))


def _vessels(rng: np.random.Generator, column: Field, row: Field, hilum: float) -> Field:
    """Pulmonary vessels branching from the hila, 0..1; the tilt, small near the hila, is left out."""
    height, width = row.size, column.size
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    left, top = float(column[0]), float(row[0, 0])
    for side in (-1, 1):
        twigs = [
            (side * 0.16, hilum + rng.uniform(-0.07, 0.07), float(angle), 0.16, 0.024, 0)
            for angle in np.linspace(-1.25, 1.35, 8) + rng.uniform(-0.15, 0.15, 8)
        ]
        while twigs:
            x, y, angle, length, bore, depth = twigs.pop()
            end = x + side * length * float(np.cos(angle)), y + length * float(np.sin(angle))
            line = [((px - left) / 2 * width, (py - top) / 2 * height) for px, py in ((x, y), end)]
            pen.line(line, fill=int(235 * 0.8**depth), width=max(1, round(bore * width / 2)))
            if depth < 5:
                for turn in (rng.uniform(-0.55, -0.1), rng.uniform(0.1, 0.55)):
                    twigs.append((*end, angle + turn, length * rng.uniform(0.6, 0.9), bore * 0.72, depth + 1))
    soft = canvas.filter(ImageFilter.GaussianBlur(width / 400))
    return np.asarray(soft, dtype=np.float32) / 255


def _opacity(rng: np.random.Generator, x: Field, y: Field, lungs: _Lungs) -> Field:
    """Share of the air that consolidation has replaced, 0..1, patchy; 0 outside the lungs."""
    cloud = np.zeros_like(x)
    for _ in range(int(rng.integers(1, 5))):
        px, py = float(rng.choice([-1.0, 1.0])) * rng.uniform(0.3, 0.55), lungs.dome + rng.uniform(-0.6, -0.1)
        rx, ry = rng.uniform(0.12, 0.26), rng.uniform(0.12, 0.26)
        cloud = np.maximum(cloud, np.exp(-(((x - px) / rx) ** 2) - ((y - py) / ry) ** 2))
    for cells, weight in ((10, 0.2), (26, 0.14), (70, 0.08)):
        cloud = cloud * (1 + weight * _patches(rng, x.shape[0], x.shape[1], cells))
    share = rng.uniform(0.55, 0.85) * _step(cloud - 0.55, 0.75)
    return np.where(lungs.mask & (share > 0.03), share, np.float32(0))


def _blur(field: Field) -> Field:
    """The focal spot's and the plate's unsharpness: a 3 x 3 binomial."""
    wide = np.pad(field, 1, mode="edge")
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 16


def _lettered(rng: np.random.Generator, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The lead letter at the patient's left.

    No unexposed border: few radiographs still have one, and a model that looks for what is unfamiliar stumbles over it.
    """
    height, width = image.shape
    canvas = Image.fromarray(image)
    x, y, size = rng.uniform(0.86, 0.9) * width, rng.uniform(0.06, 0.12) * height, 0.045 * height
    corner = [(x, y), (x, y + size), (x + 0.6 * size, y + size)]
    ImageDraw.Draw(canvas).line(corner, fill=250, width=max(1, height // 128))
    return np.array(canvas)


def draw(seed: int, *, height: int = 1024, width: int = 1024, opacity: bool = False) -> Phantom:
    """Draw one PA chest radiograph, uint8 [height, width], 0..255, with its lung and opacity masks, bool [H, W].

    The same seed and size give the same bytes. With `opacity` the same patient is drawn, noise and all, with
    consolidation in the lungs: the two pictures differ inside `opacity_mask` only.
    """
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a phantom needs at least {MIN_SIDE} pixels each way, not {width} x {height}")
    # one stream for each part: an opacity, or a part that draws more numbers, changes no other part
    streams = np.random.SeedSequence(seed).spawn(6)
    anatomy, tissue, bones, tree, disease, film = (np.random.default_rng(stream) for stream in streams)
    column = np.linspace(-1, 1, width, dtype=np.float32) - anatomy.uniform(-0.04, 0.04)
    row = np.linspace(-1, 1, height, dtype=np.float32)[:, None] - anatomy.uniform(-0.04, 0.04)
    tilt, scoliosis = anatomy.uniform(-0.045, 0.045), anatomy.uniform(-0.02, 0.02)
    x, y = column + tilt * row - scoliosis * np.sin(3 * row), row - tilt * column
    lungs = _lungs(anatomy, x, y)
    heart = _heart(anatomy, x, y, lungs)
    soft = _soft_tissue(tissue, x, y, lungs)
    air = lungs.air * (1 - 0.85 * heart) * tissue.uniform(0.5, 0.62)
    uneven = 0.03 * _patches(tissue, height, width, 9)
    for cells, weight in UNEVEN:
        uneven += weight * _patches(tissue, height, width, cells)
    ray = soft * (1 + uneven) + 0.09 * heart
    skeleton = _ribs(bones, x, y, lungs) + _bones(bones, x, y, lungs)
    ray += bones.uniform(0.10, 0.16) * skeleton * np.minimum(soft * 3, 1)
    vessels = _vessels(tree, column, row, (lungs.apex + lungs.dome) / 2)
    ray += air * (0.34 * vessels + 0.03 * _patches(tree, height, width, 90) - 1)
    ray = _blur(ray)
    share = _opacity(disease, x, y, lungs) if opacity else np.zeros_like(x)
    ray += share * air
    grain = film.standard_normal((height, width), dtype=np.float32)
    ray += film.uniform(0.01, 0.03) * _blur(grain)
    gray = 255 / (1 + np.exp(film.uniform(3.6, 5.0) * (film.uniform(0.56, 0.72) - ray)))
    image = _lettered(film, gray.astype(np.uint8))
    return Phantom(image, lungs.mask, share > 0)


def write_folder(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` phantoms as a clinic's mixed incoming folder and return their paths, in the order drawn.

    Every second one has an opacity; PNG and JPEG, 900 to 1300 pixels each way, in `ward-a/` and `ward-b/`.
    The same arguments write the same files, and a larger `count` only adds to them.
    """
    rng = np.random.default_rng(seed)
    paths = []
    for i in range(count):
        number, height, width = int(rng.integers(2**31)), int(rng.integers(900, 1301)), int(rng.integers(900, 1301))
        # neither the ward nor the format may follow the opacity, or a model could learn those instead
        path = folder / ("ward-b" if i % 3 == 2 else "ward-a") / f"{i + 1:04d}.{('png', 'jpg')[i // 2 % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        phantom = draw(number, height=height, width=width, opacity=i % 2 == 1)
        Image.fromarray(phantom.image).save(path, quality=92)
        paths.append(path)
    return paths


def main() -> None:
    """Write a folder of phantoms from the command line, one path a line on stdout."""
    import click

    @click.command(help="Write synthetic chest radiographs into FOLDER.")
    @click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
    @click.option("--count", default=6, show_default=True, type=click.IntRange(min=1), help="How many to write.")
    @click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Same seed, same files.")
    def command(folder: Path, count: int, seed: int) -> None:
        for path in write_folder(folder, count, seed):
            click.echo(path)

    command()


if __name__ == "__main__":
    main()
