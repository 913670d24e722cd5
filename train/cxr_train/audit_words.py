"""The verdict of the shortcut audit in words: figures in, sentences out, by the rules that stand here.

An audit can show that a model gets along without lungs; it cannot prove that it does so where it sees them, nor that a
model which failed every test here uses no shortcut at all. The sentences keep to that.
"""

from __future__ import annotations

from typing import Any

from cxr_train.audit_views import BORDER, COARSE, NO_LUNGS, ONLY_LUNGS, VIEWS, WHOLE

PART, MOST = 0.2, 0.5
"""Rule 1. A view without lungs (lungs blacked out, only the border) speaks of a part, or of most, of what the model
knows, from these shares on of what remains in it: of the accuracy above guessing, provided the 95 % interval of this
share lies above 0; or of the ROC AUC above 0.5, provided the view's interval lies above 0.5. The second is asked
because hidden lungs may push every answer towards one label while the order of the pictures is still known. The greater
of the two counts, and of the two views the worse one."""
CLEARLY, NEARLY_ALWAYS = 0.3, 0.8
"""Rule 2. Origin is told from the embedding 'clearly', or 'nearly always', from these shares on of the way from chance
to 1 that the probe's balanced accuracy has gone, provided its interval lies above chance."""
ENOUGH = 10
"""Rule 3. Age groups with at least so many pictures are compared; they differ if their intervals do not overlap."""

LEVELS = {
    "nothing": "Nothing to audit: on these pictures the model is no better than guessing, so there is nothing whose "
    "source could be looked for.",
    "little": "No shortcut found by these tests: little of what this model tells apart can be told without lungs. That "
    "is no proof that it uses none.",
    "part": "Shortcut found: a part of what this model tells apart, it tells apart without seeing a lung.",
    "most": "Shortcut found: most of what this model tells apart, it tells apart without seeing a lung.",
}
"""The first sentence, by what rule 1 found. 'nothing': neither share can be had."""
LAST = (
    "An audit can show that a model gets along without lungs; it cannot prove that it uses no shortcut. "
    "Research and triage aid, never a diagnosis."
)
WITHOUT_LUNGS = (NO_LUNGS, BORDER)
_WHERE = {
    NO_LUNGS: "with the lungs blacked out",
    ONLY_LUNGS: "with nothing but the lungs",
    BORDER: "with only the border, its outer 15 % and no lung",
    COARSE: "at 32 x 32 pixels, where fine signs are gone",
}


def level(figures: dict[str, Any]) -> str:
    """A key of `LEVELS`, by rule 1, from `audit_figures.figures`."""
    return _worst(figures)[0]


def _worst(figures: dict[str, Any]) -> tuple[str, str]:
    """The level, and by what and where it was found, for people."""
    found = []
    for name in WITHOUT_LUNGS:
        if view := figures["views"].get(name):
            found += [(_by_accuracy(view), f"accuracy {_WHERE[name]}"), (_by_area(view), f"ROC AUC {_WHERE[name]}")]
    return max(found, key=lambda one: list(LEVELS).index(one[0]))


def _by_accuracy(view: dict[str, Any]) -> str:
    remaining = view["remaining"]
    if remaining["share"] is None:
        return "nothing"
    return _step(remaining["share"]) if remaining["interval"][0] > 0 else "little"


def _by_area(view: dict[str, Any]) -> str:
    share = view["remaining"]["area_share"]
    if share is None:
        return "nothing"
    return _step(share) if view["roc_auc_interval"][0] > 0.5 else "little"


def _step(share: float) -> str:
    return "most" if share >= MOST else "part" if share >= PART else "little"


def verdict(figures: dict[str, Any]) -> list[str]:
    """All sentences on `audit_figures.figures`, the most important first."""
    whole, guess = figures["views"][WHOLE], figures["guessing"]
    found, where = _worst(figures)
    told = [
        LEVELS[found] + (f" (By {where}.)" if found in ("part", "most") else ""),
        f"Accuracy on the whole picture is {_told(whole)}, on {whole['pictures']} pictures; always answering "
        f"{guess['label']!r} would give {guess['share']:.3f}.",
    ]
    told += [_view(name, figures["views"][name]) for name in VIEWS if name in figures["views"] and name != WHOLE]
    told += [*_origin(figures), *_contrasts(figures), *_embedding(figures), *_age(figures), *missing(figures)]
    return [*told, LAST]


def missing(figures: dict[str, Any]) -> list[str]:
    """A sentence for each section that these figures have not, and why."""
    told = []
    unknown, pictures = figures["lungs"].get("unknown", 0), figures["views"][WHOLE]["pictures"]
    if unknown:
        told.append(
            f"{unknown} of {pictures} pictures have no usable lung mask, neither in the table nor from the model: the "
            "views of the lungs leave them out, and lung may reach into their border."
        )
    if len(figures["by_origin"]) < 2:
        told.append("All pictures are of one origin, so whether the model tells origins apart cannot be asked.")
    if figures["by_age"] is None:
        told.append("No age of these pictures is known (cxr-train table --age-column), so there are no figures by age.")
    if figures["embedding"] is None:
        told.append("The embedding of this model cannot be read, so whether it knows the origin was not asked.")
    elif figures["embedding"]["all"] is None and len(figures["by_origin"]) > 1:
        told.append("Fewer than two origins have the 10 groups needed to tell origin from the embedding.")
    if not figures["contrasts"]:
        told.append("No origin has 5 pictures of each of two labels, so no contrast inside one origin can be had.")
    return told


