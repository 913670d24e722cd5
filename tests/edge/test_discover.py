"""What is found: the same files in the same order every night, and nothing that is no file of this folder."""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from cxr_edge.discover import FoundFile, Notice, discover


def no_warning(notice: Notice) -> None:
    raise AssertionError(notice)


def names(folder: Path, leave_out: str = "out") -> list[str]:
    return [found.name for found in discover(folder, leave_out=folder / leave_out, warn=no_warning)]


def put(folder: Path, *files: str) -> None:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * len(name))


def test_files_come_by_name_with_subfolders_in_their_place(tmp_path: Path) -> None:
    put(tmp_path, "c.png", "b/2.png", "b/10.png", "a.png", "b/a/x", "B.png", "b.png")
    assert names(tmp_path) == ["B.png", "a.png", "b/10.png", "b/2.png", "b/a/x", "b.png", "c.png"]


def test_the_order_does_not_depend_on_the_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, *(f"{i % 3}/{i}" for i in range(30)))
    before = names(tmp_path)
    scandir = os.scandir

    @contextlib.contextmanager
    def backwards(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(path) as listing:
            yield sorted(listing, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    assert names(tmp_path) == before
    assert len(before) == 30


def test_a_found_file_says_what_the_ledger_needs(tmp_path: Path) -> None:
    put(tmp_path, "ward/a.png")
    path = tmp_path / "ward" / "a.png"
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    assert list(discover(tmp_path, leave_out=tmp_path / "out", warn=no_warning)) == [
        FoundFile(path, "ward/a.png", 10, path.stat().st_mtime_ns)
    ]


def test_hidden_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    put(tmp_path, ".a.png.Xy12", ".git/config", "b/.hidden", "b/seen.")
    assert names(tmp_path) == ["b/seen."]


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, "in/a.png", "in/b/c.png", "elsewhere/d.png")
    folder = tmp_path / "in"
    (folder / "file-link.png").symlink_to(folder / "a.png")
    (folder / "outside").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "b" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "self").symlink_to("self")
    (folder / "dangling").symlink_to("nowhere")
    assert names(folder) == ["a.png", "b/c.png"]


def test_the_scanned_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path, "in/a.png", "in/out/b.png")
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    assert names(tmp_path / "link") == ["a.png"]


def test_pipes_and_sockets_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    monkeypatch.chdir(tmp_path)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
        assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("out", ["out", "ward/out"])
def test_the_output_inside_the_scanned_folder_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    put(tmp_path, "a.png", "ward/b.png", f"{out}/masks/a.png.png", f"{out}/verdicts.csv", "output/c.png")
    expected = ["a.png", "output/c.png", "ward/b.png"]
    assert names(tmp_path, out) == expected
    assert names(tmp_path, f"ward/../{out}") == expected
    monkeypatch.chdir(tmp_path)
    assert [found.name for found in discover(Path(), leave_out=Path(out), warn=no_warning)] == expected


def test_names_that_are_no_utf_8_are_found_and_can_be_printed(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff\xfe.png", "é.png".encode("latin-1"), "é.png".encode()):
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(b"x")  # noqa: PTH118
    found = list(discover(tmp_path, leave_out=tmp_path / "out", warn=no_warning))
    assert {one.name for one in found} == {r"\xff\xfe.png", r"\xe9.png", "é.png"}
    assert all(one.path.read_bytes() == b"x" and one.name.encode() for one in found)


def test_different_files_have_different_names(tmp_path: Path) -> None:
    for name in (rb"\xff.png", b"\xff.png", b"\\\xff.png", rb"\\xff.png"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).write_bytes(b"x")  # noqa: PTH118
    assert len(set(names(tmp_path))) == 4


def test_an_odd_name_is_one_name(tmp_path: Path) -> None:
    odd = ["a\nb.png", 'quote".png', "tab\t.png", "%s.png", "-o", "ünï.png", "🫁.png"]
    put(tmp_path, *odd)
    assert sorted(names(tmp_path)) == sorted(odd)


def refuse(path: object, **_: object) -> NoReturn:
    raise PermissionError(13, "Permission denied", str(path))


def test_an_unreadable_folder_costs_a_warning_not_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.png", "locked/b.png", "z.png")
    scandir = os.scandir  # root can read every folder, so no mode bits can lock one
    monkeypatch.setattr(os, "scandir", lambda path: refuse(path) if Path(path).name == "locked" else scandir(path))
    warnings: list[Notice] = []
    found = discover(tmp_path, leave_out=tmp_path / "out", warn=warnings.append)
    assert [one.name for one in found] == ["a.png", "z.png"]
    assert len(warnings) == 1
    assert warnings[0].path.endswith("/locked")
    assert "Permission denied" in warnings[0].text


@dataclass
class Unsearchable:
    """An entry of a folder that may be listed, but not entered (mode r--): every look at the file is refused."""

    entry: os.DirEntry[str]

    def __getattr__(self, name: str) -> Any:
        return partial(refuse, self.entry.path) if name == "stat" else getattr(self.entry, name)


def test_a_file_that_cannot_be_looked_at_costs_a_warning_not_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.png", "listed/b.png", "z.png")
    scandir = os.scandir

    @contextlib.contextmanager
    def listing(path: Path) -> Iterator[list[Any]]:
        with scandir(path) as entries:
            yield [Unsearchable(entry) if Path(path).name == "listed" else entry for entry in entries]

    monkeypatch.setattr(os, "scandir", listing)
    warnings: list[Notice] = []
    found = discover(tmp_path, leave_out=tmp_path / "out", warn=warnings.append)
    assert [one.name for one in found] == ["a.png", "z.png"]
    assert len(warnings) == 1
    assert "/listed" in warnings[0].path


def test_what_vanishes_meanwhile_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png", "c/d.png", "e.png")
    warnings: list[Notice] = []
    found = discover(tmp_path, leave_out=tmp_path / "out", warn=warnings.append)
    assert next(found).name == "a.png"
    (tmp_path / "b.png").unlink()
    (tmp_path / "c" / "d.png").unlink()
    (tmp_path / "c").rmdir()
    assert [one.name for one in found] == ["e.png"]
    assert not [notice for notice in warnings if "b.png" in notice.path]


def test_very_deep_folders_do_not_end_the_sweep(tmp_path: Path) -> None:
    """A path may have 2,000 levels, more than Python's stack has room for; here both are smaller."""
    folder = tmp_path.joinpath(*["d"] * 200)
    put(folder, "deep.png")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 120)
    try:
        found = names(tmp_path)
    finally:
        sys.setrecursionlimit(limit)
    assert found == ["d/" * 200 + "deep.png"]


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert names(tmp_path) == []
