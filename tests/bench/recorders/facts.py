"""What a recorder saw, what it says it missed, and what is true: values and the sums over them. Pure."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

KINDS = ("forks", "execs", "exits")
BARE_DIFFER_MAX = 0.1
"""Bare storms around a recorded one that differ by more were disturbed by something else."""


class Truth(NamedTuple):
    """A storm's own list: pids that were forked, that became the program, that ended; and how long all of it took."""

    forks: frozenset[int]
    execs: frozenset[int]
    exits: frozenset[int]
    wall_s: float


class Seen(NamedTuple):
    """Pids in what a recorder wrote; None for a kind that it does not record at all."""

    forks: frozenset[int] | None
    execs: frozenset[int] | None
    exits: frozenset[int] | None


class Said(NamedTuple):
    """What a recorder says of its own loss.

    lost     how much, 0 if it says nothing was lost; None if it has no way to say
    unit     of what: "events", or something that is no event, such as audit's records
    words    in its own words, or what it says besides
    bounded  it says between which moments something is missing, although not how much
    """

    lost: int | None
    unit: str = "events"
    words: str = ""
    bounded: bool = False


def missing(truth: Truth, seen: Seen) -> dict[str, tuple[int, int]]:
    """For each kind that is recorded and that happened: how many of the truth's pids were not seen, and of how many."""
    found = {}
    for kind in KINDS:
        true, got = getattr(truth, kind), getattr(seen, kind)
        if true and got is not None:
            found[kind] = (len(true - got), len(true))
    return found


def add(many: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """The sums over several storms."""
    total: dict[str, tuple[int, int]] = {}
    for one in many:
        for kind, (lost, of) in one.items():
            before = total.get(kind, (0, 0))
            total[kind] = (before[0] + lost, before[1] + of)
    return total


def percent(lost: int, of: int) -> str:
    """Loss in per cent; nothing is shown as 0 that is not 0."""
    if not lost:
        return "0"
    share = 100 * lost / of
    return f"{share:.1f}" if share >= 0.1 else f"{share:.3f}"


class Rounds(NamedTuple):
    """Ratios of recorded storms to the bare ones beside them; ``dropped`` counts rounds whose two bare storms disagreed."""

    ratios: list[float]
    dropped: int

    @property
    def slowdown(self) -> float | None:
        """The median, None when no round is left."""
        return median(self.ratios) if self.ratios else None


def compare(bare: list[float], recorded: list[float]) -> Rounds:
    """``bare`` holds one storm more than ``recorded``: one before and one after each. Times in any unit."""
    ratios, dropped = [], 0
    for before, one, after in zip(bare, recorded, bare[1:], strict=False):
        if abs(before - after) > BARE_DIFFER_MAX * min(before, after):
            dropped += 1
        else:
            ratios.append(2 * one / (before + after))
    return Rounds(ratios, dropped)


def verdict(lost: Mapping[str, tuple[int, int]], said: Said) -> str:
    """What it said of its loss beside the truth, in words."""
    true = sum(one for one, _ in lost.values())
    if said.lost is None and not said.bounded:
        return "says nothing" if true else "nothing to say"
    told = "says between when and when" if said.bounded and not said.lost else f"says {said.lost:,} {said.unit}"
    if said.lost == true and (not true or said.unit == "events"):
        return "true" if true else "true (0)"
    if said.bounded:
        return f"{told}; {true:,} missing"
    return f"{told}; {true:,} events missing"


def is_true(lost: Mapping[str, tuple[int, int]], said: Said) -> bool:
    """Whether it said exactly what is missing, or between which moments."""
    true = sum(one for one, _ in lost.values())
    return (said.lost == true and (not true or said.unit == "events")) or (said.bounded and true > 0)