def _view(name: str, view: dict[str, Any]) -> str:
    remaining = view["remaining"]
    if remaining["share"] is None:
        return f"{_WHERE[name].capitalize()}, accuracy is {_told(view)}."
    low, high = remaining["interval"]
    sentence = f"Of the {remaining['excess']:.3f} by which accuracy exceeds guessing, "
    if remaining["left"] > 0:
        share = f"{100 * remaining['share']:.0f} %, {100 * low:.0f} to {100 * high:.0f} %"
        sentence += f"{remaining['left']:.3f} ({share}) remain {_WHERE[name]}."
    else:
        sentence += f"nothing remains {_WHERE[name]} (accuracy {_told(view)})."
    levels = list(LEVELS)
    if name in WITHOUT_LUNGS and levels.index(_by_area(view)) > levels.index(_by_accuracy(view)):
        sentence += (
            f" Its probabilities know more than its answers: ROC AUC is still {view['roc_auc_macro']:.3f}, "
            f"{100 * remaining['area_share']:.0f} % of what the whole picture gives above 0.5."
        )
    return sentence


def _origin(figures: dict[str, Any]) -> list[str]:
    if len(figures["by_origin"]) < 2:
        return []
    sentence = f"Knowing the origin alone, and no picture, would give {figures['origin_rule']:.3f} at most"
    excess = figures["views"][WHOLE]["accuracy"] - figures["guessing"]["share"]
    if excess > 0:
        share = (figures["origin_rule"] - figures["guessing"]["share"]) / excess
        if share > 1:
            return [f"{sentence}: more than the model has."]
        sentence += f": {100 * share:.0f} % of what the model has above guessing could be had by telling origins apart"
    return [sentence + "."]


def _contrasts(figures: dict[str, Any]) -> list[str]:
    told = []
    for contrast in figures["contrasts"]:
        a, b = contrast["labels"]
        whole = contrast["views"][WHOLE]
        low, high = whole["interval"]
        area = f"{whole['auc']:.3f} [{low:.3f}, {high:.3f}]"
        sentence = f"Inside {contrast['origin']}, {b} is told from {a} with ROC AUC {area}"
        if low <= 0.5:
            sentence += ", which may be chance"
        if dark := contrast["views"].get(NO_LUNGS):
            sentence += f", and with the lungs blacked out with {dark['auc']:.3f}"
        told.append(sentence + ".")
    return told


def _embedding(figures: dict[str, Any]) -> list[str]:
    found = figures["embedding"]
    if found is None or found["all"] is None:
        return []
    told = [f"From its embedding, {_probed(found['all'])}."]
    if found["by_label"]:
        parts = [f"{label}: {_probed(part)}" for label, part in found["by_label"].items()]
        told.append(f"Within one label, where the label gives no origin away: {'; '.join(parts)}.")
    return told


def _probed(found: dict[str, Any]) -> str:
    chance, accuracy = found["chance"], found["balanced_accuracy"]
    gone = (accuracy - chance) / (1 - chance)
    how = "hardly better than by chance"
    if found["interval"][0] > chance and gone >= CLEARLY:
        how = "nearly always" if gone >= NEARLY_ALWAYS else "clearly"
    low, high = found["interval"]
    names = ", ".join(found["origins"])
    return (
        f"the origin ({names}) can be told {how}, balanced accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}], "
        f"chance {chance:.3f}"
    )


def _age(figures: dict[str, Any]) -> list[str]:
    if not figures["by_age"]:
        return []
    wholes = {name: part["views"][WHOLE] for name, part in figures["by_age"].items()}
    compared = {name: part for name, part in wholes.items() if part["pictures"] >= ENOUGH}
    if len(compared) < 2:
        return ["Fewer than two age groups have 10 pictures, so ages cannot be compared."]
    worst, best = (choose(compared, key=lambda name: compared[name]["accuracy"]) for choose in (min, max))
    apart = compared[worst]["accuracy_interval"][1] < compared[best]["accuracy_interval"][0]
    how = "differs by age" if apart else "does not differ by age more than chance would have it"
    sentence = f"Accuracy {how}: {_told(compared[worst])} of those {_aged(worst)}, {_told(compared[best])} of those "
    unknown = f"; the age of {figures['age_unknown']} pictures is not known" if figures["age_unknown"] else ""
    return [f"{sentence}{_aged(best)}{unknown}."]


def _aged(name: str) -> str:
    return name if name.startswith("under") else f"aged {name}"


def _told(part: dict[str, Any]) -> str:
    low, high = part["accuracy_interval"]
    return f"{part['accuracy']:.3f} [{low:.3f}, {high:.3f}]"
