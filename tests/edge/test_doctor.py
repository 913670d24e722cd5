"""`cxr-edge doctor` on a healthy box and on broken ones: real processes where that takes no privileges."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cxr_edge import disk, doctor, machine
from cxr_edge.doctor import Check, Needs, State
from cxr_edge.errors import ExitCode
from cxr_edge.machine import Machine
from cxr_edge.model_file import SHIPPED

SCRIPT = Path(sys.executable).with_name("cxr-edge")
RUNTIMES = ("ai_edge_litert", "tflite_runtime", "tensorflow")
BOX = Machine("a small box", ("neon",), 4, 1024.0, None, "Linux", "CPython 3.11")


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [SCRIPT, "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """What `--json` said, by the names of the checks."""
    assert "Traceback" not in done.stderr
    content = json.loads(done.stdout)
    assert content["exit_code"] == done.returncode
    return {check["name"]: check for check in content["checks"]}


def with_packages(folder: Path, **sources: str) -> dict[str, str]:
    """An environment in which these modules are found first."""
    for name, source in sources.items():
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(source)
    before = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *([before] if before else [])])}


# a healthy box


def test_a_healthy_box_says_ok_line_by_line(tmp_path: Path) -> None:
    done = run("-o", tmp_path / "verdicts")
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    words = [line.split()[:2] for line in done.stdout.splitlines() if not line.startswith(" ")]
    states = {name: state for state, name in words}
    assert set(states) == {
        *("python", "processor", "packages", "runtime", "kernels", "model", "memory", "output", "space", "clock"),
        "extra",
    }
    for name in ("python", "packages", "runtime", "kernels", "model"):
        assert states[name] == "ok", done.stdout
    assert "problem" not in states.values()
    assert "lung mask within a Dice of 1.000" in done.stdout
    assert not list(tmp_path.iterdir()), "the doctor left something behind"


def test_json_says_the_same(tmp_path: Path) -> None:
    found = checks(run("--json", "-o", tmp_path))
    assert found["model"]["state"] == "ok"
    assert str(tmp_path) in found["output"]["says"]
    assert "workers" in found["memory"]["says"] or "take" in found["memory"]["says"]


def test_the_doctor_itself_needs_little() -> None:
    """A box where numpy cannot be loaded, or not in its memory, must get an answer too."""
    script = "import sys, cxr_edge.doctor; print(*{'numpy', 'PIL', 'rich', 'ai_edge_litert'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "\n"


# runtime and model


def test_no_runtime(tmp_path: Path) -> None:
    env = with_packages(tmp_path, **dict.fromkeys(RUNTIMES, "raise ImportError('there is none')"))
    done = run("-o", tmp_path, env=env)
    assert done.returncode == ExitCode.MODEL_REFUSED
    assert "problem  runtime    no TFLite runtime can be loaded" in done.stdout
    assert "try: pip install" in done.stdout
    # What does not depend on it is checked all the same.
    assert "ok       packages" in done.stdout
    assert "output" in done.stdout


@pytest.mark.parametrize("package", ["numpy", "PIL"])
def test_a_package_that_cannot_be_loaded(tmp_path: Path, package: str) -> None:
    env = with_packages(tmp_path, **{package: "raise ImportError('libopenblas.so.0: cannot open shared object file')"})
    done = run("--json", "-o", tmp_path, env=env)
    assert done.returncode == ExitCode.MODEL_REFUSED
    found = checks(done)
    assert "libopenblas" in found["packages"]["says"]
    assert found["packages"]["remedy"]
    assert found["memory"]["state"] == "warning"


@pytest.mark.parametrize(
    ("death", "says"),
    [
        ("SIGILL", "the processor lacks an instruction"),
        ("SIGKILL", "ran out of memory"),
        ("SIGSEGV", "crashed (SIGSEGV)"),
    ],
)
def test_a_self_test_that_dies_does_not_take_the_doctor_with_it(tmp_path: Path, death: str, says: str) -> None:
    env = with_packages(tmp_path, ai_edge_litert=f"import os, signal; os.kill(os.getpid(), signal.{death})")
    found = checks(run("--json", "-o", tmp_path, env=env))
    assert says in found["self-test"]["says"]
    assert "after packages" in found["self-test"]["says"]
    assert (found["self-test"]["state"], found["self-test"]["exit_code"]) == ("problem", ExitCode.MODEL_REFUSED)
    assert found["self-test"]["remedy"]


def test_built_in_kernels_are_a_warning() -> None:
    from cxr_edge.self_test import _kernels

    check = _kernels("built-in kernels, no XNNPACK")
    assert check.state is State.WARNING
    assert "ai-edge-litert" in check.remedy
    assert _kernels("XNNPACK in 2 parts").state is State.OK


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def older(content: bytes) -> bytes:
    """The shipped model, with a manifest of the version before."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(files["manifest.json"])
    manifest["manifest_version"] -= 1
    files["manifest.json"] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content[:start] + packed.getvalue()


