"""Manifest, labels and model card, appended to the flatbuffer as a ZIP."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from cxr_edge.model_file import Manifest

INTENDED_USE = (
    "Research and triage aid for frontal chest radiographs, never a diagnosis. Not a medical device. A person who may "
    "judge radiographs must look at every picture that matters."
)
_BACKBONES = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50", "vgg16": "VGG16"}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def package(flatbuffer: bytes, manifest: Manifest, card: str) -> bytes:
    """Append `manifest.json`, `labels.txt` and `MODEL_CARD.md` as a ZIP; the same input gives the same bytes."""
    content = io.BytesIO()
    content.write(flatbuffer)
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (
            ("manifest.json", manifest.to_json()),
            ("labels.txt", "\n".join(manifest.labels) + "\n"),
            ("MODEL_CARD.md", card),
        ):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return content.getvalue()


def model_card(manifest: Manifest) -> str:
    """Write the model card, Markdown, from what the manifest says: nothing in it is typed by hand."""
    about = manifest.about
    parts = [
        f"# {manifest.name}",
        f"{about['intended_use']}",
        _facts(manifest),
        "## Figures of this int8 file, by origin of the pictures",
        _caution(external=any(record["split"] == "external" for record in about["figures"])),
        _figures(about["figures"], manifest),
        "## Float against int8",
        _parity(about["parity"], manifest),
        "## Training data",
        _counts(about["training_data"], ("origin", "label", "split", "pictures")),
        "Licences of the training and validation pictures, in the words of their sources. They bind whoever passes "
        "the model on; several forbid commercial use, some are not stated.",
        _counts(about["data_licences"], ("origin", "licence", "pictures")),
    ]
    return "\n\n".join(parts) + "\n"


def _caution(*, external: bool) -> str:
    elsewhere, where = "`external` comes from elsewhere and was used for nothing", "look at `external`, and"
    if not external:
        elsewhere, where = "The table has no pictures from elsewhere (`external`)", "look"
    return (
        "`test` holds groups (patients, near-duplicates) that training never saw, from the same origins. "
        f"{elsewhere}. A high figure on `test` is no evidence for another hospital: "
        f"{where} at the differences between origins. *Uncertain* pictures get no label; "
        "*when certain* is the accuracy of the rest."
    )


def _facts(manifest: Manifest) -> str:
    about, spec = manifest.about, manifest.input
    lines = [
        f"Labels: {', '.join(manifest.labels)}; lung mask: {'yes' if 'mask' in manifest.outputs else 'no'}",
        f"Input: {spec.width} x {spec.height} gray, intensities stretched between the percentiles "
        f"{spec.low_percentile:g} and {spec.high_percentile:g}",
        f"Network: {network(about['training'])}",
        f"Calibration: temperature {manifest.temperature:g}; expected calibration error on `test` "
        f"{about['ece_before']:.3f} before, {about['ece_after']:.3f} after",
        f"Uncertain: below a calibrated probability of {manifest.uncertain_below:.3f}, from which on "
        f"{about['reliable']:.0%} of the verdicts were right on `validation`, where the threshold was chosen",
        f"Runs on: {about['minimum_runtime']} and later; compared here on {about['parity_runtime']}",
        f"Made by: {about['tool']}",
        f"Licence of the weights: {about['licence']}",
        f"Digests (SHA-256): flatbuffer {manifest.tflite_sha256[:12]}, Keras model {about['keras_sha256'][:12]}, "
        f"data table {about['table_sha256'][:12]}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def network(training: dict[str, Any]) -> str:
    """One line on the network and how it was fitted, from the settings of the run; absent ones are left out."""
    name = training.get("network", "multitask")
    if name in ("multitask", "transfer"):
        # The first cxr-train fitted MobileNetV2 alone: its settings name no backbone, but an alpha.
        name = training.get("backbone") or ("mobilenet_v2" if "alpha" in training else "not stated")
    parts = [_BACKBONES.get(name, name)]
    if name == "mobilenet_v2" and training.get("alpha"):
        parts.append(f"alpha {training['alpha']:g}")
    if "weights" in training:
        parts.append(f"first weights {training['weights'] or 'random'}")
    frozen, fine = training.get("frozen_epochs"), training.get("fine_epochs")
    if fine is not None:
        parts.append(f"{frozen} frozen and {fine} fine-tuning epochs" if frozen else f"{fine} epochs")
    if "seed" in training:
        parts.append(f"seed {training['seed']}")
    return ", ".join(parts)


def _figures(records: list[dict[str, Any]], manifest: Manifest) -> str:
    labels, masked = manifest.labels, "mask" in manifest.outputs
    head = ["split", "origin", "pictures", "accuracy", *(f"sensitivity {label}" for label in labels)]
    head += [*(["lung Dice (masks)"] if masked else []), "uncertain", "when certain"]
    body = []
    for record in records:
        row = [record["split"], record["origin"], str(record["pictures"]), _number(record["accuracy"])]
        row += [_number(record["sensitivity"].get(label)) for label in labels]
        if masked:
            row.append(f"{record['dice']:.3f} ({record['masks']})" if record["masks"] else "-")
        body.append([*row, f"{record['uncertain_pct']:.0f} %", _number(record["accuracy_when_certain"])])
    return _table(head, body)


def _parity(parity: dict[str, Any], manifest: Manifest) -> str:
    wide, narrow = parity["float"], parity["int8"]
    body = [
        ["accuracy", _number(wide["accuracy"]), _number(narrow["accuracy"])],
        *([f"sensitivity {k}", _number(v), _number(narrow["sensitivity"][k])] for k, v in wide["sensitivity"].items()),
    ]
    if "mask" in manifest.outputs:
        body.append(["lung Dice", _number(wide["dice"]), _number(narrow["dice"])])
    certain = parity["flips_of_certain_pct"]
    return (
        _table(["on `test`", "float", "int8"], body)
        + f"\n\nVerdict flips: {parity['flips_pct']:g} % of {parity['pictures']} pictures, "
        + ("none is certain" if certain is None else f"{certain:g} % of those that are not uncertain")
        + f"; mean absolute probability error {parity['mean_abs_probability_error']:g}."
    )


def _counts(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    return _table(list(columns), [[str(record[column]) for column in columns] for record in records])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
