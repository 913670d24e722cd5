"""Two benches side by side: what changed, and whether that is worse than a threshold. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cxr_edge.errors import UsageError

FLOOR_MS = 1.0
"""A step that takes less in both benches is shown, but decides nothing: it is mostly the clock's noise."""


@dataclass(frozen=True)
class Change:
    """One figure, before and now. `worse` is above 1 where now is worse: slower, fewer images, more memory."""

    name: str
    unit: str
    before: float
    now: float
    worse: float
    decides: bool


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[Change]:
    """Compare what both reports have, each as `figures.to_dict` makes it; medians throughout.

    Raises:
        UsageError: `before` is no whole report.
    """
    try:
        earlier = _metrics(before)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"the earlier report lacks a figure or holds no number ({error})", "measure it again with --json"
        ) from error
    changes = []
    for name, (value, unit, more_is_better) in _metrics(now).items():
        if name not in earlier:
            continue
        old = earlier[name][0]
        worse = old / value if more_is_better else value / old
        decides = not (name.startswith("step ") and max(old, value) < FLOOR_MS)
        changes.append(Change(name, unit, old, value, worse, decides))
    return changes


def past(changes: list[Change], threshold: float) -> list[Change]:
    """The changes that are worse than the threshold, a ratio."""
    return [change for change in changes if change.decides and change.worse > threshold]


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What the two reports do not share, so that their figures may differ for another reason than the software."""
    return [
        f"{' '.join(keys)}: {was} before, {is_now} now"
        for keys in (
            ("machine", "cpu"),
            ("machine", "cores"),
            ("machine", "limit_mib"),
            ("machine", "python"),
            ("disk",),
            ("engine", "name"),
            ("engine", "version"),
            ("engine", "kernels"),
            ("model", "digest"),
            ("pictures", "origin"),
            ("pictures", "megapixels"),
            ("version",),
        )
        if (was := _at(before, keys)) != (is_now := _at(now, keys))
    ]


def _at(report: Any, keys: tuple[str, ...]) -> Any:
    for key in keys:
        report = report.get(key) if isinstance(report, dict) else None
    return report


def _metrics(report: dict[str, Any]) -> dict[str, tuple[float, str, bool]]:
    """Figures by name: value, unit, and whether more is better."""
    metrics = {f"start {name}": (each["median"], "ms", False) for name, each in report["start_ms"].items()}
    metrics |= {f"step {name}, p50": (each["p50"], "ms", False) for name, each in report["steps_ms"].items()}
    metrics["one image, all steps"] = (report["image_ms"]["median"], "ms", False)
    for sweep in report["sweeps"]:
        cores = f"{sweep['cores']} core{'s' if sweep['cores'] > 1 else ''}"
        metrics[f"sweep on {cores}"] = (sweep["images_per_second"]["median"], "images/s", True)
        metrics[f"peak memory on {cores}"] = (sweep["peak_mib"], "MiB", False)
    if not all(value > 0 for value, _, _ in metrics.values()):
        raise ValueError("a figure is not above 0")
    return metrics
