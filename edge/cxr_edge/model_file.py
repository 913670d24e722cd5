"""The self-describing model: read it, verify it, or refuse it.

A model is one file: a TFLite flatbuffer with a ZIP appended (the convention of TFLite model metadata: `unzip -l` lists
it, every TFLite runtime still loads it). The ZIP carries `manifest.json` (see `manifest.py`), `labels.txt`,
`MODEL_CARD.md`, and in `golden/` an input with the outputs it must give; the manifest holds the digest of the
flatbuffer before it, so a damaged file is refused before it judges anybody.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cxr_edge.errors import ModelRefused
from cxr_edge.manifest import MAKE_ONE, Manifest, parse_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHIPPED = Path(__file__).parent / "models" / "cxr-multitask.tflite"


@dataclass(frozen=True)
class Golden:
    """An input and what the model must answer to it: the self-test on the box.

    `pixels` is uint8[height, width], prepared (`preprocess.to_input` without its axes of 1); `outputs` holds
    `probabilities`, uint8[labels or 1], and, if the model has one, `mask`, uint8[h, w], in units of 1/256.
    """

    pixels: NDArray[np.uint8]
    outputs: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class ModelFile:
    """A verified model: where it lies, its manifest, its card (Markdown), and the SHA-256 of the whole file."""

    path: Path
    manifest: Manifest
    card: str
    sha256: str
    golden: Golden

    @property
    def short_digest(self) -> str:
        """The first 12 hex digits of the digest: how rows name the model."""
        return self.sha256[:12]


def read(path: Path) -> ModelFile:
    """Read and verify a model file.

    Raises:
        ModelRefused: it is missing, no self-describing model, damaged, of another version, or contradicts itself.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        remedy = "check the path, or leave --model out to use the shipped one"
        raise ModelRefused(f"model {path} cannot be read: {error.strerror}", remedy) from error
    if content[4:8] != b"TFL3":
        raise ModelRefused(f"{path} is not a TFLite model", MAKE_ONE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            start = min(entry.header_offset for entry in archive.infolist())
            files = {name: archive.read(name) for name in archive.namelist()}
        text, card = files["manifest.json"].decode(), files["MODEL_CARD.md"].decode()
    except Exception as error:  # zipfile raises anything on damaged archives
        raise ModelRefused(f"{path} does not describe itself, or is cut short ({error})", MAKE_ONE) from error
    manifest = parse_manifest(text, str(path))
    if hashlib.sha256(content[:start]).hexdigest() != manifest.tflite_sha256:
        raise ModelRefused(f"{path} is damaged: its weights do not match its manifest", "copy the file again")
    try:
        golden = unpack_golden(files)
    except Exception as error:  # as above, and whatever Pillow raises
        raise ModelRefused(f"{path} is damaged: its golden input cannot be read ({error})", MAKE_ONE) from error
    return ModelFile(path, manifest, card, hashlib.sha256(content).hexdigest(), golden)


def pack_golden(golden: Golden) -> dict[str, bytes]:
    """The files of `golden/` by name, the same bytes for the same content."""
    pictures = {"input": golden.pixels} | ({"mask": golden.outputs["mask"]} if "mask" in golden.outputs else {})
    files = {}
    for name, pixels in pictures.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files[f"golden/{name}.png"] = buffer.getvalue()
    files["golden/probabilities.json"] = json.dumps(golden.outputs["probabilities"].tolist()).encode()
    return files


def unpack_golden(files: dict[str, bytes]) -> Golden:
    """The opposite of `pack_golden`. Raises KeyError, ValueError or OSError where a file is missing or damaged."""

    def picture(name: str) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(files[f"golden/{name}.png"]), formats=("PNG",)) as image:
            return np.array(image.convert("L"))

    outputs = {"probabilities": np.array(json.loads(files["golden/probabilities.json"]), dtype=np.uint8)}
    if "golden/mask.png" in files:
        outputs["mask"] = picture("mask")
    return Golden(picture("input"), outputs)
