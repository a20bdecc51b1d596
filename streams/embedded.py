"""One host, from the kernel's ring to the store: read, join, write rows, save the state, and only then move the ring's position.

Kill it at any line: what was not saved lies in the ring still, is read again, gives the same rows with the same keys and versions,
and the store takes them once. No line here waits; the caller decides when to step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID

from producers.edges import RecorderEdge
from producers.keeper import Keeper
from schemas.batch import Batch, BatchKind, decode_batch
from schemas.errors import DecodeError
from schemas.rows import Row
from streams.hosts import REPORT_NS, host_row
from streams.join import HostState, apply, rows_lost
from streams.join.log import SNAPSHOTS_MAX
from streams.memory import MemoryEdge
from streams.statefile import read_state, write_state

STEP_BYTES_MAX = 4 * 1024 * 1024
"""Ring bytes that one step takes: some 6,000 processes, so a step's rows fit one insert."""


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

    drained   the last step took all that was there
    put_back  at the start the store lacked rows that had been stored
    recalled  at the start no state was there, and so many living processes were taken from the store
    """

    steps: int = 0
    ring_bytes: int = 0
    rows: int = 0
    state_bytes: int = 0
    put_back: bool = False
    recalled: int = 0
    drained: bool = False


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
    keeper: Keeper = field(init=False)
    progress: Progress = field(default_factory=Progress)
    _unwritten: list[Row] = field(default_factory=list)
    _token: str = ""
    _unsaved: bool = False
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
        self.keeper = Keeper(self.recorder, self.host.now)
        self._take_up_pending()

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

    def _take_up_pending(self) -> None:
        """Hand snapshots to the join, which applies each when it comes to the snapshot's end mark, and takes none for a second time."""
        for encoded in self.recorder.pending_snapshots():
            try:
                self._unwritten += apply(self.state, decode_batch(encoded))
            except DecodeError:
                continue  # its end mark finds nothing, and another snapshot follows anyway

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
            self.recorder.discard_snapshots(self.state.last_snapshot)

    def watch(self) -> None:
        """Look after the recorder (see producers.keeper). Call it between steps, about once a second."""
        state = self.state
        stuck = self._unsaved or not self.progress.drained
        # One more snapshot than the join keeps would push out the oldest, which alone shows what has ended since.
        room = not stuck or len(state.snapshots) < SNAPSHOTS_MAX
        if self.keeper.watch(state.counters.get("lost", 0) + state.counters.get("skipped", 0), room):
            self._take_up_pending()
