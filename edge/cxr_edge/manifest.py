"""What a model says of itself, `manifest.json`: the fields, their meaning, and what makes sense.

Every field is required on load and none besides: a default taken for a missing threshold would judge people.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_edge.errors import ModelRefused
from cxr_edge.preprocess import InputSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

MANIFEST_VERSION = 3
TASKS = ("softmax", "sigmoid")
OPERATING_POINTS = ("screening", "balanced", "rule-in")
DEFAULT_POINT = "balanced"
OUTPUTS = ("probabilities", "mask", "activation", "embedding")
MAKE_ONE = "convert a Keras model with cxr-convert, or give any .tflite a manifest with: cxr-convert describe"
_NUMBER = (int, float)
_KINDS: dict[str, Any] = {
    "name": str,
    "task": str,
    "labels": list,
    "negative": str,
    "input": dict,
    "outputs": dict,
    "temperature": _NUMBER,
    "uncertain_below": _NUMBER,
    "operating_points": dict,
    "mask_threshold": _NUMBER,
    "lung_area_pct": (list, type(None)),
    "familiar": (dict, type(None)),
    "affected": (dict, type(None)),
    "tflite_sha256": str,
    "about": dict,
}


@dataclass(frozen=True)
class Familiar:
    """What training pictures look like to the model: where a picture lies too far from them, it is not judged.

    With e the `embedding` output, float[d], the distance is |(e - mean) @ whitening|, `mean` float[d], `whitening`
    float[d][k]; a picture beyond `limit` is out of distribution. Source: Lee et al., "A Simple Unified Framework for
    Detecting Out-of-Distribution Samples and Adversarial Attacks", NeurIPS 2018, with one Gaussian for all labels.
    """

    mean: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    limit: float

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`mean` and `whitening` as arrays, made once: each picture is measured by them."""
        return np.array(self.mean), np.array(self.whitening)


@dataclass(frozen=True)
class Affected:
    """Which part of the lung counts as affected: cells whose probability, by the `activation` output, of any label but
    the negative one is at least `threshold`; `definition` says so to people, with how the threshold was chosen."""

    threshold: float
    definition: str


@dataclass(frozen=True)
class Manifest:
    """What a model file says of itself.

    Attributes:
        task: 'softmax', one probability for each label, or 'sigmoid', one probability, of the second of two labels.
        negative: the label that says that nothing was found; all others are findings.
        outputs: tensor names of `probabilities` [1, labels or 1], and where the model has them: `mask` [1, h, w, 1],
            probability of lung; `activation` [1, h, w, labels], probability of each label by what lies in that cell;
            `embedding` [1, d], for `familiar`.
        temperature: positive. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
        uncertain_below: calibrated probability, [0, 1], that the verdict's label must have.
        operating_points: by name, the calibrated probability of a finding, [0, 1], from which on the verdict is one.
        mask_threshold: probability, (0, 1), from which on a pixel is lung.
        lung_area_pct: least and greatest share of the frame that the lungs of a radiograph cover, percent, or None.
        familiar: None where the model has no `embedding`.
        affected: None where the model has no `activation`.
        tflite_sha256: of the flatbuffer.
        about: told to people, never computed with.
    """

    name: str
    task: str
    labels: tuple[str, ...]
    negative: str
    input: InputSpec
    outputs: dict[str, str]
    temperature: float
    uncertain_below: float
    operating_points: dict[str, float]
    mask_threshold: float
    lung_area_pct: tuple[float, float] | None
    familiar: Familiar | None
    affected: Affected | None
    tflite_sha256: str
    about: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Write the manifest as JSON text."""
        content = {"manifest_version": MANIFEST_VERSION, **asdict(self)}
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def parse_manifest(text: str, name: str) -> Manifest:
    """Parse and validate manifest JSON; `name` is the model's, for messages. Raises ModelRefused."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("it is no JSON object")
        _check_version(raw.pop("manifest_version"), name)
        _require(raw, _KINDS, "manifest")
        manifest = Manifest(**{**raw, **_parts(raw)})
        _validate(manifest)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelRefused(f"{name} has a manifest that makes no sense: {error}", MAKE_ONE) from error
    return manifest


def _check_version(version: Any, name: str) -> None:
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError(f"manifest_version is {version!r}")
    if version > MANIFEST_VERSION:
        remedy = "update cxr-edge on this box"
        raise ModelRefused(f"{name} has a manifest of version {version}, newer than {MANIFEST_VERSION}", remedy)
    if version < MANIFEST_VERSION:
        remedy = "convert the Keras model again with cxr-convert"
        raise ModelRefused(f"{name} has a manifest of version {version}, older than {MANIFEST_VERSION}", remedy)


