from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from cxr_convert.cli import main
from cxr_edge.errors import ExitCode


def test_help_shows_both_commands() -> None:
    said = CliRunner().invoke(main, ["--help"]).output
    assert "convert" in said
    assert "describe" in said
    assert "MODEL.keras" in said


@pytest.mark.parametrize("arguments", [["m.keras"], ["convert", "m.keras"], ["-o", "x.tflite", "m.keras"]])
def test_convert_is_the_command_that_may_be_left_out(arguments: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [argument.replace("m.keras", str(tmp_path / "m.keras")) for argument in arguments])
    assert done.exit_code == ExitCode.USAGE
    assert "convert [OPTIONS] MODEL" in done.output
    assert "does not exist" in done.output or "Missing option" in done.output


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cxr_convert.cli import main\n"
        "assert CliRunner().invoke(main, ['describe', '--help']).exit_code == 0\n"
        "print([name for name in ('tensorflow', 'keras', 'pandas', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
