"""One host, from the kernel's ring to the store: read, join, write rows, save the state, and only then move the ring's position.

Kill it at any line: what was not saved lies in the ring still, is read again, gives the same rows with the same keys and versions,
and the store takes them once. No line here waits; the caller decides when to step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from schemas.batch import Batch, BatchKind, decode_batch
from schemas.errors import DecodeError, Unavailable
from schemas.events import Mark
from schemas.rows import Row
from streams.hosts import REPORT_NS, host_row
from streams.join import HostState, apply, rows_lost
from streams.join.log import SNAPSHOTS_MAX
from streams.memory import MemoryEdge
from streams.statefile import read_state, write_state

STEP_BYTES_MAX = 4 * 1024 * 1024
"""Ring bytes that one step takes: some 6,000 processes, so a step's rows fit one insert."""
SNAPSHOT_PERIOD_NS = 3600 * 1_000_000_000
CLOCK_PERIOD_NS = 5 * 1_000_000_000
CLOCK_STEP_NS = 1_000_000
"""A wall clock that moved by more than this against the boottime gets a mark at once."""
PROBE_PERIOD_NS = 5 * 1_000_000_000
EXEC_PROBE_PERIOD_NS = 60 * 1_000_000_000


class RingEdge(Protocol):
    """What of producers.ring.Ring is used here."""

    def stretch(self, limit_bytes: int) -> tuple[int, int, bytes]:
        """Start, end and bytes of whole committed records from the consumer's position on."""

    def release(self, position: int) -> None:
        """Give the ring back up to that position."""

    def consumer(self) -> int:
        """The consumer's position."""

    def producer(self) -> int:
        """The producer's position."""


class RecorderEdge(Protocol):
    """What of producers.recorder.Recorder is used here."""

    ring_id: int

    @property
    def ring(self) -> RingEdge:
        """The mapped ring."""

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

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        """Encoded batches of this ring's snapshots that were not discarded and have a larger id than ``after``, oldest first."""

    def discard_snapshots(self, last_id: int) -> None:
        """Forget the snapshots up to that id."""


class SinkEdge(Protocol):
    """What of streams.sinks.clickhouse.Sink is used here."""

    def write(self, rows: list[Row], token_base: str) -> None:
        """Store the rows, all of them once; raises Unavailable when the store does not take them now."""

    def newest_version(self, host_id: UUID, boot_id: UUID) -> int:
        """The largest version of that boot's images that are stored, 0 if none are; raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Host:
    """Who records: host_id, boot_id, name; ``now()`` giving (boottime_ns, realtime_ns) read together; the machine's fingerprint."""

    host_id: UUID
    boot_id: UUID
    hostname: bytes
    now: Callable[[], tuple[int, int]]
    machine: bytes = b""


