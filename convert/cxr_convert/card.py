"""The model card, Markdown, from what the manifest says: nothing in it is typed by hand."""

from __future__ import annotations

from typing import Any

from cxr_convert.options import Wishes
from cxr_edge.manifest import Manifest
from cxr_edge.report import NOT_A_DIAGNOSIS

INTENDED_USE = (
    "Research and triage aid for frontal chest radiographs, never a diagnosis. Not a medical device. A person who may "
    "judge radiographs must look at every picture that matters."
)
_BACKBONES = {"mobilenet_v2": "MobileNetV2", "resnet50": "ResNet50", "vgg16": "VGG16"}
_TYPES = {
    "int8": "int8",
    "float32": "float32",
    "float16": "float16 weights, computed in float32",
    "dynamic": "int8 weights, the rest computed in float32 (dynamic range)",
}


def model_card(manifest: Manifest) -> str:
    """Write the card of a converted Keras model (`about` has `training`) or of somebody else's file."""
    about = manifest.about
    elsewhere = any(record["split"] == "external" for record in about["figures"])
    parts = [
        f"# {manifest.name}",
        f"{about['intended_use']}",
        _facts(manifest),
        "## Operating points",
        _points(manifest),
        "## Figures of this file, by origin of the pictures",
        _caution(external=elsewhere, ours="training" in about),
        _figures(about["figures"], manifest),
        "## Float against this file",
        *_float_against_file(manifest),
        "## Runtimes",
        _runtimes(about),
        "## Training data",
        *_training_data(about),
    ]
    return "\n\n".join(parts) + "\n"


def purpose(wishes: Wishes) -> dict[str, str]:
    """What a manifest's `about` says of use and licence."""
    use = f"{wishes.intended_use} {NOT_A_DIAGNOSIS}" if wishes.intended_use else INTENDED_USE
    return {"intended_use": use, "licence": wishes.licence}


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


