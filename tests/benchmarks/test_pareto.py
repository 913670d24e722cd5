"""Which models no other one beats, and the command on the shipped file."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from benchmarks.pareto import Point, front, main
from cxr_edge.bench.figures import Spread
from cxr_edge.model_file import SHIPPED


def point(name: str, accuracy: float, ms: float) -> Point:
    return Point(name, accuracy, 100, Spread(ms, ms, ms), 1.0)


def test_the_front_is_what_nobody_beats_in_both() -> None:
    points = [point("slow", 0.9, 9), point("fast", 0.7, 1), point("worse", 0.6, 2), point("late", 0.9, 10)]
    assert front(points) == {"slow", "fast"}
    assert front([point("a", 0.9, 1), point("b", 0.9, 1)]) == {"a", "b"}


def test_a_model_file_is_measured_and_drawn(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(SHIPPED), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (record,) = json.loads((tmp_path / "pareto.json").read_text())
    assert 0.5 < record["accuracy"] < 1
    assert record["ms"]["median"] > 0
    with Image.open(tmp_path / "pareto.png") as plot:
        assert plot.width > 500
