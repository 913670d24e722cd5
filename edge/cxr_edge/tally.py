"""What a sweep did, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from cxr_edge.decoder import Left
from cxr_edge.errors import ExitCode, Reason, Status
from cxr_edge.ledger import Known
from cxr_edge.outputs import Row


class Stop(Enum):
    """Why a sweep stopped before its end."""

    INTERRUPTED = "interrupted"
    OUT_OF_TIME = "its time was over"
    FOLDER_GONE = "the folder has gone away"


@dataclass
class Tally:
    """What a sweep did.

    `found` counts files, `images` those that are pictures by content, `known` those skipped; `left` those without a
    row tonight, `unseen` the directories and files that could not be looked at; `brightness` is the sum of the judged
    pictures' mean gray levels.
    """

    found: int = 0
    images: int = 0
    known: int = 0
    statuses: Counter[Status] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    problems: Counter[Reason] = field(default_factory=Counter)
    left: Counter[Left] = field(default_factory=Counter)
    unseen: int = 0
    brightness: float = 0.0
    seconds: float = 0.0
    stopped: Stop | None = None
    runtime: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """How the command should leave."""
        if self.stopped is Stop.INTERRUPTED:
            return ExitCode.INTERRUPTED
        if self.statuses[Status.FAILED] or self.unseen or self.stopped is Stop.FOLDER_GONE:
            return ExitCode.SOME_FAILED if self.images or self.unseen or self.stopped else ExitCode.NOTHING_FOUND
        return ExitCode.OK if self.images or self.left or self.stopped else ExitCode.NOTHING_FOUND

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
            self.brightness += row.brightness or 0.0
        elif row.reason_code:
            self.problems[row.reason_code] += 1

    def __iadd__(self, other: Tally) -> Tally:
        """Add what a later sweep of the same folder did; its way to stop is the last word."""
        for name in ("found", "images", "known", "unseen", "brightness", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.statuses += other.statuses
        self.verdicts += other.verdicts
        self.problems += other.problems
        self.left += other.left
        self.stopped, self.runtime = other.stopped, other.runtime or self.runtime
        return self

    def add_known(self, known: Known) -> None:
        """Count a file that was judged before."""
        self.known += 1
        self.images += known.reason_code != Reason.NOT_AN_IMAGE.value