def _parts(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields that JSON has no type for."""
    spec = raw["input"]
    _require(spec, {each.name: str if each.name == "resampling" else _NUMBER for each in fields(InputSpec)}, "input")
    if not all(isinstance(spec[side], int) and spec[side] > 0 for side in ("height", "width", "channels")):
        raise ValueError("height, width and channels of the input are not whole positive numbers")
    parts: dict[str, Any] = {"labels": tuple(raw["labels"]), "input": InputSpec(**spec)}
    if (area := raw["lung_area_pct"]) is not None:
        parts["lung_area_pct"] = _numbers(area)
    if (familiar := raw["familiar"]) is not None:
        _require(familiar, {"mean": list, "whitening": list, "limit": _NUMBER}, "familiar")
        whitening = tuple(_numbers(row) for row in familiar["whitening"])
        parts["familiar"] = Familiar(_numbers(familiar["mean"]), whitening, familiar["limit"])
    if (affected := raw["affected"]) is not None:
        _require(affected, {"threshold": _NUMBER, "definition": str}, "affected")
        parts["affected"] = Affected(**affected)
    return parts


def _numbers(values: Any) -> tuple[float, ...]:
    if not all(isinstance(value, _NUMBER) and math.isfinite(value) for value in values):
        raise ValueError(f"{str(values)[:40]} are not all numbers")
    return tuple(values)


def _require(raw: Any, kinds: dict[str, Any], name: str) -> None:
    """Every field, of its kind, and nothing else."""
    if not isinstance(raw, dict) or set(raw) != set(kinds):
        raise ValueError(f"the fields of {name} are not {', '.join(kinds)}")
    for key, kind in kinds.items():
        if not isinstance(raw[key], kind) or isinstance(raw[key], bool):
            raise ValueError(f"{key} is {raw[key]!r}")


def _validate(manifest: Manifest) -> None:
    _validate_labels(manifest)
    outputs, points = manifest.outputs, manifest.operating_points
    if "probabilities" not in outputs or not set(outputs) <= set(OUTPUTS):
        raise ValueError(f"outputs {sorted(outputs)} are not probabilities and, at most, mask, activation, embedding")
    if not all(isinstance(tensor, str) for tensor in outputs.values()):
        raise ValueError("an output is not named by a word")
    if not 0 < manifest.temperature < math.inf:
        raise ValueError(f"temperature {manifest.temperature} is not positive")
    if set(points) != set(OPERATING_POINTS) or not all(isinstance(value, _NUMBER) for value in points.values()):
        raise ValueError(f"operating points are not {', '.join(OPERATING_POINTS)}, each with a number")
    if not all(0 <= value <= 1 for value in (manifest.uncertain_below, *points.values())):
        raise ValueError("a threshold is outside 0 to 1")
    if not 0 < manifest.mask_threshold < 1:
        raise ValueError(f"mask_threshold {manifest.mask_threshold} is not between 0 and 1")
    area = manifest.lung_area_pct
    if area is not None and not ("mask" in outputs and len(area) == 2 and 0 <= area[0] < area[1] <= 100):
        raise ValueError(f"lung_area_pct {area} is no range of percents, or the model has no mask")
    if (manifest.familiar is None) != ("embedding" not in outputs):
        raise ValueError("familiar and the output embedding go together")
    if manifest.familiar is not None:
        _validate_familiar(manifest.familiar)
    if (manifest.affected is None) != ("activation" not in outputs):
        raise ValueError("affected and the output activation go together")
    if manifest.affected is not None and not ("mask" in outputs and 0 < manifest.affected.threshold <= 1):
        raise ValueError("affected has a threshold outside 0 to 1, or the model has no mask")


def _validate_labels(manifest: Manifest) -> None:
    labels = manifest.labels
    if manifest.task not in TASKS:
        raise ValueError(f"task {manifest.task!r} is unknown")
    if len(labels) < 2 or len(set(labels)) != len(labels) or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"labels {labels!r} are not at least two different words")
    if manifest.task == "sigmoid" and len(labels) != 2:
        raise ValueError(f"a sigmoid tells two labels apart, not {len(labels)}")
    if "uncertain" in labels:
        raise ValueError("a label is called 'uncertain', which is a verdict of its own")
    if manifest.negative not in labels:
        raise ValueError(f"the negative label {manifest.negative!r} is none of {', '.join(labels)}")


def _validate_familiar(familiar: Familiar) -> None:
    widths = {len(row) for row in familiar.whitening}
    if not familiar.mean or len(familiar.whitening) != len(familiar.mean) or len(widths) != 1 or 0 in widths:
        raise ValueError("mean and whitening of familiar do not fit each other")
    if not 0 < familiar.limit < math.inf:
        raise ValueError(f"the limit {familiar.limit} of familiar is not positive")
