"""The whole conversion: quantise, compare, calibrate, describe, write."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from cxr_convert import calibrate, describe, parity, predict, quantise, table
from cxr_edge import judge, model_file
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_edge.model_file import Manifest, ModelFile
from cxr_edge.preprocess import InputSpec
from cxr_edge.runtime import Engine, find_runtime

CALIBRATION_PICTURES = 300
MASK_THRESHOLD = 0.5


def convert(model_path: Path, table_path: Path, out: Path, licence: str, seed: int = 0) -> ModelFile:
    """Convert a model that `cxr-train fit` made to an int8 file that describes itself.

    Args:
        model_path: `model.keras`, with the `model.json` that `fit` wrote beside it.
        table_path: the table it was trained on: `train` calibrates the integers, `validation` chooses temperature and
            threshold, `test` and `external` are only reported.
        out: the file to write.
        licence: of the weights, for the manifest.

    Raises:
        UsageError: the model, its description or the table cannot be used.
        OutputUnwritable: `out` cannot be written.
    """
    description = _read_description(model_path)
    labels, spec = list(description["labels"]), InputSpec(**description["input"])
    rows = table.read(table_path)
    if unknown := sorted(set(rows["label"]) - set(labels)):
        raise UsageError(f"{table_path}: the model has no label {unknown}", "give the table it was trained on")
    model = keras.models.load_model(model_path, compile=False)

    chosen = table.representative(rows, CALIBRATION_PICTURES, seed)
    flatbuffer = quantise.to_int8(model, spec, (predict.read_input(path, spec) for path in chosen["path"]))
    runtime = find_runtime()
    draft = Manifest(
        name=out.stem,
        task="softmax",
        labels=tuple(labels),
        input=spec,
        outputs=quantise.output_tensors(flatbuffer, runtime),
        temperature=1.0,
        uncertain_below=0.0,
        mask_threshold=MASK_THRESHOLD,
        tflite_sha256=hashlib.sha256(flatbuffer).hexdigest(),
    )
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.tflite"
        bare.write_bytes(flatbuffer)
        engine = Engine(runtime, ModelFile(bare, draft, "", ""))
        held_out = rows[rows["split"] != "train"]
        predictions = predict.side_by_side(model, engine, held_out, spec, MASK_THRESHOLD)

    about = {
        "intended_use": describe.INTENDED_USE,
        "licence": licence,
        "tool": description["tool"],
        "parity_runtime": f"{runtime.name} {runtime.version}",
        "minimum_runtime": f"TensorFlow Lite {quantise.minimum_runtime(flatbuffer)}",
        "calibration_pictures": len(chosen),
        "keras_sha256": table.digest(model_path),
        "table_sha256": table.digest(table_path),
        "training": description["training"],
        "training_data": description["data"],
        "data_licences": description["licences"],
    }
    manifest = _judge_by_validation(draft, predictions, labels, about)
    content = describe.package(flatbuffer, manifest, describe.model_card(manifest))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temp = out.with_name(f".{out.name}.tmp")
        temp.write_bytes(content)
        temp.replace(out)
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written: {error.strerror}", "choose another -o") from error
    return model_file.read(out)


def _judge_by_validation(draft: Manifest, predictions: Any, labels: list[str], about: dict[str, Any]) -> Manifest:
    validation, test = (predictions[predictions["split"] == name] for name in ("validation", "test"))
    truth = parity.truth(validation, labels)
    temperature = calibrate.temperature(parity.quantised(validation), truth)
    threshold = calibrate.uncertain_below(judge.calibrate(parity.quantised(validation), temperature), truth)

    test_truth, raw = parity.truth(test, labels), parity.quantised(test)
    about |= {
        "ece_before": calibrate.expected_calibration_error(judge.calibrate(raw, 1.0), test_truth),
        "ece_after": calibrate.expected_calibration_error(judge.calibrate(raw, temperature), test_truth),
        "reliable": calibrate.RELIABLE,
        "parity": parity.parity(test, labels, temperature, threshold),
        "figures": parity.figures(predictions, labels, temperature, threshold),
    }
    return replace(draft, temperature=temperature, uncertain_below=threshold, about=about)


def _read_description(model_path: Path) -> dict[str, Any]:
    file = model_path.with_suffix(".json")
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read ({error})", "keep model.json beside model.keras") from error
