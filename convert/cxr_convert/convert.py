"""The whole conversion: convert, compare, choose thresholds, describe, write."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from cxr_convert import (
    card,
    describe,
    flatbuffer,
    gates,
    opacity,
    parity,
    predict,
    quantise,
    runtimes,
    source,
    table,
    thresholds,
)
from cxr_convert.options import Wishes
from cxr_edge.errors import ModelRefused, UsageError
from cxr_edge.manifest import Familiar, Manifest
from cxr_edge.model_file import ModelFile
from cxr_edge.runtime import Engine, find_runtime

REPRESENTATIVE_PICTURES = 500
MASK_THRESHOLD = 0.5


def convert(
    model_path: Path,
    table_path: Path,
    out: Path,
    wishes: Wishes,
    kind: str = "int8",
    over_budget: bool = False,
    seed: int = 0,
) -> ModelFile:
    """Convert a model that `cxr-train fit` made to a file that describes itself.

    Args:
        model_path: `model.keras`, with the `model.json` that `fit` wrote beside it.
        table_path: the table it was trained on: `train` calibrates the integers, `validation` chooses temperature and
            thresholds, `test` and, where there is one, `external` are only reported.
        out: the file to write.
        kind: one of `options.TYPES`.
        over_budget: write a file that differs too much from the Keras model (see `parity`) all the same.
        seed: of the choice of training pictures.

    Raises:
        UsageError: the model, its description or the table cannot be used.
        ModelRefused: the file differs too much from the Keras model, or an output of it is of no use.
        OutputUnwritable: `out` cannot be written.
    """
    description = source.read_description(model_path)
    spec, labels = description.input, description.labels
    negative = negative_label(labels, wishes)
    rows = table.read(table_path)
    check_labels(rows, labels, table_path)
    model = source.load_model(model_path, description)

    count = REPRESENTATIVE_PICTURES if kind == "int8" else 0
    chosen = [predict.read_input(path, spec) for path in table.representative(rows, count, seed)["path"]]
    content = quantise.to_tflite(model, spec, kind, chosen)
    draft = Manifest(
        name=out.stem,
        task=description.task,
        labels=labels,
        negative=negative,
        input=spec,
        outputs=quantise.output_tensors(content, find_runtime()),
        temperature=1.0,
        uncertain_below=0.0,
        operating_points={},
        mask_threshold=MASK_THRESHOLD,
        lung_area_pct=None,
        familiar=_placeholder(model),
        affected=None,
        tflite_sha256=hashlib.sha256(content).hexdigest(),
    )
    with runtimes.engines(content, draft) as (engines, tried):
        preferred = next(iter(engines.values()))
        held_out = rows[rows["split"] != "train"]
        predictions = held_out.join(predict.by_file(preferred, held_out, draft))
        training = None
        if draft.familiar is not None:
            sample = table.representative(rows, gates.FAMILIAR_PICTURES, seed)
            training = predict.by_file(preferred, sample, draft)
        manifest = thresholds.settle(draft, predictions, training)
        compared = _compare(model, engines, predictions, manifest)
        golden = runtimes.golden(preferred, spec)
        opacities = opacity.check(preferred, rows, manifest) if manifest.affected else []

    excess = [f"{phrase} on {name}" for name, record in compared.items() for phrase in parity.over_budget(record)]
    if excess and not over_budget:
        sentence = f"as {kind}, {model_path.name} differs too much from the Keras model, on `test`: "
        remedy = "train longer or with a larger --alpha, take --type float16, or --over-budget to write it as it is"
        raise ModelRefused(f"{sentence}{'; '.join(excess)}. Nothing was written", remedy)
    manifest.about.update(
        card.purpose(wishes)
        | of_flatbuffer(content, tried)
        | {
            "tool": description.tool,
            "representative_pictures": len(chosen),
            "keras_sha256": table.digest(model_path),
            "table_sha256": table.digest(table_path),
            "training": description.training,
            "training_data": description.data,
            "data_licences": description.licences,
        }
        | thresholds.told(manifest, draft, predictions)
        | {"parity": compared, "over_budget": excess, "opacities": opacities}
    )
    return describe.write(describe.package(content, manifest, card.model_card(manifest), golden), out)


def negative_label(labels: tuple[str, ...], wishes: Wishes) -> str:
    """The label that says that nothing was found. Raises UsageError."""
    if wishes.negative is not None and wishes.negative not in labels:
        sentence = f"the model has no label {wishes.negative!r}"
        raise UsageError(sentence, f"give --negative one of {', '.join(labels)}")
    return wishes.negative or ("normal" if "normal" in labels else labels[0])


def check_labels(rows: pd.DataFrame, labels: tuple[str, ...], table_path: Path) -> None:
    """Refuse a table from which no thresholds can be chosen for these labels. Raises UsageError."""
    if unknown := sorted(set(rows["label"]) - set(labels)):
        raise UsageError(f"{table_path}: the model has no label {unknown}", "give the table it was trained on")
    if absent := sorted(set(labels) - set(rows.loc[rows["split"] == "validation", "label"])):
        sentence = f"{table_path}: no validation picture has the label {absent}, so no threshold can be chosen"
        raise UsageError(sentence, "make the table again with: cxr-train table")


def of_flatbuffer(content: bytes, tried: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest tells of the flatbuffer itself: type, operators, runtimes."""
    parsed = flatbuffer.parse(content)
    minimum = flatbuffer.minimum_runtime(parsed)
    return {
        "type": flatbuffer.type_of(parsed),
        "operators": flatbuffer.operators(parsed),
        "minimum_runtime": f"TensorFlow Lite {minimum}" if minimum else None,
        "runtimes": tried,
    }


def _placeholder(model: keras.Model) -> Familiar | None:
    """Of the embedding's width, so that an engine takes the draft; the numbers come when it has run."""
    if "embedding" not in model.output:
        return None
    width = int(model.output["embedding"].shape[-1])
    return Familiar((0.0,) * width, ((0.0,),) * width, 1.0)


def _compare(
    model: keras.Model, engines: dict[str, Engine], predictions: pd.DataFrame, manifest: Manifest
) -> dict[str, dict[str, Any]]:
    """A parity record on the test split for each runtime; of all but the first, also its agreement with the first."""
    test = predictions[predictions["split"] == "test"]
    wide = predict.by_keras(model, test, manifest)
    columns = ["path", "label", "mask", "origin", "split"]
    records: dict[str, dict[str, Any]] = {}
    for name, engine in engines.items():
        narrow = test if not records else test[columns].join(predict.by_file(engine, test, manifest))
        records[name] = parity.parity(narrow.join(wide), manifest)
        if narrow is not test:
            records[name]["agreement"] = parity.agreement(test, narrow, manifest)
    return records