def damaged(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 3] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(("change", "says"), [(truncated, "cut short"), (older, "older than"), (damaged, "is damaged")])
def test_a_wrong_model(tmp_path: Path, change: Any, says: str) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(change(SHIPPED.read_bytes()))
    # A relative path: the self-test runs in another folder.
    done = run("--json", "-o", tmp_path, "--model", "model.tflite", cwd=tmp_path)
    found = checks(done)
    assert done.returncode == ExitCode.MODEL_REFUSED
    assert says in found["model"]["says"]
    assert found["model"]["remedy"]
    assert found["runtime"]["state"] == "ok"


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = run("-o", tmp_path, "--model", tmp_path / "none.tflite")
    assert done.returncode == ExitCode.MODEL_REFUSED
    assert "cannot be read" in done.stdout


# output folder


def test_an_output_that_cannot_be_written() -> None:
    """`/proc` takes no folder, not even from root; where there is none, `/` of macOS is read-only as well."""
    done = run("--json", "-o", "/proc/none/verdicts")
    assert done.returncode == ExitCode.OUTPUT_UNWRITABLE
    found = checks(done)
    assert "cannot be written" in found["output"]["says"]
    assert found["output"]["remedy"]
    assert "space" not in found


def test_an_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "verdicts").write_text("")
    (check,) = doctor.output(tmp_path / "verdicts")
    assert check.exit_code is ExitCode.OUTPUT_UNWRITABLE
    assert "no folder" in check.says


def test_a_folder_that_will_be_made_is_tried_above(tmp_path: Path) -> None:
    check, space = doctor.output(tmp_path / "new" / "verdicts")
    assert f"will be made in {tmp_path}" in check.says
    assert check.exit_code is space.exit_code is ExitCode.OK
    assert not list(tmp_path.iterdir())


def no_exclusion(*_: object) -> None:
    """What `flock` does on some network shares: nothing."""


def not_supported(*_: object) -> None:
    raise OSError(95, "Operation not supported")


@pytest.mark.parametrize("flock", [no_exclusion, not_supported])
def test_a_share_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: Any) -> None:
    monkeypatch.setattr("fcntl.flock", flock)
    assert disk.probe(tmp_path).broken == ("locks",)
    check = doctor.output(tmp_path)[0]
    assert (check.state, check.exit_code) == (State.PROBLEM, ExitCode.OUTPUT_UNWRITABLE)
    assert "does not do: locks" in check.says


def test_a_folder_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/dev/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    assert disk.probe(tmp_path).broken == ("rename",)


@pytest.mark.parametrize(
    ("kind", "state"), [("ext4", State.OK), ("tmpfs", State.WARNING), ("nfs4", State.WARNING), ("cifs", State.WARNING)]
)
def test_the_kind_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: State) -> None:
    monkeypatch.setattr(machine, "filesystem", lambda _: kind)
    check = doctor.output(tmp_path)[0]
    assert (check.state, check.exit_code) == (state, ExitCode.OK)
    assert bool(check.remedy) == (state is not State.OK)


@pytest.mark.parametrize(
    ("free", "state", "code"),
    [
        (0, State.PROBLEM, ExitCode.OUTPUT_UNWRITABLE),
        (2**20, State.WARNING, ExitCode.OK),
        (2**40, State.OK, ExitCode.OK),
    ],
)
def test_free_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: State, code: ExitCode) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=free))
    check = doctor.output(tmp_path)[1]
    assert (check.state, check.exit_code) == (state, code)


# memory


