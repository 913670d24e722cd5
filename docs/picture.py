"""Draw pictures as the model sees them: the outline of the lungs, the affected part of them tinted, and the verdict.

python docs/picture.py OUT.png                 four phantoms, for the README
python docs/picture.py OUT.png PICTURE...      the pictures given
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from cxr_edge import gates, imaging, judge, model_file, phantom, preprocess
from cxr_edge.errors import ImageProblem
from cxr_edge.manifest import DEFAULT_POINT
from cxr_edge.model_file import ModelFile
from cxr_edge.runtime import Engine, find_runtime
from cxr_edge.worker import infer

TILE, COLUMNS = 320, 5
LUNG, AFFECTED = (255, 140, 0), (220, 20, 60)


def tile(picture: Path, model: ModelFile, engine: Engine) -> Image.Image:
    """One picture with lungs, affected area and a line of text under it."""
    manifest = model.manifest
    radiograph = imaging.decode(imaging.read_bytes(picture), (TILE, TILE))
    outputs, _ = infer(engine, preprocess.to_input(radiograph.gray, manifest.input), manifest)
    try:
        gates.check_picture(radiograph)
        gates.check_outputs(outputs, manifest, radiograph)
        verdict = judge.judge(outputs["probabilities"], manifest, DEFAULT_POINT)
        text = f"{verdict.verdict} {verdict.confidence:.2f}"
    except ImageProblem as problem:
        text = f"{problem.status.value}: {problem.reason.value}"
    shown = Image.fromarray(radiograph.gray).resize((TILE, TILE)).convert("RGB")
    lung = outputs["mask"] >= manifest.mask_threshold * 256
    if manifest.affected is not None:
        lung, affected = judge.affected_lung(outputs["activation"], outputs["mask"], manifest)
        text += f", {100 * affected.sum() / max(1, lung.sum()):.0f} % affected"
        tint = _layer(affected).filter(ImageFilter.GaussianBlur(2)).point(lambda level: level * 0.35)
        shown = Image.composite(Image.new("RGB", shown.size, AFFECTED), shown, tint)
    mask = _layer(lung)
    outline = ImageChops.difference(mask, mask.filter(ImageFilter.MinFilter(5)))
    canvas = Image.new("RGB", (TILE, TILE + 40), "white")
    canvas.paste(Image.composite(Image.new("RGB", shown.size, LUNG), shown, outline))
    ImageDraw.Draw(canvas).text((6, TILE + 4), f"{picture.name}\n{text}", fill="black")
    return canvas


def _layer(cells: np.ndarray) -> Image.Image:
    """bool[h, w] -> a mode "L" mask of a tile's size."""
    wide = Image.fromarray(cells.astype(np.uint8) * np.uint8(255)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    return wide.point(lambda level: 255 if level > 127 else 0)


def main(out: Path, pictures: list[Path]) -> None:
    """Draw `pictures`, or phantoms where there are none, into one PNG."""
    model = model_file.read(model_file.SHIPPED)
    engine = Engine(find_runtime(), model)
    with tempfile.TemporaryDirectory() as temp:
        pictures = pictures or phantom.write_folder(Path(temp), 4)
        tiles = [tile(picture, model, engine) for picture in pictures]
    columns = min(len(tiles), COLUMNS)
    canvas = Image.new("RGB", (TILE * columns, (TILE + 40) * -(-len(tiles) // columns)), "white")
    for number, one in enumerate(tiles):
        canvas.paste(one, (TILE * (number % columns), (TILE + 40) * (number // columns)))
    canvas.quantize(128).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
