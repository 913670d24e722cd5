"""Decoders in processes of their own: one that hangs or crashes costs the file in its hands, not the sweep.

    sweep ──fork, please──▶ nursery ──fork──▶ child, one for each worker
      └───────────────────socket────────────────┘   look, read, prepare; one request, one answer

The nursery is a fork of the sweep from before it loads the model's runtime, and keeps none of its files: sweep,
nursery and children share the memory of what all of them have imported. A child that does not answer in time is killed,
and the next file gets a new one. A request is JSON; an answer is JSON, and pixels as raw bytes behind it: nothing that
a hijacked decoder sends is ever executed. Nursery and children leave when the sweep's end of their socket closes,
however the sweep ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cxr_edge.channel import Channel
from cxr_edge.decoder import FileLeft, Left, LocalDecoder, Prepared
from cxr_edge.dicom_seg import SegmentationRefused
from cxr_edge.discover import FoundFile
from cxr_edge.errors import CxrEdgeError, ImageProblem, Reason, Status
from cxr_edge.preprocess import InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 60.0
"""For one step of one picture: many times what the largest takes here (2 s), for boxes that are many times slower."""
FORK = b"f"
SPARE_BYTES = 96 * 2**20
"""For the decoders' own code and tables, on top of the budget, before a child is refused more memory."""
KEPT_BYTES = 4 * 2**20
"""Free memory that the allocator keeps: glibc would give that of each picture back to the system, which clears it for
the next one, 1 ms each."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt(3)."""


class Nursery:
    """Starts isolated decoders. Use as a context manager; threads may share it."""

    def __init__(self, spec: InputSpec, budget: int) -> None:
        """Start the nursery.

        Args:
            spec: of the model.
            budget: bytes that one picture may take; a child that wants many more is refused them by the system.

        Raises:
            CxrEdgeError: no process can be started.
        """
        self._spec, self._turn = spec, threading.Lock()
        self._control, theirs = socket.socketpair()
        gc.freeze()  # what is shared is looked at by no collection, which would copy it
        with theirs:
            try:
                self._pid = os.fork()
            except OSError as error:
                self._control.close()
                message = f"no process can be started for the decoders: {error.strerror}"
                raise CxrEdgeError(message, "free some memory, or use --no-isolate") from error
            if not self._pid:
                try:
                    _run(theirs, budget)
                finally:
                    os._exit(0)  # whatever happened: the sweep goes on in the other process alone

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self._control.close()
        with contextlib.suppress(ChildProcessError):  # where who called us has it that nobody waits
            os.waitpid(self._pid, 0)

    def decoder(self, seconds: float = SECONDS) -> IsolatedDecoder:
        """A decoder with a process of its own, and `seconds` for each step."""
        return IsolatedDecoder(lambda: self._child(seconds))

    def _child(self, seconds: float) -> Child:
        """Start a child. Raises CxrEdgeError."""
        ours, theirs = socket.socketpair()
        channel = Channel(ours, seconds)
        try:
            with self._turn, theirs:  # one request at a time: a stream keeps no messages apart
                socket.send_fds(self._control, [FORK], [theirs.fileno()])
                theirs.close()
                pid, _ = channel.receive()
            channel.send(asdict(self._spec))
        except (OSError, EOFError) as error:
            remedy = "free some memory, or use --no-isolate"
            raise CxrEdgeError("the process that starts the decoders has ended", remedy) from error
        return Child(int(pid), channel, seconds)


@dataclass(frozen=True)
class Child:
    """A process that decodes, and `seconds` that it has for a step."""

    pid: int
    channel: Channel
    seconds: float


