"""The comparison as a picture: one panel for each figure, one bar for each contender, ranges as whiskers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cxr_edge.bench.figures import Spread

OURS, THEIRS = "#1f77b4", "#b8bfc6"


@dataclass(frozen=True)
class Panel:
    """One figure of every contender, by name; `better` says which way is good."""

    title: str
    better: str
    values: Mapping[str, Spread]
    places: int


def draw(panels: list[Panel], caption: str, target: Path) -> None:
    """Write a PNG. The first contender of each panel is ours."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(panels[0].values)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels) + 1.2, 0.42 * len(names) + 1.3), sharey=True)
    for panel, axis in zip(panels, axes, strict=True):
        spreads = [panel.values[name] for name in names]
        medians = [each.median for each in spreads]
        whiskers = [
            [each.median - each.least for each in spreads],
            [each.most - each.median for each in spreads],
        ]
        colours = [OURS, *[THEIRS] * (len(names) - 1)]
        axis.barh(names, medians, xerr=whiskers, color=colours, ecolor="#555555", capsize=2)
        for row, each in enumerate(spreads):
            axis.text(each.most, row, f"  {each.median:,.{panel.places}f}", va="center", fontsize=8)
        axis.set_xlim(0, 1.25 * max(each.most for each in spreads))
        axis.set_title(f"{panel.title}\n({panel.better} is better)", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.supxlabel(caption, fontsize=7)
    figure.tight_layout()
    figure.savefig(target, dpi=150)
    plt.close(figure)
