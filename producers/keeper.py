"""Whoever reads a recorder looks after it: marks both clocks in the ring, proves that the programs run, puts pins back, takes snapshots.

No line here waits. ``watch`` is called about once a second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from producers.edges import KeptEdge
from producers.snapshot import RingFull
from schemas.errors import Unavailable
from schemas.events import Mark

SNAPSHOT_PERIOD_NS = 3600 * 1_000_000_000
LOSS_PAUSE_NS = 20 * 1_000_000_000
"""Losses that go on and on bring snapshots no more often than this; the latest of them is never forgotten."""
CLOCK_PERIOD_NS = 5 * 1_000_000_000
CLOCK_STEP_NS = 1_000_000
"""A wall clock that moved by more than this against the boottime gets a mark at once."""
PROBE_PERIOD_NS = 5 * 1_000_000_000
EXEC_PROBE_PERIOD_NS = 60 * 1_000_000_000
AFTER_LOSS = 2
"""Snapshots after a loss, at once and at the next look: one alone does not prove that a process has gone (streams.join.snapshot)."""


@dataclass(slots=True)
class Keeper:
    """Looks after one recorder.

    now            (boottime_ns, realtime_ns) read together
    recording      the latest probe came back
    last_good_ns   boottime of the latest one that did
    pins_put_back  so many pins that somebody removed
    snapshots      taken so far
    trouble        what could not be done at the last look, empty if all could
    """

    recorder: KeptEdge
    now: Callable[[], tuple[int, int]]
    recording: bool = True
    last_good_ns: int = 0
    pins_put_back: int = 0
    snapshots: int = 0
    trouble: str = ""
    _news: list[str] = field(default_factory=list)
    _due: int = 1
    _fresh: bool = False
    _snapshot_ns: int = 0
    _clock_ns: int = 0
    _offset_ns: int = 0
    _probe_ns: int = 0
    _exec_probe_ns: int = 0
    _lost: int = 0
    _loss_ns: int = -LOSS_PAUSE_NS
    _gap_marked: bool = False

    def watch(self, lost: int, room: bool = True) -> bool:
        """Do what is due; returns whether there are new pending snapshots, our own or those of a loader that put newer programs in.

        ``lost`` counts all that was lost so far, by whatever cause. Without ``room`` for it no snapshot is taken, and it stays due. What
        cannot be done now keeps nobody from the rest: it is told, and done at the next look.
        """
        boottime_ns, realtime_ns = self.now()
        if lost != self._lost and boottime_ns >= self._loss_ns + LOSS_PAUSE_NS:
            self._lost, self._loss_ns, self._due = lost, boottime_ns, AFTER_LOSS
        self._fresh = False
        troubles = []
        for part in (
            partial(self._probe, boottime_ns),
            partial(self._mark_clocks, boottime_ns, realtime_ns - boottime_ns),
            self._pin_again,
            self._follow,
            partial(self._snapshot, boottime_ns, room),
        ):
            try:
                part()
            except (Unavailable, OSError) as failure:
                troubles.append(str(failure))
        trouble = "; ".join(troubles)
        if trouble and trouble != self.trouble:
            self._news.append(f"{trouble}; recording goes on, trying again")
        self.trouble = trouble
        return self._fresh

    def news(self) -> list[str]:
        """What a person should be told since the last call, a line each."""
        news, self._news = self._news, []
        return news

    def _mark_clocks(self, boottime_ns: int, offset_ns: int) -> None:
        if boottime_ns >= self._clock_ns + CLOCK_PERIOD_NS or abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
            self._clock_ns, self._offset_ns = boottime_ns, offset_ns
            self.recorder.clock()

    def _pin_again(self) -> None:
        for name in self.recorder.pin_again():
            self.pins_put_back += 1
            self._news.append(f"somebody removed the pin {name} of the recorder; it was put back, nothing is lost")

    def _follow(self) -> None:
        """The loader of newer programs took a snapshot."""
        if self.recorder.refresh():
            self._fresh = True

    def _snapshot(self, boottime_ns: int, room: bool) -> None:
        """Take one if it is due; while the ring is too full for its marks it stays due."""
        if not room or not (self._due or boottime_ns >= self._snapshot_ns + SNAPSHOT_PERIOD_NS):
            return
        try:
            self.recorder.snapshot()
        except RingFull:
            return
        self._due = max(0, self._due - 1)
        self._snapshot_ns = boottime_ns
        self.snapshots += 1
        self._fresh = True

    def _probe(self, boottime_ns: int) -> None:
        if boottime_ns < self._probe_ns + PROBE_PERIOD_NS:
            return
        self._probe_ns = boottime_ns
        alive = self.recorder.probe()
        if alive and boottime_ns >= self._exec_probe_ns + EXEC_PROBE_PERIOD_NS:
            self._exec_probe_ns = boottime_ns
            alive = self.recorder.exec_probe()
        if alive:
            self.last_good_ns = boottime_ns
            if not self.recording:
                self._due = AFTER_LOSS
            self._gap_marked = False
        elif not self._gap_marked:
            self._gap_marked = self.recorder.mark(Mark.LINKS_LOST, self.last_good_ns)
        if self.recording and not alive:
            self._news.append("the recorder's programs do not answer: a gap begins, it will be in table losses")
        self.recording = alive
