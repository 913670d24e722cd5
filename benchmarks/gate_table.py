"""What the gates of a model turn away, folder by folder: gate_table.py DATA TABLE [MODEL]

DATA holds originals/, dicom/, brain_mri/ and photos/; TABLE is one that `cxr-train table` wrote, of which the splits
that training never saw are shown by origin. Pages of text, noise, and radiographs turned or cut are made here.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from cxr_edge import gates, imaging, model_file, preprocess
from cxr_edge.errors import ImageProblem, Status
from cxr_edge.imaging import Radiograph
from cxr_edge.model_file import ModelFile
from cxr_edge.runtime import Engine, find_runtime
from cxr_edge.worker import infer
from cxr_train import table

Gray = NDArray[np.uint8]
MADE_FROM = 200
"""Radiographs of `test` that the made ones are made from."""


def answer(picture: Radiograph, model: ModelFile, engine: Engine) -> str:
    """`judged`, `inverted` (judged, turned round), or the reason code of the gate that turned the picture away."""
    try:
        gates.check_picture(picture)
        outputs, inverted = infer(engine, preprocess.to_input(picture.gray, model.manifest.input), model.manifest)
        gates.check_outputs(outputs, model.manifest, picture)
    except ImageProblem as problem:
        return problem.reason.value
    return "inverted" if inverted else "judged"


def decoded(paths: Iterable[Path | str], model: ModelFile) -> Iterator[Radiograph | str]:
    """Each file as the box reads it, or the reason code why it cannot."""
    size = model.manifest.input.width, model.manifest.input.height
    for path in paths:
        try:
            yield imaging.decode(imaging.read_bytes(Path(path)), size)
        except ImageProblem as problem:
            yield f"{problem.reason.value} ({problem.status.value})" if problem.status is Status.FAILED else "too_small"


def made(grays: list[Gray]) -> dict[str, list[Gray]]:
    """Pictures that are no whole, upright, positive frontal radiographs, from some that are."""
    return {
        "inverted": [255 - gray for gray in grays],
        "on its side": [np.ascontiguousarray(np.rot90(gray)) for gray in grays],
        "upside down": [np.ascontiguousarray(gray[::-1, ::-1]) for gray in grays],
        "the upper half": [gray[: gray.shape[0] // 2] for gray in grays],
        "one side": [np.ascontiguousarray(gray[:, : gray.shape[1] // 2]) for gray in grays],
        "the middle quarter": [
            np.ascontiguousarray(
                gray[gray.shape[0] // 4 : -(gray.shape[0] // 4), gray.shape[1] // 4 : -(gray.shape[1] // 4)]
            )
            for gray in grays
        ],
        "pages of text": [_page(seed) for seed in range(50)],
        "noise": [np.random.default_rng(seed).integers(0, 256, (256, 256)).astype(np.uint8) for seed in range(50)],
    }


def _page(seed: int) -> Gray:
    page = Image.new("L", (300, 400), 235)
    rng = np.random.default_rng(seed)
    for line in range(10, 390, 12):
        ImageDraw.Draw(page).text((15, line), "".join(rng.choice(list("abcdefgh ijklm nopq"), 45)), fill=20)
    return np.asarray(page)


def main(data: Path, table_file: Path, model: ModelFile) -> None:
    """Print the table."""
    engine = Engine(find_runtime(), model)
    rows = table.read(table_file)
    sets: dict[str, Iterable[Path | str]] = {}
    for split in ("validation", "test", "external"):
        for origin, part in rows[rows["split"] == split].groupby("origin"):
            sets[f"{split}, {origin}"] = list(part["path"])
    for folder in ("originals", "dicom", "brain_mri", "photos"):
        sets[folder] = sorted(path for path in (data / folder).rglob("*") if path.is_file())
    listing = Table("pictures", "n", "judged", "turned away", "by", box=None, pad_edge=False)

    def row(name: str, answers: list[str]) -> None:
        judged = sum(one in ("judged", "inverted") for one in answers)
        by = ", ".join(f"{code} {count}" for code, count in Counter(answers).most_common() if code != "judged")
        listing.add_row(name, str(len(answers)), str(judged), f"{1 - judged / len(answers):.1%}", by)

    for name, paths in sets.items():
        row(name, [one if isinstance(one, str) else answer(one, model, engine) for one in decoded(paths, model)])
    chosen = rows[rows["split"] == "test"]["path"].iloc[:: max(1, (rows["split"] == "test").sum() // MADE_FROM)]
    grays = [one.gray for one in decoded(chosen, model) if isinstance(one, Radiograph)]
    for name, pictures in made(grays).items():
        answers = [answer(Radiograph(gray, gray.shape[1], gray.shape[0]), model, engine) for gray in pictures]
        row(f"made: {name}", answers)
    Console(width=140).print(listing)


if __name__ == "__main__":
    main(
        Path(sys.argv[1]), Path(sys.argv[2]), model_file.read(Path(sys.argv[3]) if sys.argv[3:] else model_file.SHIPPED)
    )
