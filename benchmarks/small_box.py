"""A sweep in memory cgroups of 64 to 256 MiB: does it end, at what rate, with what peak?

As root, on Linux, from the repository's root: python -m benchmarks.small_box
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks import contenders, figures, measure, pictures
from cxr_edge.bench.figures import spread

FOLDER = Path("/sys/fs/cgroup")
MIB = 2**20
LIMITS = (64, 96, 128, 256)
"""MiB."""
ENTER = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"'


@dataclass(frozen=True)
class Group:
    """A memory cgroup, of version 1 or 2."""

    path: Path
    version: int

    def limit(self, mib: int | None) -> None:
        """Set its limit, MiB; None for no limit. Nothing is swapped out."""
        if self.version == 2:
            (self.path / "memory.max").write_text("max" if mib is None else str(mib * MIB))
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                (self.path / "memory.swap.max").write_text("0")
        else:
            (self.path / "memory.limit_in_bytes").write_text("-1" if mib is None else str(mib * MIB))
            (self.path / "memory.swappiness").write_text("0")

    def kills(self) -> int:
        """How many of its processes were ended for want of memory."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return kills_in((self.path / name).read_text())


def kills_in(events: str) -> int:
    """The count of `oom_kill` in memory.events (version 2) or memory.oom_control (version 1)."""
    return next((int(line.split()[1]) for line in events.splitlines() if line.startswith("oom_kill ")), 0)


@contextlib.contextmanager
def group() -> Iterator[Group]:
    """A cgroup of our own, for as long as the context lasts. Raises ClickException where there can be none."""
    version = 2 if (FOLDER / "cgroup.controllers").is_file() else 1
    path = (FOLDER if version == 2 else FOLDER / "memory") / f"small-box-{os.getpid()}"
    try:
        if version == 2:
            (FOLDER / "cgroup.subtree_control").write_text("+memory")
        path.mkdir()
    except OSError as error:
        raise click.ClickException(
            f"no memory cgroup can be made at {path} ({error.strerror}): run it as root"
        ) from error
    # A group with nobody in it may be tidied away by whoever else keeps groups here.
    keeper = subprocess.Popen(["sleep", "infinity"])
    try:
        (path / "cgroup.procs").write_text(str(keeper.pid))
        yield Group(path, version)
    finally:
        keeper.kill()
        keeper.wait()
        path.rmdir()


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache: what a sweep reads must count against its own limit."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


@click.command(help=__doc__)
@click.option("--count", default=480, show_default=True, help="Pictures that a sweep judges.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--no-isolate", is_flag=True, help="Of the sweep: what do the decoders' processes take?")
def main(count: int, rounds: int, *, no_isolate: bool) -> None:
    """Measure."""
    console = Console(width=120, highlight=False)
    environment = contenders.CXR_EDGE
    with group() as limited, tempfile.TemporaryDirectory() as temp:
        environment.make()
        folder, out = Path(temp) / "incoming", Path(temp) / "out"
        kind = pictures.same_size(folder, count)
        command = [str(environment.python.parent / "cxr-edge"), "scan", str(folder), "-o", str(out)]
        if no_isolate:
            command.append("--no-isolate")
        inside = ["sh", "-ec", ENTER, "sh", str(limited.path), *command]
        runs: dict[int | None, list[measure.Run]] = {limit: [] for limit in (None, *reversed(LIMITS))}
        killed = dict.fromkeys(runs, 0)
        for _ in range(rounds):
            for limit, some in runs.items():
                shutil.rmtree(out, ignore_errors=True)
                forget(environment.home)
                forget(folder)
                limited.limit(limit)
                before = limited.kills()
                run = measure.run(inside, pictures.ROOT, Path(temp) / "log")
                killed[limit] += limited.kills() > before
                if run.status == 0:
                    some.append(run)
                elif limited.kills() == before:
                    raise click.ClickException(f"cxr-edge left with {run.status}: {(Path(temp) / 'log').read_text()}")
    free = spread([count / run.seconds for run in runs[None]]).median
    table = Table("limit", "ended", "images/s, start-up included", "of the free rate", "peak of the process, MiB")
    for limit, some in runs.items():
        name, ended = f"{limit} MiB" if limit else "none", f"{len(some)} of {rounds}"
        if not some:
            table.add_row(name, f"{ended}: killed for want of memory {killed[limit]} times", "", "", "")
            continue
        rates, peaks = (spread(each) for each in zip(*((count / r.seconds, r.peak) for r in some), strict=True))
        table.add_row(name, ended, figures.told(rates, 1), f"{rates.median / free:.0%}", figures.told(peaks, 0))
    console.print(f"{kind}; cgroup version {limited.version}; {rounds} rounds, interleaved", markup=False)
    console.print(table)


if __name__ == "__main__":
    main()
