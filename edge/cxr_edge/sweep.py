"""The sweep: discover -> admit -> decode -> infer -> judge -> record.

The calling thread discovers, admits and records; worker threads do the rest, each image in one of them from its look
to its mask (`worker.py`), with an interpreter and a decoder of its own. Inference and PNG compression release the GIL,
decoders run in processes of their own (`isolate.py`), and threads that do nothing else wait for the disk. At most a few
images are in flight, and those share a budget of memory, so memory does not grow with the folder; rows are recorded in
the order of discovery, each after its mask.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

from cxr_edge import lock, runtime
from cxr_edge.budget import DEFAULT_BYTES, Budget
from cxr_edge.decoder import Decoder, Left, LocalDecoder
from cxr_edge.discover import FoundFile, Notice, discover, settled
from cxr_edge.errors import Reason, Status
from cxr_edge.isolate import Nursery
from cxr_edge.ledger import Known, Ledger
from cxr_edge.manifest import DEFAULT_POINT
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import FileWriter, Row
from cxr_edge.tally import Stop, Tally
from cxr_edge.worker import Tools, Worker

SWITCH_SECONDS = 0.0005
"""A worker whose decoder has answered waits for the interpreter no longer than this; Python's own 5 ms are a third of
what a picture takes."""
WRITERS = 4
"""Files that may wait for the disk at once."""
BATCH_ROWS = 64
BATCH_SECONDS = 2.0
"""A batch is recorded when it has this many rows or this age; a power cut costs no more work than that."""


@dataclass(frozen=True)
class Settings:
    """How a sweep is to be done.

    Attributes:
        operating_point: one of `manifest.OPERATING_POINTS`.
        workers: threads that judge.
        memory: bytes for pictures in hand.
        isolate: whether decoders run in processes of their own.
        again: statuses of known files that are judged once more.
        dicom_seg: whether the mask of a DICOM file is written as a DICOM Segmentation as well.
        settle: seconds for which nobody may have written to a file that is judged.
    """

    operating_point: str = DEFAULT_POINT
    workers: int = 1
    memory: int = DEFAULT_BYTES
    isolate: bool = True
    again: frozenset[Status] = field(default_factory=frozenset)
    dicom_seg: bool = False
    settle: float = 0.0


class Sweep:
    """An output folder, held, and whatever judges files into it. Use as a context manager.

    `writer` is there, once the context is entered, for what else is to be written into the folder.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        model: ModelFile,
        settings: Settings,
        *,
        progress: Callable[[], None] = lambda: None,
        warn: Callable[[Notice], None] = lambda _: None,
        stop: Callable[[], Stop | None] = lambda: None,
    ) -> None:
        """Prepare; nothing is touched before the context is entered.

        Args:
            progress: called after each file found, judged or known.
            warn: told what a person should know and no row says.
            stop: asked between files; once it has a reason, the images in hand are finished and recorded.
        """
        self._tally = Tally()
        self._folder, self._out, self._model, self._settings = folder, out, model, settings
        self._progress, self._warn, self._stop = progress, warn, stop
        # Another operating point gives other verdicts, which must not be mixed with those that stand.
        point = settings.operating_point
        self._judged_by = model.short_digest + ("" if point == DEFAULT_POINT else f"@{point}")
        self._again = settings.again
        self._stack = ExitStack()
        self._judges: ThreadPoolExecutor | None = None
        self._runtime = ""

    def __enter__(self) -> Sweep:
        """Take the output folder. Raises CxrEdgeError: it is held by another sweep, or cannot be written."""
        with ExitStack() as stack:
            stack.enter_context(lock.hold(self._out))
            self._ledger = stack.enter_context(Ledger(self._out, self._model.manifest.labels, self._judged_by))
            self.writer = FileWriter(self._out)
            stack.callback(self.writer.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def run(self, files: Iterable[FoundFile] | None = None) -> Tally:
        """Judge every file that the ledger does not know, and record it; without `files`, all of the folder.

        Raises:
            CxrEdgeError: the output cannot be written, or the model cannot be run.
        """
        start = time.perf_counter()
        self._home = _identity(self._folder)
        tally = self._tally = Tally()
        batch = _Batch(self._ledger, tally, self._progress, self._again, self._is_gone)
        in_flight: deque[_InHand] = deque()
        if files is None:
            files = discover(self._folder, leave_out=self._out, warn=self._unseen)
        quiet = settled(files, self._settings.settle, self._changing, lambda: bool(self._stop()))
        try:
            for found in quiet:
                tally.stopped = Stop.FOLDER_GONE if batch.gone else self._stop()
                if tally.stopped:
                    break
                tally.found += 1
                known = self._ledger.known(found)
                anew = known is not None and known.status in self._again
                if known and known.untouched and not anew:
                    tally.add_known(known)
                    self._progress()
                    continue
                in_flight.append(self._submit(found, known, anew=anew))
                # Two for each worker keep all of them busy while one large image holds up the order.
                if len(in_flight) >= 2 * self._settings.workers + 2:
                    batch.add(in_flight.popleft())
            while in_flight:
                batch.add(in_flight.popleft())
            batch.commit()
        except BaseException:
            for in_hand in in_flight:
                in_hand.future.cancel()
            raise
        # Asked once more: where nothing was in hand when the folder went, no file has told so.
        gone = batch.gone or self._is_gone()
        tally.stopped = tally.stopped or (Stop.FOLDER_GONE if gone else self._stop())
        tally.seconds += time.perf_counter() - start
        self._again = frozenset()  # once is enough, however often the folder is swept
        tally.runtime = self._runtime
        return tally

    def _submit(self, found: FoundFile, known: Known | None, *, anew: bool) -> _InHand:
        if not self._judges:
            self._judges = self._start()
        future = self._judges.submit(self._judge, found, known.sha256 if known else "", anew=anew)
        return _InHand(found, known, future)

    def _judge(self, found: FoundFile, known_sha256: str, *, anew: bool) -> tuple[Row | Left, list[Future[None]]]:
        """Judge one file and have its mask written: its row, or why it gets none, and what to wait for."""
        judged = self._worker.work(found, known_sha256, anew=anew)
        if isinstance(judged, Left):
            return judged, []
        return judged.row, [self._writers.submit(self.writer.write, *file) for file in judged.files.items()]

    def _start(self) -> ThreadPoolExecutor:
        """Make what judges. Not before there is something to judge: most files of most nights are known."""
        sys.setswitchinterval(SWITCH_SECONDS)
        spec, settings = self._model.manifest.input, self._settings
        nursery = self._stack.enter_context(Nursery(spec, settings.memory)) if settings.isolate else None
        room = runtime.find_runtime()
        tools: SimpleQueue[Tools] = SimpleQueue()
        for _ in range(settings.workers):
            engine = runtime.Engine(room, self._model)
            decoder: Decoder = nursery.decoder() if nursery else LocalDecoder(spec)
            self._stack.callback(decoder.close)
            tools.put(Tools(decoder, engine))
        self._runtime = f"{room.name} {room.version}, {engine.kernels}"
        self._worker = Worker(
            self._model,
            settings.operating_point,
            self._judged_by,
            tools,
            Budget(settings.memory),
            self._ledger,
            self.writer,
            self._warn,
            settings.dicom_seg,
        )
        self._writers = self._stack.enter_context(ThreadPoolExecutor(WRITERS, thread_name_prefix="write"))
        return self._stack.enter_context(ThreadPoolExecutor(settings.workers, thread_name_prefix="judge"))

    def _unseen(self, notice: Notice) -> None:
        self._tally.unseen += 1
        self._warn(notice)

    def _changing(self) -> None:
        self._tally.left[Left.CHANGING] += 1

    def _is_gone(self) -> bool:
        """Whether the folder is no longer the one that it was: a network share that went away leaves an empty place."""
        return _identity(self._folder) != self._home


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        stat = folder.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


@dataclass(frozen=True)
class _InHand:
    found: FoundFile
    known: Known | None
    future: Future[tuple[Row | Left, list[Future[None]]]]

    def outcome(self) -> Row | Left:
        """Its row, or why it gets none, once all of its files are on the disk. Raises CxrEdgeError."""
        outcome, files = self.future.result()
        for file in files:
            file.result()
        return outcome


class _Batch:
    """Rows on their way to the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        tally: Tally,
        progress: Callable[[], None],
        again: frozenset[Status],
        is_gone: Callable[[], bool],
    ) -> None:
        self._ledger, self._tally, self._progress, self._again = ledger, tally, progress, again
        self._is_gone = is_gone
        self._rows: list[tuple[FoundFile, Row | None]] = []
        self._since = time.monotonic()
        self.gone = False

    def add(self, in_hand: _InHand) -> None:
        outcome = in_hand.outcome()
        lost = outcome is Left.VANISHED or (isinstance(outcome, Row) and outcome.reason_code is Reason.UNREADABLE)
        self.gone = self.gone or (lost and self._is_gone())
        if lost and self.gone:
            self._tally.left[Left.VANISHED] += 1
        elif isinstance(outcome, Row):
            self._rows.append((in_hand.found, outcome))
            self._tally.add(outcome)
        elif outcome is Left.KNOWN and in_hand.known:
            self._rows.append((in_hand.found, None))
            self._tally.add_known(in_hand.known)
        else:
            self._tally.left[outcome] += 1
        self._progress()
        if len(self._rows) >= BATCH_ROWS or time.monotonic() - self._since > BATCH_SECONDS:
            self.commit()

    def commit(self) -> None:
        self._ledger.record(self._rows, self._again)
        self._rows = []
        self._since = time.monotonic()