class IsolatedDecoder:
    """A `Decoder` (see `decoder.py`) whose steps run in a child; a child that fails is replaced for the next file.

    Each step raises ImageProblem as well where the child hangs (`timed_out`) or dies (`decoder_crashed`).
    """

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self._child: Child | None = None

    def look(self, found: FoundFile) -> int:
        """See `Decoder`."""
        file = [os.fsdecode(found.path), found.name, found.size, found.mtime_ns]
        answer, _ = self._ask("look", file)
        return int(answer["value"])

    def digest(self) -> str:
        """See `Decoder`."""
        answer, _ = self._ask("digest")
        return str(answer["value"])

    def read(self) -> str:
        """See `Decoder`."""
        answer, _ = self._ask("read")
        return str(answer["value"])

    def prepare(self) -> Prepared:
        """See `Decoder`."""
        answer, payload = self._ask("prepare")
        pixels = np.frombuffer(payload, np.uint8).reshape(answer["shape"])
        return Prepared(pixels, int(answer["width"]), int(answer["height"]), float(answer["brightness"]))

    def segment(self, mask: Image.Image, model_name: str, model_version: str) -> bytes:
        """See `Decoder`."""
        answer, payload = self._ask("segment", mask.size, model_name, model_version, payload=mask.tobytes())
        if "refused" in answer:
            raise SegmentationRefused(answer["refused"])
        return payload

    def close(self) -> None:
        """End the child."""
        if self._child:
            self._child.channel.close()
            self._child = None

    def _ask(self, step: str, *arguments: object, payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        self._child = child = self._child or self._start()
        try:
            child.channel.send([step, *arguments], payload)
            answer, content = child.channel.receive()
        except TimeoutError as error:
            self._give_up(child)
            sentence = f"it was not decoded within {child.seconds:.0f} seconds"
            raise ImageProblem(Status.FAILED, Reason.TIMED_OUT, sentence) from error
        except (EOFError, OSError, ValueError) as error:
            self._give_up(child)
            raise ImageProblem(Status.FAILED, Reason.DECODER_CRASHED, "its decoder crashed on it") from error
        if "left" in answer:
            raise FileLeft(Left(answer["left"]))
        if "problem" in answer:
            status, reason, *rest = answer["problem"]
            raise ImageProblem(Status(status), Reason(reason), *rest)
        if "bug" in answer:
            raise RuntimeError(answer["bug"])
        return answer, content

    def _give_up(self, child: Child) -> None:
        # Before the socket is closed: till then the child cannot have ended by itself and left its number to another.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
        self.close()


def _run(control: socket.socket, budget: int) -> None:
    """The nursery: fork a child for each socket that arrives, until the sweep is gone."""
    _forget_files(control.fileno())
    # The sweep decides when to stop: a Ctrl-C or a service's SIGTERM reaches every process of the group.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc
        allocator = ctypes.CDLL(None)
        allocator.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        allocator.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, len(FORK), 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            _serve(Channel(socket.socket(fileno=descriptors[0])), budget)
            os._exit(0)
        os.close(descriptors[0])


def _forget_files(keep: int) -> None:
    """Close every file of the sweep's but one: the lock of its output folder must go when the sweep goes."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 2):  # libraries of decoders write to stderr, and cron would mail it
        os.dup2(null, standard)
    for opened in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        if opened > 2 and opened != keep:
            with contextlib.suppress(OSError):  # that of the listing itself
                os.close(opened)


def _serve(channel: Channel, budget: int) -> None:
    """A child: answer requests until the sweep closes its end."""
    _limit_memory(budget + SPARE_BYTES)
    with contextlib.suppress(EOFError, OSError):
        channel.send(os.getpid())
        spec, _ = channel.receive()
        decoder = LocalDecoder(InputSpec(**spec))
        while True:
            (step, *arguments), payload = channel.receive()
            _limit_time(2 * SECONDS)
            channel.send(*_answer(decoder, step, arguments, payload))


def _answer(decoder: LocalDecoder, step: str, arguments: list[Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
    answer: dict[str, Any] = {}
    content = b""
    try:
        if step == "look":
            path, *rest = arguments[0]
            answer = {"value": decoder.look(FoundFile(Path(path), *rest))}
        elif step == "digest":
            answer = {"value": decoder.digest()}
        elif step == "read":
            answer = {"value": decoder.read()}
        elif step == "prepare":
            prepared = decoder.prepare()
            answer = {"shape": prepared.pixels.shape, "brightness": prepared.brightness}
            answer |= {"width": prepared.width, "height": prepared.height}
            content = prepared.pixels.tobytes()
        else:
            size, model_name, model_version = arguments
            content = decoder.segment(Image.frombytes("1", tuple(size), payload), model_name, model_version)
    except FileLeft as left:
        answer = {"left": left.left.value}
    except SegmentationRefused as refusal:
        answer = {"refused": str(refusal)}
    except ImageProblem as problem:
        parts = problem.sentence, problem.width, problem.height
        answer = {"problem": [problem.status.value, problem.reason.value, *parts]}
    except Exception as error:  # one bad file costs one row, even where the bug is ours
        answer = {"bug": f"{type(error).__name__}: {error}"}
    return answer, content


def _limit_time(seconds: float) -> None:
    """Let the system end this process after so many more seconds of work: a killed sweep cannot end one that hangs."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(OSError, ValueError):  # a limit of the administrator's may be lower
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds), hard))


def _limit_memory(spare: int) -> None:
    """Refuse this process more than `spare` bytes beyond what it has, and let the system end it before the sweep."""
    with contextlib.suppress(OSError, ValueError):  # not on macOS; a limit of the administrator's may be lower
        status = Path("/proc/self/status").read_text()
        now = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData"))
        resource.setrlimit(resource.RLIMIT_DATA, (now + spare, now + spare))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
