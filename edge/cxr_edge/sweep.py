"""The sweep: discover -> admit -> decode -> infer -> judge -> record.

The calling thread discovers, admits and records; worker threads do the rest, each image in one of them from bytes to
mask, with an interpreter of its own. Decoding, inference and PNG compression all release the GIL. At most a few images
are in flight, so memory does not grow with the folder; rows are recorded in the order of discovery.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from cxr_edge import gates, imaging, judge, lock, masks, outputs, preprocess
from cxr_edge.discover import FoundFile, discover
from cxr_edge.errors import CxrEdgeError, ExitCode, ImageProblem, Reason, Status
from cxr_edge.ledger import Known, Ledger
from cxr_edge.manifest import DEFAULT_POINT, Manifest
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import MaskWriter, Row
from cxr_edge.runtime import Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INVERTED = "shown as a negative; its gray levels were turned round before it was judged"
BATCH_ROWS = 64
BATCH_SECONDS = 2.0
"""A batch is recorded when it has this many rows or this age; a power cut costs no more work than that."""


@dataclass
class Tally:
    """What a sweep did. `found` counts files, `images` those that are pictures by content, `known` those skipped."""

    found: int = 0
    images: int = 0
    known: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    problems: Counter[Reason] = field(default_factory=Counter)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """How the command should leave."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if not self.images:
            return ExitCode.NOTHING_FOUND
        return ExitCode.SOME_FAILED if self.statuses[Status.FAILED] else ExitCode.OK

    @property
    def judged(self) -> int:
        """Files that got a row."""
        return sum(self.statuses.values())

    def add(self, row: Row) -> None:
        """Count a new row."""
        self.statuses[row.status] += 1
        self.images += row.reason_code is not Reason.NOT_AN_IMAGE
        if row.status is Status.OK:
            self.verdicts[row.verdict] += 1
        elif row.reason_code:
            self.problems[row.reason_code] += 1


@dataclass(frozen=True)
class Judge:
    """Everything that a worker needs to turn one file into a row: the model, an engine for each worker, the output.

    `judged_by` names model and operating point in the row: the model's short digest, and `@point` but for the default.
    """

    model: ModelFile
    operating_point: str
    judged_by: str
    engines: SimpleQueue[Engine]
    mask_writer: MaskWriter

    def row(self, found: FoundFile, known_sha256: str) -> Row | None:
        """Judge one file; None if its content is what `known_sha256` says. Raises OutputUnwritable, nothing else."""
        start = time.perf_counter()
        scanned_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        sha256 = ""

        def finished(status: Status, **fields: object) -> Row:
            ms = 1000 * (time.perf_counter() - start)
            return Row(found.name, status, sha256, self.judged_by, scanned_at, ms, **fields)  # type: ignore[arg-type]

        try:
            data = imaging.read_bytes(found.path)
            sha256 = hashlib.sha256(data).hexdigest()
            if sha256 == known_sha256:
                return None
            return finished(Status.OK, **self._judge(data, outputs.mask_name(found.name)))
        except ImageProblem as problem:
            if problem.reason is Reason.EMPTY_FILE:
                sha256 = hashlib.sha256(b"").hexdigest()
            return finished(
                problem.status,
                reason_code=problem.reason,
                reason=problem.sentence,
                width=problem.width,
                height=problem.height,
            )
        except CxrEdgeError:
            raise
        except Exception as error:  # one bad file costs one row, even where the bug is ours
            sentence = f"cxr-edge failed on this file ({type(error).__name__}: {error}); please report it"
            return finished(Status.FAILED, reason_code=Reason.INTERNAL_ERROR, reason=sentence)

    def _judge(self, data: bytes, mask_name: str) -> dict[str, object]:
        manifest = self.model.manifest
        picture = imaging.decode(data, (manifest.input.width, manifest.input.height))
        gates.check_picture(picture)
        pixels = preprocess.to_input(picture.gray, manifest.input)
        engine = self.engines.get()
        try:
            result, inverted = infer(engine, pixels, manifest)
        finally:
            self.engines.put(engine)
        gates.check_outputs(result, manifest, picture)
        judgement = judge.judge(result["probabilities"], manifest, self.operating_point)
        fields: dict[str, object] = {
            "verdict": judgement.verdict,
            "confidence": judgement.confidence,
            "probabilities": judgement.probabilities,
            "reason_code": judgement.reason or (Reason.INVERTED if inverted else None),
            "reason": "; ".join(part for part in (judgement.sentence, INVERTED if inverted else "") if part),
            "width": picture.width,
            "height": picture.height,
        }
        if "activation" in result:
            fields["affected_pct"] = judge.affected_pct(result["activation"], result["mask"], manifest)
        if "mask" in result:
            mask = masks.at_image_size(result["mask"], picture.width, picture.height, manifest.mask_threshold)
            self.mask_writer.write(mask_name, mask)
            fields |= {"mask": mask_name, "lung_area_pct": masks.area_pct(mask)}
        return fields


