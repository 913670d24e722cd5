"""What a person looks at after a shortcut audit: a plot, an example of each view, and one self-contained page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from cxr_train import audit_words, report
from cxr_train.audit_views import VIEWS, WHOLE
from cxr_train.evaluation_plots import DPI, RIGHT, WRONG

matplotlib.use("Agg")
import matplotlib.pyplot as plt

TEMPLATE = "audit.html.j2"
FIGURE, EXAMPLES = "audit.png", "views.png"
TITLES = ("accuracy, 95 % interval", "ROC AUC, mean over labels, 95 % interval")


def draw(figures: dict[str, Any], out: Path) -> None:
    """Draw accuracy and ROC AUC of each view with their 95 % intervals, against guessing and chance: `audit.png`."""
    shown = {name: figures["views"][name] for name in VIEWS if name in figures["views"]}
    guess = figures["guessing"]
    lines = {
        "accuracy": [(guess["share"], "--", f"always {guess['label']}"), (guess["chance"], ":", "chance")],
        "roc_auc": [(0.5, ":", "chance")],
    }
    size = (11, 1.8 + 0.55 * len(shown))
    figure, axes = plt.subplots(1, 2, figsize=size, layout="constrained", sharey=True)
    for axis, key, value, title in zip(axes, lines, ("accuracy", "roc_auc_macro"), TITLES, strict=True):
        for place, view in zip(range(len(shown), 0, -1), shown.items(), strict=True):
            _point(axis, place, view, value, f"{key}_interval")
        for where, style, name in lines[key]:
            axis.axvline(where, color="black", linestyle=style, label=f"{name}: {where:.3f}")
        axis.set(xlim=(0, 1.04), ylim=(0.4, len(shown) + 0.7), title=title)
        axis.grid(alpha=0.3, axis="x")
        # Below, since a line may lie anywhere.
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, fontsize=9, frameon=False)
    axes[0].set_yticks(range(len(shown), 0, -1), [VIEWS[name] for name in shown])
    figure.suptitle(f"{figures['views'][WHOLE]['pictures']} pictures; orange: no lung can be seen", fontsize=10)
    figure.savefig(out / FIGURE, dpi=DPI)
    plt.close(figure)


def _point(axis: Axes, place: int, view: tuple[str, dict[str, Any]], value: str, interval: str) -> None:
    name, found = view
    if found[value] is None:
        return
    colour = WRONG if name in audit_words.WITHOUT_LUNGS else RIGHT
    axis.plot(found[interval], [place, place], color=colour, linewidth=2)
    axis.plot(found[value], place, "o", color=colour, markersize=7)
    text = f"{found[value]:.3f}"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # a line may run behind it
    at = (found[value], place)
    axis.annotate(text, at, (0, 8), textcoords="offset points", ha="center", fontsize=9, bbox=box)


def draw_examples(examples: dict[str, dict[str, NDArray[np.uint8]]], out: Path) -> None:
    """Draw what the model was shown, `views.png`: by label, the views of one picture, uint8[H, W] each."""
    shape = (len(examples), len(VIEWS))
    size = (2.0 * shape[1], 2.2 * shape[0] + 0.3)
    figure, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for row, (label, views) in enumerate(examples.items()):
        for axis, (name, title) in zip(axes[row], VIEWS.items(), strict=True):
            axis.set(xticks=[], yticks=[], frame_on=False)
            if row == 0:
                axis.set_title(title, fontsize=9)
            if name in views:
                axis.imshow(views[name], cmap="gray", vmin=0, vmax=255)
            else:
                axis.text(0.5, 0.5, "lungs not known", ha="center", va="center", fontsize=8)
        axes[row][0].set_ylabel(label, fontsize=9)
    figure.savefig(out / EXAMPLES, dpi=DPI)
    plt.close(figure)


def write(content: dict[str, Any], out: Path) -> None:
    """Write `audit.html` to `out`, with the two pictures that lie there inside it.

    Args:
        content: of `audit.json`.

    Raises:
        OSError: a picture is missing, or the page cannot be written.
    """
    pictures = {name: report.embedded(out / name) for name in (FIGURE, EXAMPLES)}
    page = report.environment().get_template(TEMPLATE)
    text = page.render(**content, pictures=pictures, titles=VIEWS, words=audit_words)
    (out / "audit.html").write_text(text, encoding="utf-8")
