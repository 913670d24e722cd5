"""Small boxes and ARM ones: what can be told without root and without another processor."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from benchmarks import arm, small_box


@pytest.mark.parametrize(
    "events", ["low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\n", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"]
)
def test_kills_are_read_from_both_versions_of_cgroups(events: str) -> None:
    assert small_box.kills_in(events) == 2


def test_without_a_memory_cgroup_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_box, "FOLDER", tmp_path / "none")
    with pytest.raises(click.ClickException, match="no memory cgroup can be made"), small_box.group():
        pass


def test_without_root_arm_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(click.ClickException, match="need root"):
        arm.check_machine(list(arm.BOXES.values()))


def test_without_debootstrap_arm_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(click.ClickException, match="apt install debootstrap qemu-user-static"):
        arm.check_machine(list(arm.BOXES.values()))


def test_a_box_has_four_cores_of_its_own_kind() -> None:
    told = arm.BOXES["pi5"].cpuinfo()
    assert [line for line in told.splitlines() if line.startswith("processor")] == [
        f"processor\t: {number}" for number in range(4)
    ]
    assert "asimddp" in told
    assert "asimddp" not in arm.BOXES["pi4"].cpuinfo()


def test_what_became_of_each_picture_on_a_box_is_counted(tmp_path: Path) -> None:
    here = {
        "a": "normal",
        "b": "normal",
        "c": "normal",
        "d": "normal",
        "e": "uncertain",
        "f": "uncertain",
        "g": "",
        "h": "",
    }
    there = {**here, "b": "uncertain", "c": "", "d": "covid19", "f": "normal", "h": "normal"}
    tables = []
    for name, given in (("here", here), ("there", there)):
        tables.append(tmp_path / name)
        tables[-1].write_text("\n".join(["path,verdict", *(f"{path},{verdict}" for path, verdict in given.items())]))
    found = arm.compare(*map(arm.verdicts, tables))
    assert found == arm.Comparison(files=8, same=3, certain=4, certain_same=1, uncertain=1, without=1, other=1, added=1)


def test_held_out_pictures_are_every_fifth_of_the_test_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.pictures.DATA", tmp_path / "none")
    rows = [f"{number}.jpg,{'test' if number % 2 else 'train'}" for number in range(22)]
    (tmp_path / "table.csv").write_text("\n".join(["path,split", *rows]))
    for number in range(22):
        (tmp_path / f"{number}.jpg").write_text(str(number))
    told = arm.gather(tmp_path / "incoming", tmp_path / "table.csv")
    assert told == "72 phantoms, and 3 held-out ones"
    held_out = sorted((tmp_path / "incoming").glob("test-*.jpg"))
    assert [path.read_text() for path in held_out] == ["1", "11", "21"]
