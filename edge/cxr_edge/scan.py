"""`cxr-edge scan`: a sweep as cron runs it, or one that goes on; with its signals, its record and its summary."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cxr_edge import record, report
from cxr_edge.discover import FoundFile, discover, find
from cxr_edge.log import Log
from cxr_edge.model_file import ModelFile
from cxr_edge.sweep import Settings, Sweep
from cxr_edge.tally import Stop, Tally
from cxr_edge.watch import Watch

RECORD_SECONDS = 24 * 3600.0
"""Between two records of a sweep that goes on."""


class Stopper:
    """Why to stop, asked between files: a signal that came, or the time that is over."""

    def __init__(self, seconds: float | None) -> None:
        """Listen for Ctrl-C and SIGTERM; `seconds` from now on the time is over."""
        self._deadline = time.monotonic() + seconds if seconds is not None else None
        self._interrupted = False
        # A flag, not an exception: the images in hand are finished, and nothing interrupts a write.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_: object) -> None:
        self._interrupted = True

    def __call__(self) -> Stop | None:
        """The reason, or None to go on."""
        if self._interrupted:
            return Stop.INTERRUPTED
        return Stop.OUT_OF_TIME if self._deadline is not None and time.monotonic() >= self._deadline else None


@dataclass(frozen=True)
class Scan:
    """A folder, where its verdicts go, the model that gives them, and how."""

    folder: Path
    out: Path
    model: ModelFile
    settings: Settings
    log: Log

    def once(self, stop: Callable[[], Stop | None]) -> Tally:
        """Judge what is new, and record the run. Raises CxrEdgeError."""
        started = _now()
        with report.progress_bar(self._count) as progress, self._sweep(stop, progress) as sweep:
            tally = sweep.run()
            self._record(sweep, tally, started)
        return tally

    def watch(self, stop: Callable[[], Stop | None]) -> Tally:
        """Judge what is new, then what arrives, until there is a reason to stop. Raises CxrEdgeError."""
        total, daily, started = Tally(), Tally(), _now()
        since = time.monotonic()
        with Watch(self.folder, self.out) as watch, self._sweep(stop, lambda: None) as sweep:
            if watch.polls:
                self.log.say(f"{self.log.name(str(self.folder))} tells of no changes: it is looked at again and again")
            files: Iterator[FoundFile] | None = None
            while True:
                tally = sweep.run(files)
                if tally.stopped is Stop.FOLDER_GONE:
                    self.log.say(f"{self.log.name(str(self.folder))} has gone away; it is looked for again")
                if tally.judged:
                    report.print_line(tally, self.out, self.log)
                total += tally
                daily += tally
                if stop() or time.monotonic() - since > RECORD_SECONDS:
                    self._record(sweep, daily, started)
                    daily, started, since = Tally(), _now(), time.monotonic()
                if stop():
                    total.stopped = stop()
                    return total
                files = self._arriving(watch, stop)

    def _arriving(self, watch: Watch, stop: Callable[[], object]) -> Iterator[FoundFile]:
        for path in watch.changes(stop):
            if path.is_dir() and not path.is_symlink():
                yield from discover(self.folder, leave_out=self.out, warn=self.log.warn, start=path)
            elif found := find(self.folder, path):
                yield found

    def _sweep(self, stop: Callable[[], Stop | None], progress: Callable[[], None]) -> Sweep:
        return Sweep(self.folder, self.out, self.model, self.settings, progress=progress, warn=self.log.warn, stop=stop)

    def _record(self, sweep: Sweep, tally: Tally, started: datetime) -> None:
        written = record.content(tally, self.model, self.settings, started, record.read_last(self.out))
        record.write(sweep.writer, written)
        for sentence in written["drift"]:
            self.log.say(f"the verdicts drift: {sentence}")

    def _count(self) -> int:
        return sum(1 for _ in discover(self.folder, leave_out=self.out, warn=lambda _: None))


def _now() -> datetime:
    return datetime.now(timezone.utc)
