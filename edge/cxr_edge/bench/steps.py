"""Each step that an image goes through, timed in this process, by the functions that a sweep calls."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cxr_edge import gates, imaging, judge, masks, preprocess
from cxr_edge.discover import FoundFile
from cxr_edge.errors import ImageProblem, Status
from cxr_edge.ledger import Ledger
from cxr_edge.manifest import DEFAULT_POINT
from cxr_edge.model_file import ModelFile
from cxr_edge.outputs import FileWriter, Row
from cxr_edge.runtime import Engine
from cxr_edge.sweep import BATCH_ROWS
from cxr_edge.worker import infer

LEAST = 8
"""Fewer pictures would say little of a folder, however slow the box is."""


@dataclass
class Samples:
    """What one round took: milliseconds by step, a sample for each image that reached it; `images` counts all.

    `computing_ms` is the processor time of one image, mean.
    """

    images: int = 0
    computing_ms: float = 0.0
    ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def image_ms(self) -> float:
        """All steps of one image together, mean."""
        return sum(sum(times) for times in self.ms.values()) / self.images


@dataclass(frozen=True)
class Timed:
    """One image: milliseconds by step, its row, and its size in pixels (0 where it could not be read)."""

    ms: dict[str, float]
    row: Row
    found: FoundFile


class Line:
    """One worker's tools: the model, an engine, and an output folder of its own. Use as a context manager."""

    def __init__(self, model: ModelFile, engine: Engine, out: Path) -> None:
        out.mkdir()
        self._model, self._engine = model, engine
        self._masks = FileWriter(out)
        self._ledger = Ledger(out, model.manifest.labels, model.short_digest)
        self._count = 0

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.__exit__(None, None, None)
        self._masks.close()

    def one(self, path: Path) -> Timed:
        """Bring one file through all steps but the record."""
        ms: dict[str, float] = defaultdict(float)

        @contextmanager
        def step(name: str) -> Iterator[None]:
            start = time.perf_counter()
            try:
                yield
            finally:
                ms[name] += 1000 * (time.perf_counter() - start)

        # Each pass is judged as a file of its own, as a sweep would.
        self._count += 1
        name = f"{self._count}{path.suffix}"
        manifest = self._model.manifest
        fields: dict[str, object] = {}
        status, sha256 = Status.OK, ""
        try:
            with step("read"):
                data = imaging.read_bytes(path)
                sha256 = hashlib.sha256(data).hexdigest()
            with step("decode"):
                picture = imaging.decode(data, (manifest.input.width, manifest.input.height))
            fields |= {"width": picture.width, "height": picture.height}
            with step("judge"):
                gates.check_picture(picture)
            with step("resize"):
                pixels = preprocess.to_input(picture.gray, manifest.input)
            with step("infer"):
                result, _ = infer(self._engine, pixels, manifest)
            with step("judge"):
                gates.check_outputs(result, manifest, picture)
                judgement = judge.judge(result["probabilities"], manifest, DEFAULT_POINT)
                if "activation" in result:
                    fields["affected_pct"] = judge.affected_pct(result["activation"], result["mask"], manifest)
            fields |= {
                "verdict": judgement.verdict,
                "confidence": judgement.confidence,
                "probabilities": judgement.probabilities,
                "reason_code": judgement.reason,
                "reason": judgement.sentence,
            }
            if "mask" in result:
                with step("mask"):
                    mask = masks.at_image_size(result["mask"], picture.width, picture.height, manifest.mask_threshold)
                    self._masks.write(f"masks/{name}.png", masks.png(mask))
                    fields |= {"mask": f"masks/{name}.png", "lung_area_pct": masks.area_pct(mask)}
        except ImageProblem as problem:
            status = problem.status
            fields |= {"reason_code": problem.reason, "reason": problem.sentence}
            fields |= {"width": problem.width, "height": problem.height}
        row = Row(name, status, sha256, self._model.short_digest, "2000-01-01T00:00:00Z", 0.0, **fields)  # type: ignore[arg-type]
        stat = path.stat()
        return Timed(dict(ms), row, FoundFile(path, name, stat.st_size, stat.st_mtime_ns))

    def record(self, images: list[Timed]) -> float:
        """Commit a batch to ledger and CSV; milliseconds for each image."""
        start = time.perf_counter()
        self._ledger.record([(image.found, image.row) for image in images])
        return 1000 * (time.perf_counter() - start) / len(images)


def warm_up(line: Line, pictures: list[Path], seconds: float) -> list[Timed]:
    """Bring as many pictures through the steps as the time allows, at least `LEAST`, or all."""
    timed: list[Timed] = []
    end = time.monotonic() + seconds
    for path in pictures:
        timed.append(line.one(path))
        if len(timed) >= LEAST and time.monotonic() > end:
            break
    return timed


def one_round(line: Line, pictures: list[Path], seconds: float) -> Samples:
    """Time whole passes over the pictures, at least one, until the time is up."""
    samples, batch = Samples(), list[Timed]()
    end, computed = time.monotonic() + seconds, time.thread_time()

    def commit() -> None:
        samples.ms["record"] += [line.record(batch)] * len(batch)
        batch.clear()

    while not samples.images or time.monotonic() < end:
        for path in pictures:
            image = line.one(path)
            samples.images += 1
            for name, ms in image.ms.items():
                samples.ms[name].append(ms)
            batch.append(image)
            if len(batch) == BATCH_ROWS:
                commit()
    if batch:
        commit()
    samples.computing_ms = 1000 * (time.thread_time() - computed) / samples.images
    return samples
