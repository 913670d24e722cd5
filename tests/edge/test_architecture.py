"""`edge` is the ground floor: it imports no other room, nothing heavy, nothing that talks to a network."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cxr_edge

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(cxr_edge.__file__).parent.rglob("*.py"))
OTHER_ROOMS = {"cxr_train", "cxr_convert", "benchmarks"}
HEAVY = {"tensorflow", "keras", "pandas", "sklearn", "scipy", "matplotlib"}
LATER = {"numpy", "PIL", "rich", "sqlite3", "ai_edge_litert", "tflite_runtime"}
NETWORK = {"urllib", "http", "requests", "httpx", "ftplib", "smtplib", "socketserver", "asyncio"}


def imports(source: Path) -> Iterator[tuple[str, bool]]:
    """Each package that a file imports, and whether it does so lazily, inside a function."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {child for function in functions for child in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node in inside
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0], node in inside


def test_the_sources_are_where_the_test_looks() -> None:
    assert {"cli.py", "sweep.py", "runtime.py"} <= {source.name for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_edge_imports_no_other_room_and_nothing_heavy(source: Path) -> None:
    for package, lazy in imports(source):
        assert package not in OTHER_ROOMS | NETWORK
        if package in HEAVY:
            assert (source.name, package, lazy) == ("runtime.py", "tensorflow", True)


def test_the_import_contracts_are_kept() -> None:
    lint_imports = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint_imports, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "edge is the ground floor" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["scan", "--help"], ["bench", "--help"], ["doctor", "--help"]],
    ids=" ".join,
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys; from cxr_edge.cli import main\n"
        f"main({arguments!r}, prog_name='cxr-edge', standalone_mode=False)\n"
        "print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said, _, loaded = done.stdout.rpartition("loaded:")
    assert "cxr-edge" in said
    assert "click" in loaded.split()
    assert not (HEAVY | LATER) & set(loaded.split())
