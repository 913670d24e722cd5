"""What the benchmarks say of their measurements: medians, spread, and which verdicts are the same. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cxr_edge.bench.figures import Spread, spread

UNCERTAIN = "uncertain"
LEAST_AGREEMENT = 0.99
"""Share of the pictures that both are certain of which must have the same verdict. An int8 model against its own float
weights reaches 0.999 on 1,257 pictures (docs/model.md), another engine's int8 arithmetic more."""


@dataclass(frozen=True)
class Round:
    """One round of one contender: `rate` pictures a second after the first, `cold` seconds that a scan of a single
    picture takes from the start of the process to its end, `peak` memory in MiB."""

    rate: float
    cold: float
    peak: float


@dataclass(frozen=True)
class Agreement:
    """How many verdicts of a contender are cxr-edge's.

    Attributes:
        judged: pictures that cxr-edge gave a verdict, 'uncertain' included.
        same: of these, those with the same verdict.
        certain: of these, those that neither calls 'uncertain'.
        certain_same: of the certain, those with the same verdict.
    """

    judged: int
    same: int
    certain: int
    certain_same: int

    @property
    def good(self) -> bool:
        """Whether it may be said that both do the same work."""
        return self.certain > 0 and self.certain_same >= LEAST_AGREEMENT * self.certain

    def told(self) -> str:
        """For a table."""
        return f"{self.certain_same} of {self.certain}; {self.same} of {self.judged}"


def one_round(pictures: int, one: float, all_of_them: float, peak: float) -> Round:
    """A round from the seconds that a scan of one picture and a scan of `pictures` took, and the latter's peak, MiB.

    What both spend on starting and ending falls out of the rate. Raises ValueError where the one took longer than all.
    """
    if pictures < 2 or all_of_them <= one:
        raise ValueError(f"{pictures} pictures in {all_of_them:.2f} s are too few beside one in {one:.2f} s")
    return Round((pictures - 1) / (all_of_them - one), one, peak)


def summary(rounds: Sequence[Round]) -> dict[str, Spread]:
    """Spread of each figure over the rounds."""
    return {figure: spread([asdict(each)[figure] for each in rounds]) for figure in ("rate", "cold", "peak")}


def agreement(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Agreement:
    """Compare verdicts by path. What cxr-edge turned away ('' for a verdict) is left out: the others turn nothing away.

    Raises:
        ValueError: they left pictures out.
    """
    judged = {path for path, verdict in ours.items() if verdict}
    if missing := judged - theirs.keys():
        raise ValueError(f"{len(missing)} pictures have no verdict, {min(missing)} for one")
    certain = {path for path in judged if UNCERTAIN not in (ours[path], theirs[path])}
    return Agreement(
        len(judged),
        sum(ours[path] == theirs[path] for path in judged),
        len(certain),
        sum(ours[path] == theirs[path] for path in certain),
    )


def against(ours: Mapping[str, Spread], theirs: Mapping[str, Spread]) -> str:
    """Ratios of the medians of `rate`, `cold`, `peak` and `size`, for people."""

    def ratio(figure: str) -> float:
        return ours[figure].median / theirs[figure].median

    return (
        f"{ratio('rate'):.2f} times the images/s, {ratio('cold'):.2f} of the cold start,"
        f" {ratio('peak'):.2f} of the memory, {ratio('size'):.2f} of the installed size"
    )


def told(values: Spread, places: int) -> str:
    """`median (least to most)`."""
    return f"{values.median:,.{places}f} ({values.least:,.{places}f} to {values.most:,.{places}f})"