def cgroup_tree(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A made-up /proc and /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    for name, content in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(content)
    return root / "proc", root / "cgroup"


NO_LIMIT = "9223372036854771712\n"


@pytest.mark.parametrize(
    ("own", "files", "mib"),
    [
        ("0::/night/scan\n", {"night/scan/memory.max": "67108864\n", "night/memory.max": "max\n"}, 64),
        ("0::/night/scan\n", {"night/scan/memory.max": "max\n", "night/memory.max": "67108864\n"}, 64),
        ("0::/night\n", {"night/memory.max": "max\n"}, None),
        ("0::/\n", {"memory.max": "134217728\n"}, 128),
        ("4:memory:/box\n0::/\n", {"memory/box/memory.limit_in_bytes": "67108864\n"}, 64),
        ("4:cpu,memory:/box\n", {"memory/box/memory.limit_in_bytes": "67108864\n"}, 64),
        # A container sees a path of its host, and its own group where the mount is.
        ("4:memory:/docker/0af3\n", {"memory/memory.limit_in_bytes": "67108864\n"}, 64),
        ("4:memory:/box\n0::/\n", {"memory/box/memory.limit_in_bytes": NO_LIMIT, "memory.max": "max\n"}, None),
        ("4:memory:/\n0::/x\n", {"memory/memory.limit_in_bytes": NO_LIMIT, "unified/x/memory.max": "67108864"}, 64),
        ("", {}, None),
    ],
)
def test_the_memory_limit_of_a_cgroup(tmp_path: Path, own: str, files: dict[str, str], mib: int | None) -> None:
    proc, cgroups = cgroup_tree(tmp_path, own, files)
    assert machine.memory_limit(proc, cgroups) == (None if mib is None else mib * 2**20)


def limited(limit_mib: float | None, available_mib: float | None, needs: Needs | None) -> Check:
    box = Machine(BOX.cpu, BOX.instructions, 4, 1024.0, limit_mib, BOX.system, BOX.python)
    return doctor.memory(box, None if available_mib is None else int(available_mib * 2**20), needs)


def test_memory_that_is_enough() -> None:
    assert limited(None, 1024, Needs(70, 10)).state is State.OK
    assert limited(512, 1024, Needs(70, 10)).state is State.OK
    assert limited(None, None, Needs(70, 10)).state is State.OK


def test_memory_for_fewer_workers() -> None:
    """Each worker holds a picture and a decoder of 20 MiB besides: 90, 120, 150 and 180 MiB."""
    check = limited(160, 1024, Needs(70, 10))
    assert (check.state, check.remedy) == (State.WARNING, "cxr-edge scan --workers 3")
    assert limited(None, 128, Needs(70, 10)).remedy == "cxr-edge scan --workers 1"


@pytest.mark.parametrize("needs", [Needs(70, 10), Needs(70, None), None])
def test_memory_of_64_mib_is_a_warning_at_least(needs: Needs | None) -> None:
    check = limited(64, 1024, needs)
    assert check.state is State.WARNING
    assert "64 MiB" in check.says
    assert check.remedy


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no limit of address space")
def test_a_box_without_memory_is_told_so() -> None:
    """Too little for a runtime, but enough for the doctor."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (100 * 2**20, 100 * 2**20))

    done = run("--json", preexec_fn=limit)
    assert done.returncode == ExitCode.MODEL_REFUSED, done.stdout
    problems = [check for check in checks(done).values() if check["state"] == "problem"]
    assert problems
    assert all(check["remedy"] for check in problems)


# clock, extras, and how it leaves


def test_a_clock_that_stands_still_or_went_back(tmp_path: Path) -> None:
    table = tmp_path / "verdicts.csv"
    table.write_text("")
    assert doctor.clock(time.time(), [table, tmp_path / "none"]).state is State.OK
    back = doctor.clock(time.time() - 3600, [table])
    assert (back.state, "before verdicts.csv was written" in back.says) == (State.WARNING, True)
    fresh = doctor.clock(0.0, [])
    assert (fresh.state, "1970-01-01" in fresh.says) == (State.WARNING, True)
    assert fresh.remedy
    assert back.exit_code is fresh.exit_code is ExitCode.OK


def test_extras_are_listed_but_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    import pydicom

    assert any(f"pydicom {pydicom.__version__}" in check.says for check in doctor.extras())
    requires = ["numpy>=1", "nothing-of-the-kind>=3; extra == 'dicom'", "tensorflow; extra == 'train'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda _: requires)
    (check,) = doctor.extras()
    assert check.state is State.OK
    assert "not installed (nothing-of-the-kind)" in check.says


def test_a_python_that_nobody_tested() -> None:
    assert doctor.python((3, 10)).state is doctor.python((3, 13)).state is State.OK
    for version in ((3, 9), (3, 14)):
        assert doctor.python(version).state is State.WARNING


def test_the_exit_code_names_the_first_thing_to_mend() -> None:
    fine, warned = Check("a", State.OK, ""), Check("b", State.WARNING, "")
    model = Check("c", State.PROBLEM, "", exit_code=ExitCode.MODEL_REFUSED)
    output = Check("d", State.PROBLEM, "", exit_code=ExitCode.OUTPUT_UNWRITABLE)
    assert doctor.exit_code([fine, warned]) is ExitCode.OK
    assert doctor.exit_code([fine, output]) is ExitCode.OUTPUT_UNWRITABLE
    assert doctor.exit_code([output, warned, model]) is ExitCode.MODEL_REFUSED
