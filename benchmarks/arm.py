"""cxr-edge on ARM boxes, 64-bit and 32-bit, under emulation: it installs, scans, and gives x86's verdicts.

Debian 12 is put into a folder by debootstrap, the project's wheel is installed in it as on a box (numpy and Pillow from
Debian where PyPI has none), and a folder of radiographs is scanned there and here. Speed under emulation means nothing,
and none is shown. As root, on Linux with debootstrap and qemu-user-static, from the repository's root:

    python -m benchmarks.arm
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console

from benchmarks import environments, figures, pictures

ROOTS = environments.FOLDER / "roots"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
HELD_OUT_EVERY = 5
"""Of the held-out pictures, one in so many: a picture takes a second or two under emulation."""
ENTER = """
mount -t proc proc "$1/proc"; mount -t sysfs sysfs "$1/sys"; mount --bind "$1/etc/cpuinfo" "$1/proc/cpuinfo"
root=$1; shift; exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"
"""
CPUINFO = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: {architecture}
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""


@dataclass(frozen=True)
class Box:
    """A kind of box: Debian's name of its architecture, the processor that QEMU plays, and what that one says of itself
    in /proc/cpuinfo, which XNNPACK reads and QEMU 7 shows the workstation's in place of.

    `packages` are Debian's that PyPI has no wheels of.
    """

    name: str
    debian: str
    qemu: str
    processor: str
    part: str
    features: str
    architecture: int
    packages: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        """Its root file system."""
        return ROOTS / self.debian

    def cpuinfo(self) -> str:
        """Four cores, in the words of Linux."""
        about = {"features": self.features, "architecture": self.architecture, "part": self.part}
        return "".join(CPUINFO.format(number=number, **about) for number in range(4))


V8 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
V7 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
BOXES = {
    "pi4": Box("Raspberry Pi 4, 64-bit", "arm64", "qemu-aarch64", "cortex-a72", "0xd08", V8, 8),
    "pi5": Box(
        "Raspberry Pi 5, 64-bit",
        "arm64",
        "qemu-aarch64",
        "cortex-a76",
        "0xd0b",
        f"{V8} atomics fphp asimdhp asimddp",
        8,
    ),
    "pi2": Box(
        "Raspberry Pi 2, 32-bit", "armhf", "qemu-arm", "cortex-a7", "0xc07", V7, 7, ("python3-numpy", "python3-pil")
    ),
}


def check_machine(boxes: list[Box]) -> None:
    """Raise ClickException, with what to do, where this machine cannot emulate ARM."""
    if os.geteuid() != 0:
        raise click.ClickException("debootstrap and chroot need root: run it with sudo")
    if missing := [name for name in ("debootstrap", "unshare", "chroot") if not shutil.which(name)]:
        raise click.ClickException(
            f"{', '.join(missing)} not found: apt install debootstrap qemu-user-static util-linux"
        )
    if not (BINFMT / "register").exists():
        mounted = subprocess.run(
            ["mount", "binfmt_misc", "-t", "binfmt_misc", BINFMT], check=False, capture_output=True
        )
        if mounted.returncode:
            raise click.ClickException(f"this kernel has no binfmt_misc: {mounted.stderr.decode().strip()}")
    for qemu in {box.qemu for box in boxes}:
        if not (BINFMT / qemu).exists():
            raise click.ClickException(
                f"{qemu} is not registered: apt install qemu-user-static binfmt-support; update-binfmts --enable {qemu}"
            )


def logged(log: Path, *command: str | Path, shown: str = "") -> None:
    """Run a command; it, or what is `shown` instead, and what it says go to `log`. Raises ClickException on failure."""
    words = [str(word) for word in command]
    with log.open("a") as file:
        file.write(f"{shown or '$ ' + ' '.join(words)}\n")
        file.flush()
        done = subprocess.run(words, stdout=file, stderr=file, check=False)
    if done.returncode:
        raise click.ClickException(f"{shown or words[0]} left with {done.returncode}, see {log}")


@dataclass(frozen=True)
class Emulated:
    """A box to run commands on, and the log of what they say."""

    box: Box
    log: Path

    def run(self, *command: str) -> None:
        """Run a command in the box as root, on its processor. Raises ClickException where it fails."""
        enter = ("unshare", "--mount", "sh", "-ec", ENTER, "sh", self.box.root)
        shown = f"{self.box.debian}# {' '.join(command)}"
        logged(self.log, *enter, "env", f"QEMU_CPU={self.box.processor}", *command, shown=shown)


def make_root(emulated: Emulated) -> None:
    """Put Debian 12 into the box's folder, unless it is there."""
    box, ready = emulated.box, emulated.box.root / "etc" / "cxr-edge-root"
    if not ready.exists():
        shutil.rmtree(box.root, ignore_errors=True)
        wanted = ",".join(("python3", "python3-venv", "python3-pip", "ca-certificates", *box.packages))
        first = ("debootstrap", f"--arch={box.debian}", "--foreign", "--variant=minbase", f"--include={wanted}")
        logged(emulated.log, *first, "bookworm", box.root, "http://deb.debian.org/debian")
        (box.root / "etc" / "cpuinfo").write_text(box.cpuinfo())
        emulated.run("/debootstrap/debootstrap", "--second-stage")
        ready.touch()
    (box.root / "etc" / "cpuinfo").write_text(box.cpuinfo())


