"""What docs/deploy.md tells a technician to install."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from cxr_edge.cli import main
from cxr_edge.errors import ExitCode

DOCS = Path(__file__).parents[2] / "docs"
UNITS = sorted((DOCS / "systemd").iterdir())


def settings(unit: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.read_text().splitlines() if "=" in line and line[0] != "#")


def commands() -> list[list[str]]:
    """Every `cxr-edge scan` of the units and of the crontab line."""
    lines = [settings(unit)["ExecStart"] for unit in UNITS if unit.suffix == ".service"]
    lines += re.findall(r"^ +15 1 \* \* \* +(.*) >> .*$", (DOCS / "deploy.md").read_text(), re.MULTILINE)
    assert len(lines) == 3
    return [line.split()[1:] for line in lines]


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    """As far as a machine without our user, mounts and program can tell."""
    if not (analyze := shutil.which("systemd-analyze")):
        pytest.skip("systemd-analyze is part of systemd, which this system has not")
    for unit in UNITS:
        text = unit.read_text().replace("/opt/cxr-edge/bin/cxr-edge", "/bin/true").replace("User=cxr\n", "")
        (tmp_path / unit.name).write_text(text)
    units = [tmp_path / unit.name for unit in UNITS]
    done = subprocess.run([analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if any(unit.name in line for unit in UNITS)]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_their_command_lines_are_understood(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "incoming").mkdir()
    places = {"/srv/incoming": tmp_path / "incoming", "/srv/verdicts": tmp_path / "verdicts"}
    arguments = [str(places.get(argument, argument)) for argument in arguments if argument != "--watch"]
    assert CliRunner().invoke(main, arguments).exit_code == ExitCode.NOTHING_FOUND


def test_exit_codes_of_an_ordinary_night_are_no_failures_of_the_service() -> None:
    fine = settings(DOCS / "systemd" / "cxr-edge.service")["SuccessExitStatus"].split()
    assert {ExitCode(int(code)) for code in fine} == {
        ExitCode.SOME_FAILED,
        ExitCode.NOTHING_FOUND,
        ExitCode.LOCKED,
        ExitCode.INTERRUPTED,
    }
