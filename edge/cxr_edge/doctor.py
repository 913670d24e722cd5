"""`cxr-edge doctor`: can this box run a sweep? Each check says ok, warns, or names the problem and what to do.

Runtime and model are tried in a process of their own: a wheel built for another processor, or too little memory, ends
a process without a word, and this one lives on to say so. For the same reason it loads neither numpy nor a runtime.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from enum import Enum
from importlib import metadata
from pathlib import Path

from cxr_edge import __version__, disk, machine
from cxr_edge.errors import CxrEdgeError, ExitCode

PYTHONS = ((3, 10), (3, 13))
"""Oldest and newest that this version is tested on."""
RELEASED = datetime(2026, 11, 1, tzinfo=timezone.utc)
"""A day shortly before this version's release: no right clock shows an earlier one. Moved on at each release."""
SELF_TEST_SECONDS = 300
PICTURE_MIB = 20
"""What a worker holds of a picture of about 4 megapixels (file, gray levels, mask), and its decoder's process."""
SLOW = "with less, code is read from the disk again and again, and a large picture may get the sweep killed"
SPARE_MIB = 32
"""What other programs should keep of a machine's free memory."""
_SELF_TEST = "import sys; from cxr_edge.self_test import main; main(*sys.argv[1:])"


class State(str, Enum):
    """How a check went: only a problem keeps a sweep from running."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Check:
    """One line: what was checked, how it went, what was found, and what to do unless it is ok.

    `exit_code` is how `doctor` leaves for a problem: MODEL_REFUSED or OUTPUT_UNWRITABLE.
    """

    name: str
    state: State
    says: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.OK


def examine(model: Path | None, out: Path, proc: Path = machine.PROC, cgroups: Path = machine.CGROUPS) -> list[Check]:
    """Check everything, in the order in which things depend on each other.

    Args:
        model: model file; by default the shipped one.
        out: output folder of the sweeps to come; need not exist.
        proc, cgroups: where the system tells about itself.
    """
    box = machine.look(proc, cgroups)
    tested, needs = self_test(model, box.limit_mib)
    return [
        python(sys.version_info[:2]),
        Check("processor", State.OK, f"{box.cpu}, cores to use: {box.cores} ({', '.join(box.instructions)})"),
        *tested,
        memory(box, machine.memory(proc).get("MemAvailable"), needs),
        *output(out),
        clock(time.time(), [Path(__file__), *([model] if model else []), out / "verdicts.csv"]),
        *extras(),
    ]


def exit_code(checks: list[Check]) -> ExitCode:
    """0 without a problem, else 5 (runtime, model or memory), else 6 (output)."""
    codes = {check.exit_code for check in checks if check.state is State.PROBLEM}
    return next((code for code in (ExitCode.MODEL_REFUSED, ExitCode.OUTPUT_UNWRITABLE) if code in codes), ExitCode.OK)


def to_text(checks: list[Check]) -> str:
    """A line for each check, and below it what to do."""
    lines = []
    for check in checks:
        lines.append(f"{check.state.value:<8} {check.name:<10} {check.says}")
        if check.remedy:
            lines.append(f"{'':<19} try: {check.remedy}")
    return "\n".join(lines)


def to_json(checks: list[Check]) -> str:
    """The same for scripts."""
    content = {"version": __version__, "exit_code": exit_code(checks), "checks": [asdict(check) for check in checks]}
    return json.dumps(content, indent=2, ensure_ascii=False)


def python(version: tuple[int, int]) -> Check:
    """Whether this Python is one that we test on."""
    says = f"Python {sys.version.split()[0]}, cxr-edge {__version__}"
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return Check("python", State.OK, says)
    oldest, newest = (".".join(map(str, each)) for each in PYTHONS)
    return Check("python", State.WARNING, f"{says}: not tested", f"Python {oldest} to {newest}")


@dataclass(frozen=True)
class Needs:
    """Memory of a sweep, MiB, as the self-test saw it: with one worker, and what each further one takes; None where
    there was not enough for a second one."""

    first_mib: float
    further_mib: float | None


def self_test(model: Path | None, limit_mib: float | None) -> tuple[list[Check], Needs | None]:
    """Try runtime and model in a fresh process, which tells what it finds line by line, as JSON."""
    command = [sys.executable, "-c", _SELF_TEST, *([str(model.absolute())] if model else [])]
    try:
        with tempfile.TemporaryDirectory() as empty:  # where no file of the user's can stand in for a module
            done = subprocess.run(command, cwd=empty, capture_output=True, timeout=SELF_TEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        says = f"the self-test took more than {SELF_TEST_SECONDS} seconds and was stopped"
        return [Check("self-test", State.PROBLEM, says, "try an idle box", ExitCode.MODEL_REFUSED)], None
    except OSError as error:
        says = f"the self-test cannot be started: {error}"
        return [Check("self-test", State.PROBLEM, says, "free memory and disk", ExitCode.MODEL_REFUSED)], None
    checks, needs = [], None
    for line in done.stdout.decode(errors="replace").splitlines():
        told = json.loads(line)
        if "needs" in told:
            needs = Needs(**told["needs"])
        else:
            told |= {"state": State(told["state"]), "exit_code": ExitCode(told["exit_code"])}
            checks.append(Check(**told))
    if done.returncode and needs is None:
        after = checks[-1].name if checks else "its start"
        complaint = done.stderr.decode(errors="replace").strip().splitlines()
        checks.append(_died(done.returncode, after, complaint[-1] if complaint else "", limit_mib))
    return checks, needs


def _died(code: int, after: str, complaint: str, limit_mib: float | None) -> Check:
    """Why a self-test ended before its end."""
    limit = "" if limit_mib is None else f" (limit {limit_mib:.0f} MiB)"
    if code == -signal.SIGKILL or "MemoryError" in complaint:
        says, remedy = f"ran out of memory{limit} and was killed", "give the sweep at least 128 MiB"
    elif code == -signal.SIGILL:
        says, remedy = "the processor lacks an instruction that a wheel uses", "install wheels built for this processor"
    elif code < 0:
        says, remedy = f"crashed ({signal.Signals(-code).name})", "pip install --force-reinstall cxr-edge"
    else:
        says, remedy = f"failed: {complaint}", "pip install --force-reinstall cxr-edge"
    return Check("self-test", State.PROBLEM, f"{says}, after {after}", remedy, ExitCode.MODEL_REFUSED)


def memory(box: machine.Machine, available: int | None, needs: Needs | None) -> Check:
    """Whether a sweep with a worker for each core fits; by an estimate, so it warns at most.

    Args:
        available: bytes of the machine that are free, or None where the system does not tell.
    """
    free_mib = None if available is None else available / 2**20 - SPARE_MIB
    rooms = [room for room in (box.limit_mib, free_mib) if room is not None]
    told = [
        "no limit by a cgroup" if box.limit_mib is None else f"limit by a cgroup {box.limit_mib:.0f} MiB",
        "free memory unknown" if available is None else f"free {available / 2**20:.0f} MiB",
    ]
    if needs is None:
        says = f"{', '.join(told)}; what a sweep needs is unknown without the self-test"
        return Check("memory", State.WARNING, says, "mend what is wrong above first")
    first = needs.first_mib + PICTURE_MIB
    if needs.further_mib is None:
        says = f"{', '.join(told)}; one worker takes about {first:.0f} MiB, and there was not enough for a second"
        return Check("memory", State.WARNING, says, f"give it {first:.0f} MiB, and cxr-edge scan --workers 1; {SLOW}")
    further = needs.further_mib + PICTURE_MIB
    needed = first + (box.cores - 1) * further
    says = f"{', '.join(told)}; one worker takes about {first:.0f} MiB, {box.cores} take {needed:.0f} MiB"
    room = min(rooms, default=None)
    if room is None or needed <= room:
        return Check("memory", State.OK, says)
    if first <= room:
        return Check("memory", State.WARNING, says, f"cxr-edge scan --workers {1 + int((room - first) / further)}")
    return Check("memory", State.WARNING, says, f"give it {first:.0f} MiB, and cxr-edge scan --workers 1; {SLOW}")


def output(out: Path) -> list[Check]:
    """Whether verdicts and masks can be written there, so that they survive a power cut; and for how many files."""
    place = disk.nearest(out)
    new = "" if out.is_dir() else f", will be made in {place}"
    try:
        if out.exists() and not out.is_dir():
            raise NotADirectoryError(None, "it is no folder")
        probed = disk.probe(place)
    except OSError as error:
        says = f"{out.absolute()} cannot be written: {error.strerror or error}"
        remedy = "mount it for writing, give this user the right to, or choose another with -o"
        return [Check("output", State.PROBLEM, says, remedy, ExitCode.OUTPUT_UNWRITABLE)]
    kind = machine.filesystem(place)
    says = f"{out.absolute()} ({kind or 'unknown file system'}{new}): rename, fsync ({probed.fsync_ms:.1f} ms)"
    if probed.broken:
        remedy = "choose a folder on a local disk with -o"
        says = f"{says}; does not do: {', '.join(probed.broken)}"
        first = Check("output", State.PROBLEM, says, remedy, ExitCode.OUTPUT_UNWRITABLE)
    elif kind in disk.VOLATILE:
        first = Check("output", State.WARNING, f"{says}; a RAM disk, lost when it is switched off", "choose a disk")
    elif kind.startswith(disk.REMOTE):
        remedy = "prefer a local disk, and copy the verdicts from there"
        first = Check("output", State.WARNING, f"{says}, locks; what a power cut costs is up to the server", remedy)
    else:
        first = Check("output", State.OK, f"{says}, locks, SQLite")
    return [first, _space(probed.free_bytes)]


def _space(free: int) -> Check:
    files = free // disk.BYTES_PER_FILE
    says = f"{free / 2**20:,.0f} MiB free: enough for about {files:,} files"
    if files < 1:
        return Check("space", State.PROBLEM, says, "free some space", ExitCode.OUTPUT_UNWRITABLE)
    if files < 10_000:
        return Check("space", State.WARNING, says, "free some space, or choose another disk with -o")
    return Check("space", State.OK, says)


def clock(now: float, witnesses: list[Path]) -> Check:
    """Whether the clock can be right: it must not be before the files that were written by it, or before the release.

    How far it is off, nobody can know without a network.

    Args:
        now: seconds since 1970, UTC.
        witnesses: files; those that are not there say nothing.
    """
    says = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    remedy = "set it (timedatectl set-time), or give the box a network time server or a battery"
    for path in witnesses:
        try:
            written = path.stat().st_mtime
        except OSError:
            continue
        # A file system may keep time by two seconds, or by its own server's clock.
        if now < written - 60:
            since = datetime.fromtimestamp(written, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
            return Check("clock", State.WARNING, f"{says}: before {path.name} was written ({since})", remedy)
    if now < RELEASED.timestamp():
        return Check("clock", State.WARNING, f"{says}: before this version was released", remedy)
    before, wall = time.monotonic(), time.time()
    time.sleep(0.05)
    slip = (time.time() - wall) - (time.monotonic() - before)
    if abs(slip) > 1:
        return Check("clock", State.WARNING, f"{says}: it jumped by {slip:.1f} s just now", remedy)
    return Check(
        "clock", State.OK, f"{says}: possible, and steady; how far it is off cannot be known without a network"
    )


def extras() -> list[Check]:
    """Which optional packages of the box are there; none of them is needed for PNG and JPEG."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("cxr-edge") or []:
        extra = re.search(r"""extra\s*==\s*['"]([\w-]+)['"]""", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra and name and extra[1] not in ("train", "dev") and name[0] != "cxr-edge":
            found.setdefault(extra[1], []).append(name[0])
    return [_extra(extra, packages) for extra, packages in found.items()]


def _extra(extra: str, packages: list[str]) -> Check:
    versions, missing = [], []
    for package in packages:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if not missing:
        return Check("extra", State.OK, f"{extra}: {', '.join(versions)}")
    says = f"{extra}: not installed ({', '.join(missing)}); if you need it, pip install 'cxr-edge[{extra}]'"
    return Check("extra", State.OK, says)


def refused(name: str, error: CxrEdgeError) -> Check:
    """The check that an error of ours makes."""
    return Check(name, State.PROBLEM, error.message, error.remedy, error.exit_code)
