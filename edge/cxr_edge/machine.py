"""Facts about the box: processor, cores, memory and what limits it, file systems. Linux tells all, others some of it.

Everything is read from files below two roots, `/proc` and `/sys/fs/cgroup`, which a caller may replace.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
INSTRUCTIONS = (
    *("sse4_2", "avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8"),
    *("neon", "asimd", "asimdhp", "asimddp", "i8mm", "sve", "sve2"),
)
"""What int8 kernels care for, by the names in /proc/cpuinfo: x86 first, then ARM."""
UNLIMITED = 2**60
"""Bytes from which on a limit is none: cgroup v1 writes the largest number of pages that there is."""


@dataclass(frozen=True)
class Machine:
    """What a figure depends on. `cores` are those that this process may use; memory is in MiB, `limit_mib` of the
    cgroup, None where there is none."""

    cpu: str
    instructions: tuple[str, ...]
    cores: int
    memory_mib: float | None
    limit_mib: float | None
    system: str
    python: str


def look(proc: Path = PROC, cgroups: Path = CGROUPS) -> Machine:
    """Look at this machine."""
    facts = _fields(proc / "cpuinfo")
    told = facts.get("flags") or facts.get("Features") or ""
    total, limit = memory(proc).get("MemTotal"), memory_limit(proc, cgroups)
    return Machine(
        cpu=facts.get("model name") or facts.get("Model") or facts.get("Hardware") or platform.machine(),
        instructions=tuple(name for name in INSTRUCTIONS if name in told.split()),
        cores=cores(),
        memory_mib=None if total is None else total / 2**20,
        limit_mib=None if limit is None else limit / 2**20,
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
    )


def cores() -> int:
    """Cores that this process may use, which a container or taskset can make fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def memory(proc: Path = PROC) -> dict[str, int]:
    """/proc/meminfo in bytes, by its names (`MemTotal`, `MemAvailable`); empty where there is none."""
    return {name: _bytes(value) for name, value in _fields(proc / "meminfo").items() if value.endswith("kB")}


def memory_limit(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """The least memory limit, bytes, of this process's cgroup and those above it, or None. cgroup v1 and v2.

    In a container the path that the process sees may not exist below the mount, which then is the container's own.
    """
    limits = []
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            roots, name = (cgroups, cgroups / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            roots, name = (cgroups / "memory", cgroups / controllers), "memory.limit_in_bytes"
        else:
            continue
        own = Path(path.lstrip("/"))
        limits += [_text(root / part / name).strip() for root in roots for part in (own, *own.parents)]
    numbers = [int(limit) for limit in limits if limit.isdigit() and int(limit) < UNLIMITED]
    return min(numbers, default=None)


def peak_memory() -> float:
    """The most memory that this process has held so far, MiB (resident)."""
    # Not getrusage where it can be helped: a child's count begins with what its parent held when it was started.
    status = _fields(PROC / "self/status")
    if "VmHWM" in status:
        return _bytes(status["VmHWM"]) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def resident_memory() -> float:
    """The memory that this process holds now, MiB; its peak where the system does not tell."""
    status = _fields(PROC / "self/status")
    return _bytes(status["VmRSS"]) / 2**20 if "VmRSS" in status else peak_memory()


class PeakOfFamily:
    """The most memory that this process and its children held together, `mib`: sampled while the context lasts.

    Pages that they share count once: the sum of proportional set sizes (proc(5), smaps_rollup), or where the system
    does not tell those, this process's own peak.
    """

    SECONDS = 0.2

    def __enter__(self) -> PeakOfFamily:
        self.mib, self._over = 0.0, threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._sampler.join()
        self.mib = self.mib or peak_memory()

    def _sample(self) -> None:
        while not self._over.wait(self.SECONDS):
            self.mib = max(self.mib, memory_of_family(os.getpid()))


def memory_of_family(pid: int) -> float:
    """What a process and its children hold together now, MiB, shared pages counted once; 0 where nobody tells."""
    held = [_fields(PROC / str(member) / "smaps_rollup").get("Pss", "0 kB") for member in family(pid)]
    return sum(map(_bytes, held)) / 2**20


def family(pid: int, proc: Path = PROC) -> list[int]:
    """A process, its children, their children, and so on."""
    parents = {}
    for path in proc.glob("[0-9]*/stat"):
        # The name, in brackets, may hold anything; the parent comes second after it.
        if fields := _text(path).rpartition(")")[2].split():
            parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found


def filesystem(path: Path, proc: Path = PROC) -> str:
    """The type of the file system that holds an existing path ('ext4', 'tmpfs', 'nfs4'), or '' where nobody tells."""
    place, best, kind = path.resolve(), -1, ""
    for line in _text(proc / "self/mounts").splitlines():
        _, mount, name, *_ = line.split(" ")
        # The kernel writes blanks and the like in names as octal escapes.
        point = Path(mount.encode("latin-1", "replace").decode("unicode_escape"))
        if place.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), name
    return kind


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, str]:
    """Lines of 'name : value'; of several with one name, the first."""
    fields: dict[str, str] = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields


def _bytes(kilobytes: str) -> int:
    return int(kilobytes.split()[0]) * 1024
