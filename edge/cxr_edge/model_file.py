"""The self-describing model: read it, verify it, or refuse it.

A model is one file: a TFLite flatbuffer with a ZIP appended (the convention of TFLite model metadata: `unzip -l` lists
it, every TFLite runtime still loads it). The ZIP carries `manifest.json`, `labels.txt` and `MODEL_CARD.md`; the
manifest holds the digest of the flatbuffer before it, so a damaged file is refused before it judges anybody.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxr_edge.errors import ModelRefused
from cxr_edge.preprocess import InputSpec

MANIFEST_VERSION = 2
TASKS = {"softmax": 1, "sigmoid": 2}
"""Each task and the manifest version that brought it: a box with an older cxr-edge is told to update."""
SHIPPED = Path(__file__).parent / "models" / "cxr-multitask.tflite"
_NUMBER = (int, float)
_MANIFEST_FIELDS = {
    "name": str,
    "task": str,
    "labels": list,
    "input": dict,
    "outputs": dict,
    "temperature": _NUMBER,
    "uncertain_below": _NUMBER,
    "mask_threshold": _NUMBER,
    "tflite_sha256": str,
    "about": dict,
}
_INPUT_FIELDS = {
    "height": int,
    "width": int,
    "channels": int,
    "resampling": str,
    "low_percentile": _NUMBER,
    "high_percentile": _NUMBER,
}
_MAKE_ONE = "convert a Keras model with cxr-convert, or leave --model out to use the shipped one"


@dataclass(frozen=True)
class Manifest:
    """What a model file says of itself. Every field is required on load.

    `task` is 'softmax', one probability for each label, or 'sigmoid', one probability, of the second of two labels;
    `outputs` maps `probabilities` (and `mask`, where there is one) to tensor names of the flatbuffer;
    `temperature` is of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017;
    `uncertain_below` and `mask_threshold` are probabilities in [0, 1]; `about` is told to people, never computed with.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    input: InputSpec
    outputs: dict[str, str]
    temperature: float
    uncertain_below: float
    mask_threshold: float
    tflite_sha256: str
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the manifest as JSON text."""
        content = {"manifest_version": TASKS[self.task], **vars(self)}
        content["input"] = vars(self.input)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class ModelFile:
    """A verified model: where it lies, its manifest, its card (Markdown), and the SHA-256 of the whole file."""

    path: Path
    manifest: Manifest
    card: str
    sha256: str

    @property
    def short_digest(self) -> str:
        """The first 12 hex digits of the digest: how rows name the model."""
        return self.sha256[:12]


def read(path: Path) -> ModelFile:
    """Read and verify a model file.

    Raises:
        ModelRefused: it is missing, no self-describing model, damaged, of a newer version, or contradicts itself.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        remedy = "check the path, or leave --model out to use the shipped one"
        raise ModelRefused(f"model {path} cannot be read: {error.strerror}", remedy) from error
    if content[4:8] != b"TFL3":
        raise ModelRefused(f"{path} is not a TFLite model", _MAKE_ONE)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            start = min(entry.header_offset for entry in archive.infolist())
            text = archive.read("manifest.json").decode()
            card = archive.read("MODEL_CARD.md").decode()
    except Exception as error:  # zipfile raises anything on damaged archives
        raise ModelRefused(f"{path} does not describe itself, or is cut short ({error})", _MAKE_ONE) from error
    manifest = parse_manifest(text, str(path))
    if hashlib.sha256(content[:start]).hexdigest() != manifest.tflite_sha256:
        raise ModelRefused(f"{path} is damaged: its weights do not match its manifest", "copy the file again")
    return ModelFile(path, manifest, card, hashlib.sha256(content).hexdigest())


def parse_manifest(text: str, name: str) -> Manifest:
    """Parse and validate manifest JSON; `name` is the model's, for messages. Raises ModelRefused."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")
        version = raw.pop("manifest_version")
        if not isinstance(version, int) or version > MANIFEST_VERSION:
            remedy = "update cxr-edge on this box"
            raise ModelRefused(f"{name} has a manifest of version {version}, newer than {MANIFEST_VERSION}", remedy)
        _require(raw, _MANIFEST_FIELDS, "manifest")
        _require(raw["input"], _INPUT_FIELDS, "input")
        manifest = Manifest(**{**raw, "input": InputSpec(**raw["input"]), "labels": tuple(raw["labels"])})
        _validate(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"{name} has a manifest that makes no sense: {error}", _MAKE_ONE) from error
    return manifest


def _require(raw: Any, kinds: dict[str, Any], name: str) -> None:
    """Every field and nothing else: a default taken for a missing threshold would judge people."""
    if not isinstance(raw, dict) or set(raw) != set(kinds):
        raise ValueError(f"the fields of {name} are not {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
            raise ValueError(f"{key} is {raw[key]!r}")


def _validate(manifest: Manifest) -> None:
    labels = manifest.labels
    if manifest.task not in TASKS:
        raise ValueError(f"task {manifest.task!r} is unknown")
    if len(labels) < 2 or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels {labels!r} are not at least two different words")
    if manifest.task == "sigmoid" and len(labels) != 2:
        raise ValueError(f"a sigmoid tells two labels apart, not {len(labels)}")
    if "uncertain" in labels:
        raise ValueError("a label is called 'uncertain', which is a verdict of its own")
    if "probabilities" not in manifest.outputs or not set(manifest.outputs) <= {"probabilities", "mask"}:
        raise ValueError(f"outputs {sorted(manifest.outputs)} are not probabilities and, at most, mask")
    if not 0 < manifest.temperature < math.inf:
        raise ValueError(f"temperature {manifest.temperature} is not positive")
    if not (0 <= manifest.uncertain_below <= 1 and 0 < manifest.mask_threshold < 1):
        raise ValueError("a threshold is outside 0 to 1")