@dataclass(slots=True)
class Progress:
    """What has happened since the start, for status and messages.

    drained          the last step took all that was there
    last_good_ns     boottime of the latest probe that came back
    pinned_again     pins that somebody removed and that were put back
    put_back         at the start the store lacked rows that had been stored
    recalled         at the start no state was there, and so many living processes were taken from the store
    """

    steps: int = 0
    ring_bytes: int = 0
    rows: int = 0
    state_bytes: int = 0
    put_back: bool = False
    recalled: int = 0
    snapshots: int = 0
    drained: bool = False
    recording: bool = True
    last_good_ns: int = 0
    pinned_again: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Embedded:
    """The stream of one host. ``step`` is the whole of it; ``watch`` looks after the recorder."""

    recorder: RecorderEdge
    sink: SinkEdge
    state_path: Path
    host: Host
    kept_ns: int = 90 * 86_400_000_000_000
    """How long the store keeps rows that nobody writes again: older ones are not missed."""
    memory: MemoryEdge | None = None
    """What is asked when there is no state, None for nothing."""
    state: HostState = field(init=False)
    progress: Progress = field(default_factory=Progress)
    _unwritten: list[Row] = field(default_factory=list)
    _token: str = ""
    _unsaved: bool = False
    _snapshots_due: int = 1
    _snapshot_ns: int = 0
    _clock_ns: int = 0
    _offset_ns: int = 0
    _probe_ns: int = 0
    _exec_probe_ns: int = 0
    _lost: int = 0
    _gap_marked: bool = False
    _told_ns: int = -REPORT_NS

    def __post_init__(self) -> None:
        self.state = read_state(self.state_path)
        if self.state.host_id.int and self.state.host_id != self.host.host_id:
            self.state = HostState()  # the installation was given a new identity: its processes have new names
        ring = self.recorder.ring
        if not self.state.host_id.int and self.memory is not None:
            self._recall(self.memory)
        if self.state.ring_id == self.recorder.ring_id and self.state.position > ring.consumer():
            ring.release(self.state.position)  # the state was saved, the position was not moved yet
        self._find_lost_rows()
        self._lost = self.state.counters.get("lost", 0)
        for encoded in self.recorder.pending_snapshots():
            self._take_up(encoded)

    def _recall(self, memory: MemoryEdge) -> None:
        """Rows were stored up to the ring's consumer position at least: what they tell of is known again."""
        start, end, body = self.recorder.ring.stretch(STEP_BYTES_MAX)
        recalled = memory.recall(self.host.host_id, self._batch(start, end, body, *self.host.now()), all_before=True)
        if recalled is not None:
            self.state = recalled
            self.progress.recalled = len(recalled.living)

    def _find_lost_rows(self) -> None:
        """Rows are stored before the state is: a state that knows of newer ones than the store has outlived them."""
        state = self.state
        if not state.newest_version or self.host.now()[1] - state.wall_ns(state.now_ns) > self.kept_ns:
            return
        stored_version = self.sink.newest_version(state.host_id, state.boot_id)
        if stored_version < state.newest_version:
            self.progress.put_back = True
            self._unwritten += rows_lost(state, stored_version)

    def _take_up(self, encoded: bytes) -> None:
        """Hand a snapshot to the join, which applies it when it comes to the snapshot's end mark in the ring."""
        try:
            self._unwritten += apply(self.state, decode_batch(encoded))
        except DecodeError:
            return  # its end mark finds nothing, and another snapshot follows anyway

    def step(self) -> bool:
        """Take what is in the ring to the store; returns whether anything moved.

        Raises Unavailable when the store does not take the rows, OSError when the state finds no room: nothing is lost,
        step again later.
        """
        if self._unwritten or self._unsaved:
            self._write()
        boottime_ns, realtime_ns = self.host.now()
        ring = self.recorder.ring
        start, end, body = ring.stretch(STEP_BYTES_MAX)
        self.progress.drained = end == ring.producer()
        if start == end and not self._due(boottime_ns):
            return False
        batch = self._batch(start, end, body, boottime_ns, realtime_ns)
        before = (self.state.position, len(self._unwritten))
        self._unwritten += apply(self.state, batch)
        self._token = f"{self.host.host_id}/{self.host.boot_id}/{batch.ring_id}/{start}-{end}/{boottime_ns if start == end else 0}"
        if (self.state.position, len(self._unwritten)) == before:
            return False
        if boottime_ns >= self._told_ns + REPORT_NS:
            self._told_ns = boottime_ns
            self._unwritten.append(host_row(self.state, batch, realtime_ns, self.host.machine, 1))
        self._write()
        self.progress.steps += 1
        self.progress.ring_bytes += end - start
        return True

    def _batch(self, start: int, end: int, body: bytes, boottime_ns: int, realtime_ns: int) -> Batch:
        host = self.host
        return Batch(
            BatchKind.EVENTS,
            host.host_id,
            host.boot_id,
            self.recorder.ring_id,
            start,
            end,
            boottime_ns,
            realtime_ns,
            0,
            0,
            host.hostname,
            body,
            self.progress.drained,
        )

    def _due(self, boottime_ns: int) -> bool:
        """Whether time alone makes rows due."""
        waiting = self.state.waiting
        return bool(waiting) and waiting[0][0] < boottime_ns

    def _write(self) -> None:
        """Rows, then state, then position."""
        rows = self._unwritten
        self._unsaved = True
        if rows:
            self.sink.write(rows, self._token)
            self.progress.rows += len(rows)
            self._unwritten = []
        self.progress.state_bytes = write_state(self.state_path, self.state)
        self._unsaved = False
        if self.state.ring_id == self.recorder.ring_id:
            self.recorder.ring.release(self.state.position)
        if self.state.last_snapshot:
            self.recorder.discard_snapshots(self.state.last_snapshot)

    def watch(self) -> None:
        """Look after the recorder: clock marks, self-probes, snapshots. Call it between steps, about once a second."""
        boottime_ns, realtime_ns = self.host.now()
        offset_ns = realtime_ns - boottime_ns
        if boottime_ns >= self._probe_ns + PROBE_PERIOD_NS:
            self._probe_ns = boottime_ns
            self._probe(boottime_ns)
        if boottime_ns >= self._clock_ns + CLOCK_PERIOD_NS or abs(offset_ns - self._offset_ns) > CLOCK_STEP_NS:
            self._clock_ns, self._offset_ns = boottime_ns, offset_ns
            self.recorder.clock()
        lost = self.state.counters.get("lost", 0)
        if lost != self._lost:
            # Two, because one snapshot alone does not prove a process gone (streams.join.snapshot).
            self._lost, self._snapshots_due = lost, 2
        self.progress.pinned_again += self.recorder.pin_again()
        if self.recorder.refresh():
            for encoded in self.recorder.pending_snapshots(self.state.last_snapshot):
                self._take_up(encoded)  # the loader took one
        if self._snapshots_due or boottime_ns >= self._snapshot_ns + SNAPSHOT_PERIOD_NS:
            self._snapshot(boottime_ns)

    def _snapshot(self, boottime_ns: int) -> None:
        """Take one now; while the ring is too full for its marks, or as many wait as the join keeps, it stays due."""
        stuck = self._unsaved or not self.progress.drained
        if stuck and len(self.state.snapshots) >= SNAPSHOTS_MAX:
            return  # another would push out the oldest, which alone shows what has ended since
        try:
            batch = self.recorder.snapshot()
        except Unavailable:
            self._snapshots_due = max(1, self._snapshots_due)
            return
        self._snapshots_due = max(0, self._snapshots_due - 1)
        self._snapshot_ns = boottime_ns
        self._unwritten += apply(self.state, batch)
        self.progress.snapshots += 1

    def _probe(self, boottime_ns: int) -> None:
        alive = self.recorder.probe()
        if alive and boottime_ns >= self._exec_probe_ns + EXEC_PROBE_PERIOD_NS:
            self._exec_probe_ns = boottime_ns
            alive = self.recorder.exec_probe()
        if alive:
            self.progress.last_good_ns = boottime_ns
            if not self.progress.recording:
                self._snapshots_due = 2
            self._gap_marked = False
        elif not self._gap_marked:
            self._gap_marked = self.recorder.mark(Mark.LINKS_LOST, self.progress.last_good_ns)
        self.progress.recording = alive