def infer(engine: Engine, pixels: NDArray[np.uint8], manifest: Manifest) -> tuple[gates.Outputs, bool]:
    """The model's outputs for a picture, or for its negative where that is the radiograph, and whether it is."""
    result = engine.infer(pixels)
    if gates.may_be_inverted(result, manifest):
        of_negative = engine.infer(255 - pixels)
        if gates.is_inverted(result, of_negative, manifest):
            return of_negative, True
    return result, False


def sweep(
    folder: Path,
    out: Path,
    model: ModelFile,
    engines: list[Engine],
    operating_point: str,
    *,
    progress: Callable[[], None],
    warn: Callable[[str], None],
    stop: Callable[[], bool],
) -> Tally:
    """Judge every file of `folder` that the ledger of `out` does not know, and record it.

    Args:
        engines: of `model`, one for each thread that judges.
        operating_point: one of `manifest.OPERATING_POINTS`.
        progress: called after each file found, judged or known.
        warn: told what a person should know and no row says.
        stop: asked between files; once true, the images in hand are finished and recorded.

    Raises:
        CxrEdgeError: the output is held or cannot be written.
    """
    start = time.perf_counter()
    tally, workers = Tally(), len(engines)
    idle: SimpleQueue[Engine] = SimpleQueue()
    for engine in engines:
        idle.put(engine)
    # Another operating point gives other verdicts, which must not be mixed with those that stand.
    judged_by = model.short_digest + ("" if operating_point == DEFAULT_POINT else f"@{operating_point}")
    with lock.hold(out), Ledger(out, model.manifest.labels, judged_by) as ledger:
        mask_writer = MaskWriter(out)
        worker = Judge(model, operating_point, judged_by, idle, mask_writer)
        batch = _Batch(ledger, tally, progress)
        with ThreadPoolExecutor(workers, thread_name_prefix="judge") as pool:
            in_flight: deque[_InHand] = deque()
            try:
                for found in discover(folder, leave_out=out, warn=warn):
                    if stop():
                        tally.interrupted = True
                        break
                    tally.found += 1
                    known = ledger.known(found)
                    if known and known.untouched:
                        _count_known(tally, known)
                        progress()
                        continue
                    future = pool.submit(worker.row, found, known.sha256 if known else "")
                    in_flight.append(_InHand(found, known, future))
                    # Two for each worker keep all of them busy while one large image holds up the order.
                    if len(in_flight) >= 2 * workers + 2:
                        batch.add(in_flight.popleft())
                while in_flight:
                    batch.add(in_flight.popleft())
                batch.commit()
            except BaseException:
                for in_hand in in_flight:
                    in_hand.future.cancel()
                raise
        mask_writer.close()
    tally.seconds = time.perf_counter() - start
    return tally


@dataclass(frozen=True)
class _InHand:
    found: FoundFile
    known: Known | None
    future: Future[Row | None]


def _count_known(tally: Tally, known: Known) -> None:
    tally.known += 1
    tally.images += known.reason_code != Reason.NOT_AN_IMAGE.value


class _Batch:
    """Rows on their way to the ledger."""

    def __init__(self, ledger: Ledger, tally: Tally, progress: Callable[[], None]) -> None:
        self._ledger, self._tally, self._progress = ledger, tally, progress
        self._rows: list[tuple[FoundFile, Row | None]] = []
        self._since = time.monotonic()

    def add(self, in_hand: _InHand) -> None:
        row = in_hand.future.result()
        self._rows.append((in_hand.found, row))
        if row:
            self._tally.add(row)
        elif in_hand.known:
            _count_known(self._tally, in_hand.known)
        self._progress()
        if len(self._rows) >= BATCH_ROWS or time.monotonic() - self._since > BATCH_SECONDS:
            self.commit()

    def commit(self) -> None:
        self._ledger.record(self._rows)
        self._rows = []
        self._since = time.monotonic()
