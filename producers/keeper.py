"""Whoever reads a recorder looks after it: marks both clocks in the ring, proves that the programs run, puts pins back, takes snapshots.

No line here waits. ``watch`` is called about once a second.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from schemas.batch import Batch
from schemas.errors import Unavailable
from schemas.events import Mark

SNAPSHOT_PERIOD_NS = 3600 * 1_000_000_000
SNAPSHOT_PAUSE_NS = 10 * 1_000_000_000
"""After losses that go on and on, snapshots come no more often than this."""
CLOCK_PERIOD_NS = 5 * 1_000_000_000
CLOCK_STEP_NS = 1_000_000
"""A wall clock that moved by more than this against the boottime gets a mark at once."""
PROBE_PERIOD_NS = 5 * 1_000_000_000
EXEC_PROBE_PERIOD_NS = 60 * 1_000_000_000
AFTER_LOSS = 2
"""Snapshots after a loss: one alone does not prove that a process has gone (streams.join.snapshot)."""


class KeptEdge(Protocol):
    """What of producers.recorder.Recorder is used here."""

    def mark(self, kind: Mark, *values: int) -> bool:
        """Put a mark into the ring; False if it has no room."""

    def clock(self) -> bool:
        """Put a clock mark with the counters into the ring."""

    def probe(self) -> bool:
        """Whether a rename of this process comes back as a record."""

    def exec_probe(self) -> bool:
        """Whether a fork, exec and exit come back as records."""

    def pin_again(self) -> list[str]:
        """Put back pins that somebody removed, and name them."""

    def refresh(self) -> bool:
        """Follow a loader that put newer programs in."""

    def snapshot(self) -> Batch:
        """Take a snapshot, keep it on disk until it is discarded, and mark it in the ring. Raises Unavailable when that is full."""


@dataclass(slots=True)
class Keeper:
    """Looks after one recorder.

    now           (boottime_ns, realtime_ns) read together
    recording     the latest probe came back
    last_good_ns  boottime of the latest one that did
    pinned_again  pins that somebody removed and that were put back
    snapshots     taken so far
    """

    recorder: KeptEdge
    now: Callable[[], tuple[int, int]]
    recording: bool = True
    last_good_ns: int = 0
    pinned_again: list[str] = field(default_factory=list)
    snapshots: int = 0
    _due: int = 1
    _snapshot_ns: int = 0
    _clock_ns: int = 0
    _offset_ns: int = 0
    _probe_ns: int = 0
    _exec_probe_ns: int = 0
    _lost: int | None = None
    _gap_marked: bool = False

    def watch(self, lost: int) -> Batch | None:
        """Do what is due. ``lost`` counts all that was lost so far, by whatever cause; gives the snapshot if one was taken."""
        boottime_ns, realtime_ns = self.now()
        offset_ns = realtime_ns - boottime_ns
        if boottime_ns >= self._probe_ns + PROBE_PERIOD_NS:
            self._probe_ns = boottime_ns
            self._probe(boottime_ns)
        if boottime_ns >= self._clock_ns + CLOCK_PERIOD_NS or abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
            self._clock_ns, self._offset_ns = boottime_ns, offset_ns
            self.recorder.clock()
        if self._lost is not None and lost != self._lost:
            self._due = AFTER_LOSS
        self._lost = lost
        self.pinned_again += self.recorder.pin_again()
        self.recorder.refresh()
        pause_ns = SNAPSHOT_PAUSE_NS if self._due else SNAPSHOT_PERIOD_NS
        if not self.snapshots or boottime_ns >= self._snapshot_ns + pause_ns:
            return self._snapshot(boottime_ns)
        return None

    def _snapshot(self, boottime_ns: int) -> Batch | None:
        """Take one now; while the ring is too full for its marks it stays due."""
        try:
            batch = self.recorder.snapshot()
        except Unavailable:
            self._due = max(1, self._due)
            return None
        self._due = max(0, self._due - 1)
        self._snapshot_ns = boottime_ns
        self.snapshots += 1
        return batch

    def _probe(self, boottime_ns: int) -> None:
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
        self.recording = alive