def install(emulated: Emulated, wheel: Path) -> None:
    """Install the wheel as the README says, from PyPI, in an environment that sees Debian's packages."""
    root = emulated.box.root
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        shutil.copyfile(f"/{name}", root / name)
    (root / "root" / "wheel").mkdir(exist_ok=True)
    shutil.copy(wheel, root / "root" / "wheel")
    emulated.run("python3", "-m", "venv", "--system-site-packages", "/opt/cxr-edge")
    emulated.run("/opt/cxr-edge/bin/pip", "install", "--no-warn-script-location", f"/root/wheel/{wheel.name}")
    emulated.run("/opt/cxr-edge/bin/pip", "install", "--no-deps", "--force-reinstall", f"/root/wheel/{wheel.name}")
    emulated.run("/opt/cxr-edge/bin/pip", "list", "--format=freeze")


def scan(emulated: Emulated, incoming: Path) -> dict[str, str]:
    """Have the pictures judged in the box: verdict of each path."""
    home = emulated.box.root / "root"
    for name in ("incoming", "verdicts"):
        shutil.rmtree(home / name, ignore_errors=True)
    shutil.copytree(incoming, home / "incoming")
    emulated.run("/opt/cxr-edge/bin/cxr-edge", "scan", "/root/incoming", "-o", "/root/verdicts")
    return verdicts(home / "verdicts" / "verdicts.csv")


def verdicts(table: Path) -> dict[str, str]:
    """Verdict of each path; '' where there is none."""
    with table.open(newline="") as file:
        return {row["path"]: row["verdict"] for row in csv.DictReader(file)}


@dataclass(frozen=True)
class Comparison:
    """Files, by what became of them here and on the box.

    Attributes:
        same: of `files`, those with the same verdict, or with none on both.
        certain: those with a verdict here that is not 'uncertain'. Of these, there are on the box
            `certain_same` with the same verdict, `uncertain`, `without` a verdict, and with an `other` one.
        added: those with a verdict on the box only.
    """

    files: int
    same: int
    certain: int
    certain_same: int
    uncertain: int
    without: int
    other: int
    added: int


def compare(ours: dict[str, str], theirs: dict[str, str]) -> Comparison:
    """Compare verdicts, as `verdicts` gives them, path by path."""
    there = [theirs[path] for path, verdict in ours.items() if verdict not in ("", figures.UNCERTAIN)]
    same = sum(theirs[path] == verdict for path, verdict in ours.items())
    certain_same = sum(theirs[path] == verdict != figures.UNCERTAIN for path, verdict in ours.items() if verdict)
    uncertain, without = there.count(figures.UNCERTAIN), there.count("")
    added = sum(bool(theirs[path]) for path, verdict in ours.items() if not verdict)
    other = len(there) - certain_same - uncertain - without
    return Comparison(len(ours), same, len(there), certain_same, uncertain, without, other, added)


def gather(folder: Path, table: Path) -> str:
    """Fill `folder` with the originals, and held-out pictures where the model's table is there; say what they are."""
    shutil.rmtree(folder, ignore_errors=True)
    told = pictures.originals(folder)
    if not table.is_file():
        return told
    with table.open(newline="") as file:
        held_out = [row["path"] for row in csv.DictReader(file) if row["split"] == "test"][::HELD_OUT_EVERY]
    for number, path in enumerate(held_out):
        source = table.parent / path
        shutil.copyfile(source, folder / f"test-{number:04}{source.suffix}")
    return f"{told}, and {len(held_out)} held-out ones"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(list(BOXES)), metavar=f"[{'|'.join(BOXES)}]...")
@click.option("--table", type=click.Path(path_type=Path), default=Path("runs/shipped/table.csv"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/arm"), show_default=True)
def main(names: tuple[str, ...], table: Path, out: Path) -> None:
    """Compare."""
    boxes = {name: BOXES[name] for name in names or BOXES}
    check_machine(list(boxes.values()))
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=120, highlight=False)
    log = out / "here.log"
    log.unlink(missing_ok=True)
    environment = environments.Environment("cxr-edge", (str(pictures.ROOT),))
    environment.make()
    incoming, judged = out / "incoming", out / "verdicts"
    told = gather(incoming, table)
    shutil.rmtree(judged, ignore_errors=True)
    logged(log, environment.python.parent / "cxr-edge", "scan", incoming, "-o", judged)
    ours = verdicts(judged / "verdicts.csv")
    shutil.rmtree(out / "wheel", ignore_errors=True)
    logged(log, sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", out / "wheel", pictures.ROOT)
    (wheel,) = (out / "wheel").glob("*.whl")
    console.print(f"{told}, judged here and on each box", markup=False)
    different = 0
    for name, box in boxes.items():
        emulated = Emulated(box, out / f"{name}.log")
        emulated.log.write_text(f"{box.name}: Debian {box.debian}, {box.qemu} as {box.processor}\n")
        make_root(emulated)
        install(emulated, wheel)
        theirs = scan(emulated, incoming)
        found = compare(ours, theirs)
        different += found.other
        console.print(
            f"{name}  {box.name}: the same for {found.same} of {found.files} files. Of {found.certain} that this"
            f" machine is certain of: {found.certain_same} the same, {found.uncertain} uncertain there,"
            f" {found.without} without a verdict there, {found.other} another. {found.added} have a verdict there only."
            f" {emulated.log}",
            markup=False,
        )
    if different:
        raise click.ClickException(f"{different} verdicts are others than this machine's, where both are certain")


if __name__ == "__main__":
    main()
