"""Medians, rates and agreement of the benchmarks, and the table, JSON and plot that are made of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from benchmarks import figures, plot, side_by_side
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.environments import Environment
from benchmarks.figures import Agreement, Round
from benchmarks.side_by_side import Result
from cxr_edge.bench.figures import Spread


def test_the_rate_leaves_out_what_one_picture_costs_too() -> None:
    assert figures.one_round(101, 2.0, 12.0, 80.0) == Round(rate=10.0, cold=2.0, peak=80.0)


@pytest.mark.parametrize(("count", "one", "every"), [(1, 0.1, 5.0), (50, 2.0, 2.0), (50, 3.0, 2.0)])
def test_a_rate_that_noise_would_decide_is_refused(count: int, one: float, every: float) -> None:
    with pytest.raises(ValueError, match="too few"):
        figures.one_round(count, one, every, 80.0)


def test_the_summary_is_the_median_and_the_range_of_each_figure() -> None:
    rounds = [Round(10, 1, 80), Round(30, 3, 90), Round(20, 5, 70)]
    assert figures.summary(rounds) == {"rate": Spread(20, 10, 30), "cold": Spread(3, 1, 5), "peak": Spread(80, 70, 90)}


def test_a_spread_is_told_with_its_range() -> None:
    assert figures.told(Spread(1209.4, 1000, 1300), 0) == "1,209 (1,000 to 1,300)"


def test_ratios_are_ours_over_theirs() -> None:
    ours = {name: Spread(6, 0, 0) for name in ("rate", "cold", "peak", "size")}
    theirs = {"rate": Spread(3, 0, 0), "cold": Spread(6, 0, 0), "peak": Spread(12, 0, 0), "size": Spread(24, 0, 0)}
    ratios = "2.00 times the images/s, 1.00 of the cold start, 0.50 of the memory, 0.25 of the installed size"
    assert figures.against(ours, theirs) == ratios


def test_verdicts_are_compared_by_path_and_certain_ones_apart() -> None:
    ours = {"a": "normal", "b": "covid19", "c": "uncertain", "d": "normal", "e": "", "f": "normal"}
    theirs = {
        "a": "normal",
        "b": "normal",
        "c": "normal",
        "d": "uncertain",
        "e": "covid19",
        "f": "normal",
        "g": "normal",
    }
    assert figures.agreement(ours, theirs) == Agreement(judged=5, same=2, certain=3, certain_same=2)


def test_a_contender_that_leaves_a_picture_out_is_told() -> None:
    with pytest.raises(ValueError, match=r"1 pictures have no verdict, b"):
        figures.agreement({"a": "normal", "b": "normal"}, {"a": "normal"})


def test_one_other_verdict_in_a_hundred_is_the_same_work_and_two_are_not() -> None:
    assert Agreement(120, 110, 100, 99).good
    assert not Agreement(120, 110, 100, 98).good
    assert not Agreement(120, 120, 0, 0).good


def result(contender: Contender, rate: float, agreement: Agreement | None) -> Result:
    return Result(contender, agreement, 50.0, [Round(rate, 1.0, 80.0), Round(rate + 2, 2.0, 90.0)])


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    monkeypatch.setattr("benchmarks.environments.FOLDER", tmp_path)
    for contender in CONTENDERS:
        installed = contender.environment.home / "lib/python3.11/site-packages/thing-1.2.dist-info"
        installed.mkdir(parents=True, exist_ok=True)
        (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.2\n")
    agreement = Agreement(72, 70, 60, 60)
    return [result(each, 10.0 * place, agreement if place else None) for place, each in enumerate(CONTENDERS)]


def test_the_table_has_every_contender_and_its_figures(results: list[Result]) -> None:
    console = Console(width=200)
    with console.capture() as shown:
        console.print(side_by_side.table(results))
    lines = shown.get().splitlines()
    for each in results:
        (line,) = (line for line in lines if each.contender.name in line)
        median = each.spreads()["rate"].median
        assert f"{median:.1f} ({median - 1:.1f} to {median + 1:.1f})" in line
        assert ("60 of 60; 70 of 72" if each.agreement else "other weights") in line


def test_the_record_can_be_read_again_and_says_which_versions(results: list[Result]) -> None:
    record = json.loads(json.dumps(side_by_side.record(results, {"gone": "no wheel"}, {"machine": "a box"})))
    assert record["machine"] == "a box"
    assert record["missing"] == {"gone": "no wheel"}
    assert [each["name"] for each in record["contenders"]] == [each.name for each in CONTENDERS]
    last = record["contenders"][-1]
    assert last["rate"] == {"median": 61.0, "least": 60.0, "most": 62.0}
    assert last["versions"] == {"thing": "1.2"}
    assert last["agreement"]["certain_same"] == 60


def test_the_plot_has_a_panel_for_each_figure(results: list[Result], tmp_path: Path) -> None:
    panels = side_by_side.panels(results)
    assert [panel.title for panel in panels] == ["images/s", "cold start, s", "peak memory, MiB", "installed, MiB"]
    assert all(list(panel.values) == [each.short for each in CONTENDERS] for panel in panels)
    plot.draw(panels, "made up", tmp_path / "four.png")
    plot.draw(panels[:2], "made up", tmp_path / "two.png")
    with Image.open(tmp_path / "four.png") as four, Image.open(tmp_path / "two.png") as two:
        assert four.height == two.height
        assert four.width > 1.5 * two.width
        colours = four.convert("RGB").getcolors(2**24)
    assert colours is not None
    assert {plot.OURS, plot.THEIRS} <= {f"#{r:02x}{g:02x}{b:02x}" for _, (r, g, b) in colours}  # type: ignore[misc]


def test_every_command_is_filled_in() -> None:
    models = {"tflite": "m.tflite", "onnx": "m.onnx", "keras": "m.keras"}
    for contender in CONTENDERS:
        command = contender.command(Path("in"), Path("out"), models)
        assert command[0].startswith(str(contender.environment.home))
        assert {"in", "out", "m.tflite"} <= set(command)
        assert not any("{" in word for word in command)


def test_an_environments_size_is_that_of_its_packages_without_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.environments.FOLDER", tmp_path)
    packages = tmp_path / "some" / "lib" / "python3.12" / "site-packages"
    (packages / "thing" / "__pycache__").mkdir(parents=True)
    (packages / "thing" / "thing.so").write_bytes(b"\0" * 2**20)
    (packages / "thing" / "__pycache__" / "thing.pyc").write_bytes(b"\0" * 2**20)
    assert Environment("some", ()).size() == 1.0
