"""One file -> its row and what is to be written beside it: decode, infer, judge, draw the mask.

What each thread of a sweep does, file after file. It writes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from queue import SimpleQueue
from typing import TYPE_CHECKING

from PIL import Image

from cxr_edge import gates, judge, masks, outputs
from cxr_edge.budget import Budget
from cxr_edge.decoder import Decoder, FileLeft, Left, Prepared
from cxr_edge.dicom_seg import SegmentationRefused
from cxr_edge.discover import FoundFile, Notice
from cxr_edge.errors import CxrEdgeError, ImageProblem, Reason, Status
from cxr_edge.ledger import Ledger
from cxr_edge.manifest import Manifest
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import FileWriter, Row
from cxr_edge.runtime import Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEGMENTATION = ".seg.dcm"
INVERTED = "shown as a negative; its gray levels were turned round before it was judged"


@dataclass(frozen=True)
class Tools:
    """What a thread needs for itself, one file at a time."""

    decoder: Decoder
    engine: Engine


@dataclass(frozen=True)
class Judged:
    """What became of one file: its row, and contents by the relative path that they are to be written to."""

    row: Row
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Worker:
    """Everything that turns one file into a row; threads share it.

    `judged_by` names model and operating point in the row: the model's short digest, and `@point` but for the default.
    """

    model: ModelFile
    operating_point: str
    judged_by: str
    tools: SimpleQueue[Tools]
    budget: Budget
    ledger: Ledger
    writer: FileWriter
    warn: Callable[[Notice], None]
    dicom_seg: bool = False

    def work(self, found: FoundFile, known_sha256: str = "", *, anew: bool = False) -> Judged | Left:
        """Judge one file. Raises CxrEdgeError, nothing else.

        Args:
            known_sha256: the content that this path has a row for.
            anew: judge it even if its content is known, of this path or of another.

        Returns:
            What became of it, or why it gets no row.
        """
        start = time.perf_counter()
        scanned_at = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        sha256 = ""

        def finished(status: Status, **fields: object) -> Row:
            ms = 1000 * (time.perf_counter() - start)
            return Row(found.name, status, sha256, self.judged_by, scanned_at, ms, **fields)  # type: ignore[arg-type]

        with self._lent() as tools:
            try:
                need = tools.decoder.look(found)
                if need > self.budget.total:
                    sha256 = tools.decoder.digest()
                    raise _over_budget(need, self.budget.total)
                with self.budget.hold(need):
                    sha256 = tools.decoder.read()
                    if not anew and sha256 == known_sha256:
                        return Left.KNOWN
                    if not anew and (twin := self._twin(sha256, found.name)):
                        ms = 1000 * (time.perf_counter() - start)
                        row = replace(twin.row, path=found.name, scanned_at=scanned_at, ms=ms)
                        return replace(twin, row=row)
                    prepared = tools.decoder.prepare()
                    fields, files = self._judge(prepared, tools, found.name)
                    return Judged(finished(Status.OK, **fields), files)
            except FileLeft as left:
                return left.left
            except ImageProblem as problem:
                why = {"reason_code": problem.reason, "reason": problem.sentence}
                return Judged(finished(problem.status, **why, width=problem.width, height=problem.height))
            except CxrEdgeError:
                raise
            except Exception as error:  # one bad file costs one row, even where the bug is ours
                sentence = f"cxr-edge failed on this file ({type(error).__name__}: {error}); please report it"
                return Judged(finished(Status.FAILED, reason_code=Reason.INTERNAL_ERROR, reason=sentence))

    @contextmanager
    def _lent(self) -> Iterator[Tools]:
        tools = self.tools.get()
        try:
            yield tools
        finally:
            self.tools.put(tools)

    def _twin(self, sha256: str, name: str) -> Judged | None:
        """The verdict on the same content under another name, with a mask of its own; None where there is none."""
        # A segmentation refers to its own source, of which the content is not all.
        if self.dicom_seg or not (found := self.ledger.twin(sha256)):
            return None
        twin, mask_sha256 = found
        if not twin.mask:
            return Judged(twin)
        # The mask of a path shows what the path holds now, which need not be what it held when this row was written.
        if (mask := self.writer.read(twin.mask, mask_sha256)) is None:
            return None
        mask_name = outputs.mask_name(name)
        return Judged(replace(twin, mask=mask_name, mask_sha256=mask_sha256), {mask_name: mask})

    def _judge(self, prepared: Prepared, tools: Tools, name: str) -> tuple[dict[str, object], dict[str, bytes]]:
        """The fields of its row, and what is to be written."""
        files: dict[str, bytes] = {}
        manifest = self.model.manifest
        result, inverted = infer(tools.engine, prepared.pixels, manifest)
        gates.check_outputs(result, manifest, prepared)
        judgement = judge.judge(result["probabilities"], manifest, self.operating_point)
        fields: dict[str, object] = {
            "verdict": judgement.verdict,
            "confidence": judgement.confidence,
            "probabilities": judgement.probabilities,
            "reason_code": judgement.reason or (Reason.INVERTED if inverted else None),
            "reason": "; ".join(part for part in (judgement.sentence, INVERTED if inverted else "") if part),
            "width": prepared.width,
            "height": prepared.height,
            "brightness": prepared.brightness,
        }
        if "activation" in result:
            fields["affected_pct"] = judge.affected_pct(result["activation"], result["mask"], manifest)
        if "mask" in result:
            mask = masks.at_image_size(result["mask"], prepared.width, prepared.height, manifest.mask_threshold)
            mask_name = outputs.mask_name(name)
            png = files[mask_name] = masks.png(mask)
            fields |= {"mask": mask_name, "lung_area_pct": masks.area_pct(mask)}
            fields["mask_sha256"] = hashlib.sha256(png).hexdigest()
            if self.dicom_seg and (content := self._segmentation(tools.decoder, Image.fromarray(mask), name)):
                files[outputs.mask_name(name, SEGMENTATION)] = content
        return fields, files

    def _segmentation(self, decoder: Decoder, mask: Image.Image, name: str) -> bytes:
        try:
            return decoder.segment(mask, self.model.manifest.name, self.model.short_digest)
        except SegmentationRefused as refusal:
            self.warn(Notice(name, f"no segmentation is written: {refusal}"))
            return b""


def infer(engine: Engine, pixels: NDArray[np.uint8], manifest: Manifest) -> tuple[gates.Outputs, bool]:
    """The model's outputs for a picture, or for its negative where that is the radiograph, and whether it is."""
    result = engine.infer(pixels)
    if gates.may_be_inverted(result, manifest):
        of_negative = engine.infer(255 - pixels)
        if gates.is_inverted(result, of_negative, manifest):
            return of_negative, True
    return result, False


def _over_budget(need: int, total: int) -> ImageProblem:
    sentence = f"it takes {need / 2**20:.0f} MiB to judge, of {total / 2**20:.0f} MiB allowed (--memory)"
    return ImageProblem(Status.FAILED, Reason.TOO_LARGE, sentence)
