"""What only a fresh process shows: cold start, whole sweeps on so many cores, and their peak memory."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from cxr_edge.errors import CxrEdgeError, ExitCode

_COMMAND = "from cxr_edge.cli import main; main(prog_name='cxr-edge')"
_SWEEP = "import sys; from cxr_edge.bench.child import main; main(*sys.argv[1:4], cores=int(sys.argv[4]))"


@dataclass(frozen=True)
class Swept:
    """One whole sweep: files that got a row, seconds without the start of the process, and peak memory in MiB."""

    files: int
    seconds: float
    peak_mib: float


def command_ms(arguments: list[str], work: Path) -> float:
    """Run a `cxr-edge` command as a fresh process; milliseconds from its start to its end."""
    start = time.perf_counter()
    _run(_COMMAND, arguments, work)
    return 1000 * (time.perf_counter() - start)


def first_verdict_ms(folder: Path, model: Path, work: Path) -> float:
    """Scan a folder of one picture in a fresh process; milliseconds until its verdict stands and the process ends."""
    out = work / "first"
    try:
        return command_ms(
            ["scan", str(folder), "-o", str(out), "--model", str(model), "--workers", "1", "--settle", "0"], work
        )
    finally:
        shutil.rmtree(out, ignore_errors=True)


def sweep(folder: Path, model: Path, cores: int, work: Path) -> Swept:
    """Sweep a folder into an empty output, in a fresh process that may use so many cores."""
    out = work / "swept"
    try:
        said = _run(_SWEEP, [str(folder), str(out), str(model), str(cores)], work)
        return Swept(**json.loads(said.splitlines()[-1]))
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _run(script: str, arguments: list[str], work: Path) -> str:
    # In the temporary folder, so that no file of the user's can stand in for a module.
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=work, capture_output=True, check=False)
    said, complaint = (stream.decode(errors="replace").strip() for stream in (done.stdout, done.stderr))
    # A sample may hold files that cannot be read, or nothing but such: they are measured as they are.
    if done.returncode not in (ExitCode.OK, ExitCode.SOME_FAILED, ExitCode.NOTHING_FOUND):
        detail = complaint.splitlines()[-1] if complaint else f"it left with {done.returncode} and said nothing"
        remedy = "run cxr-edge doctor: it says what is wrong with this box"
        raise CxrEdgeError(f"a process of the bench failed: {detail}", remedy)
    return said
