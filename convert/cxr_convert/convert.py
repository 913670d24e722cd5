"""The whole conversion: quantise, compare, calibrate, describe, write."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_convert import calibrate, describe, parity, predict, quantise, source, table
from cxr_edge import model_file
from cxr_edge.errors import OutputUnwritable, UsageError
from cxr_edge.model_file import Manifest, ModelFile
from cxr_edge.report import NOT_A_DIAGNOSIS
from cxr_edge.runtime import Engine, find_runtime

CALIBRATION_PICTURES = 300
MASK_THRESHOLD = 0.5


def convert(
    model_path: Path, table_path: Path, out: Path, licence: str, intended_use: str | None = None, seed: int = 0
) -> ModelFile:
    """Convert a model that `cxr-train fit` made to an int8 file that describes itself.

    Args:
        model_path: `model.keras`, with the `model.json` that `fit` wrote beside it.
        table_path: the table it was trained on: `train` calibrates the integers, `validation` chooses temperature and
            threshold, `test` and, where there is one, `external` are only reported.
        out: the file to write.
        licence: of the weights, for the manifest.
        intended_use: for the manifest; None for frontal chest radiographs.
        seed: of the choice of pictures that calibrate the integers.

    Raises:
        UsageError: the model, its description or the table cannot be used.
        OutputUnwritable: `out` cannot be written.
    """
    description = source.read_description(model_path)
    spec = description.input
    rows = table.read(table_path)
    _check_labels(rows, description.labels, table_path)
    model = source.load_model(model_path, description)

    chosen = table.representative(rows, CALIBRATION_PICTURES, seed)
    flatbuffer = quantise.to_int8(model, spec, (predict.read_input(path, spec) for path in chosen["path"]))
    runtime = find_runtime()
    draft = Manifest(
        name=out.stem,
        task=description.task,
        labels=description.labels,
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
        predictions = predict.side_by_side(model, engine, held_out, draft)

    about = {
        "intended_use": f"{intended_use} {NOT_A_DIAGNOSIS}" if intended_use else describe.INTENDED_USE,
        "licence": licence,
        "tool": description.tool,
        "parity_runtime": f"{runtime.name} {runtime.version}",
        "minimum_runtime": f"TensorFlow Lite {quantise.minimum_runtime(flatbuffer)}",
        "calibration_pictures": len(chosen),
        "keras_sha256": table.digest(model_path),
        "table_sha256": table.digest(table_path),
        "training": description.training,
        "training_data": description.data,
        "data_licences": description.licences,
    }
    manifest = _judge_by_validation(draft, predictions, about)
    content = describe.package(flatbuffer, manifest, describe.model_card(manifest))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temp = out.with_name(f".{out.name}.tmp")
        temp.write_bytes(content)
        temp.replace(out)
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written: {error.strerror}", "choose another -o") from error
    return model_file.read(out)


def _check_labels(rows: pd.DataFrame, labels: tuple[str, ...], table_path: Path) -> None:
    if unknown := sorted(set(rows["label"]) - set(labels)):
        raise UsageError(f"{table_path}: the model has no label {unknown}", "give the table it was trained on")
    if absent := sorted(set(labels) - set(rows.loc[rows["split"] == "validation", "label"])):
        sentence = f"{table_path}: no validation picture has the label {absent}, so no threshold can be chosen"
        raise UsageError(sentence, "make the table again with: cxr-train table")


def _judge_by_validation(draft: Manifest, predictions: pd.DataFrame, about: dict[str, Any]) -> Manifest:
    validation, test = (predictions[predictions["split"] == name] for name in ("validation", "test"))
    truth = parity.truth(validation, draft.labels)
    manifest = replace(draft, temperature=calibrate.temperature(parity.quantised(validation), truth, draft.task))
    threshold = calibrate.uncertain_below(parity.calibrated(validation, manifest), truth)
    manifest = replace(manifest, uncertain_below=threshold)

    test_truth = parity.truth(test, draft.labels)
    about |= {
        "ece_before": calibrate.expected_calibration_error(parity.calibrated(test, draft), test_truth),
        "ece_after": calibrate.expected_calibration_error(parity.calibrated(test, manifest), test_truth),
        "reliable": calibrate.RELIABLE,
        "parity": parity.parity(test, manifest),
        "figures": parity.figures(predictions, manifest),
    }
    return replace(manifest, about=about)