def _facts(manifest: Manifest) -> str:
    about, spec = manifest.about, manifest.input
    coverage = about["coverage_pct"]
    stretched = (spec.low_percentile, spec.high_percentile) != (0, 100)
    intensities = (
        f"intensities stretched between the percentiles {spec.low_percentile:g} and {spec.high_percentile:g}"
        if stretched
        else f"intensities as they are, black as {spec.black:g} and white as {spec.white:g}"
    )
    digests = {
        "flatbuffer": manifest.tflite_sha256,
        "Keras model": about.get("keras_sha256"),
        "data table": about["table_sha256"],
    }
    lines = [
        f"Labels: {', '.join(manifest.labels)}; lung mask: {'yes' if 'mask' in manifest.outputs else 'no'}",
        f"Label that says that nothing was found: {manifest.negative}",
        f"Input: {spec.width} x {spec.height} gray{' in three channels' if spec.channels == 3 else ''}, {intensities}",
        *([f"Network: {network(about['training'])}"] if "training" in about else []),
        f"Numbers: {_TYPES[about['type']]}",
        f"Calibration: temperature {manifest.temperature:g}; expected calibration error on `test` "
        f"{about['ece_before']:.3f} before, {about['ece_after']:.3f} after",
        f"Uncertain: below a calibrated probability of {manifest.uncertain_below:.3f}, from which on "
        f"{about['reliable']:.0%} of the verdicts were right on `validation`, where the threshold was chosen; the rest "
        f"is {coverage['validation']:g} % of `validation` and {coverage['test']:g} % of `test`",
        *_gates(manifest),
        f"Made by: {about['tool']}",
        f"Licence of the weights: {about['licence']}",
        "Digests (SHA-256): " + ", ".join(f"{name} {digest[:12]}" for name, digest in digests.items() if digest),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _gates(manifest: Manifest) -> list[str]:
    lines = []
    if manifest.familiar is not None:
        lines.append("Not judged: what lies too far from the training pictures (distance in the embedding)")
    if manifest.lung_area_pct is not None:
        low, high = manifest.lung_area_pct
        lines.append(f"Not judged: pictures with lungs on less than {low:g} % or more than {high:g} % of the frame")
    elif "mask" in manifest.outputs:
        lines.append("Pictures without lungs are not kept out: the mask finds none in `validation` either")
    if manifest.affected is not None:
        lines.append(f"Affected area: {manifest.affected.definition}")
        lines += [
            f"Against outlines of opacities, `{each['split']}` ({each['pictures']} pictures): AUC over the "
            f"lung's pixels {each['pixel_auc']:.3f}; the peak lies in an opacity in {each['peak_hit']:.0%}, by chance "
            f"{each['by_chance']:.0%}"
            for each in manifest.about.get("opacities", [])
        ]
    return lines


def _points(manifest: Manifest) -> str:
    about = manifest.about
    head = ["operating point", "a finding from", "sensitivity `validation`", "specificity `validation`"]
    head += ["sensitivity `test`", "specificity `test`"]
    body = []
    for point, parts in about["operating_points"].items():
        row = [point, f"{manifest.operating_points[point]:g}"]
        row += [_number(parts[split][figure]) for split in parts for figure in ("sensitivity", "specificity")]
        body.append(row)
    return (
        f"Calibrated probability of a finding (all labels but {manifest.negative}) from which on the verdict is one, "
        f"chosen on `validation`; the figures count findings of whatever label, uncertain ones too. "
        f"The rest of this card is told at the point `{about['default_point']}`.\n\n" + _table(head, body)
    )


def _caution(*, external: bool, ours: bool) -> str:
    elsewhere, where = "`external` comes from elsewhere and was used for nothing", "look at `external`, and"
    if not external:
        elsewhere, where = "The table has no pictures from elsewhere (`external`)", "look"
    unseen = (
        "`test` holds groups (patients, near-duplicates) that training never saw, from the same origins. "
        if ours
        else "Whether training saw the pictures of `validation` and `test` is not known here. "
    )
    return (
        f"{unseen}{elsewhere}. A high figure on `test` is no evidence for another hospital: "
        f"{where} at the differences between origins. *Uncertain* pictures get no label; "
        "*when certain* is the accuracy of the rest."
    )


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


def _float_against_file(manifest: Manifest) -> list[str]:
    about = manifest.about
    if "parity" not in about:
        return ["Not compared: the file came as it is, without the model that it was made from."]
    parts = []
    if about["over_budget"]:
        parts.append(f"**Over budget**, and written all the same: {'; '.join(about['over_budget'])}.")
    names, records = list(about["parity"]), list(about["parity"].values())
    wide = records[0]["float"]
    rows = [("accuracy", "accuracy", None)]
    rows += [(f"{figure} {label}", figure, label) for figure in ("sensitivity", "auc") for label in wide[figure]]
    rows += [("lung Dice", "dice", None)] if "mask" in manifest.outputs else []
    body = []
    for title, figure, label in rows:
        values = [wide[figure], *(record["file"][figure] for record in records)]
        body.append([title.replace("auc", "AUC"), *(_number(v if label is None else v[label]) for v in values)])
    parts.append(_table(["on `test`", "float", *names], body))
    for name, record in about["parity"].items():
        certain = record["flips_of_certain_pct"]
        sentence = (
            f"{name}: verdict flips {record['flips_pct']:g} % of {record['pictures']} pictures, "
            + ("none is certain" if certain is None else f"{certain:g} % of those that are not uncertain")
            + f"; mean absolute probability error {record['mean_abs_probability_error']:g}."
        )
        if agreement := record.get("agreement"):
            sentence += (
                f" Beside {names[0]}: {agreement['certain_that_differ']} certain verdicts differ, mean absolute "
                f"difference {agreement['mean_abs_difference']:g}."
            )
        parts.append(sentence)
    return parts


def _runtimes(about: dict[str, Any]) -> str:
    lines = [f"Runs on: {about['minimum_runtime'] or 'a version that its converter did not name'} and later"]
    lines += [
        f"{each['runtime']}: {'runs, ' + each['kernels'] if each['runs'] else 'does not run (' + each['reason'] + ')'}"
        for each in about["runtimes"]
    ]
    listed = ", ".join(f"{each['operator']} {each['version']}" for each in about["operators"])
    return "\n".join(f"- {line}" for line in [*lines, f"Operators and their versions: {listed}"])


def _training_data(about: dict[str, Any]) -> list[str]:
    if "training" not in about:
        return ["Not known here. Ask whoever made the model, and for the licences of the pictures."]
    return [
        _counts(about["training_data"], ("origin", "label", "split", "pictures")),
        "Licences of the training and validation pictures, in the words of their sources. They bind whoever passes "
        "the model on; several forbid commercial use, some are not stated.",
        _counts(about["data_licences"], ("origin", "licence", "pictures")),
    ]


def _counts(records: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    return _table(list(columns), [[str(record[column]) for column in columns] for record in records])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(head: list[str], body: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
