"""One host's log, batch after batch: what is new in each, in order, handed to the rules.

The order is the ring's. A batch that was read already changes nothing, a hole is a loss, a new ring or boot begins where the old
one ends. "Now" is the running maximum of record times, so the rows do not depend on where the log is cut into batches.
"""

from schemas.batch import RING_HEADER, Batch, BatchKind, frames
from schemas.errors import DecodeError
from schemas.events import Fork, Mark, MarkRecord, Record, decode_record
from schemas.rows import EndKind, LossCause, Row
from streams.join import snapshot, transitions
from streams.join.facts import check_creator
from streams.join.losses import count_lost, first_event, lose, mark, new_ring
from streams.join.model import HostState
from streams.join.rows import refresh, write_due
from streams.join.transitions import RULES

TICK_MARGIN_NS = 50_000_000
"""A record may reach the ring this long after the time it bears; a drained batch's time less this much is safe to act on."""
PAST_BOOTS_MAX = 8
"""Ended boots that are remembered, to know a repeat of their batches."""
SNAPSHOTS_MAX = 4
"""Snapshots that may wait for their end mark; the oldest goes."""


def apply(state: HostState, batch: Batch) -> list[Row]:
    """The rows that follow from one more batch of the host; ``state`` moves on to its end.

    Any exception is a bug here: records that cannot be read are skipped and counted.
    """
    rows: list[Row] = []
    if batch.boot_id in state.past_boots:
        return rows
    if batch.boot_id != state.boot_id:
        _new_boot(state, batch, rows)
    state.host = batch.hostname or state.host
    if batch.kind == BatchKind.SNAPSHOT:
        _keep_snapshot(state, batch)
        return rows
    if batch.ring_id < state.ring_id or (batch.ring_id == state.ring_id and batch.end <= state.position):
        _tick(state, batch, rows)
        return rows
    if state.offset_ns is None:
        state.offset_ns = batch.realtime_ns - batch.boottime_ns
    hole = 0
    if batch.ring_id != state.ring_id:
        _new_ring(state, batch, rows)
    if batch.start > state.position:
        hole = batch.start - state.position
        state.position = batch.start
    _records(state, batch, hole, rows)
    state.position = batch.end
    _tick(state, batch, rows)
    return rows


def _new_boot(state: HostState, batch: Batch, rows: list[Row]) -> None:
    """The host started anew: all that lived has ended with the boot before."""
    if state.unread is not None:
        _tell_unread(state, rows)
    for process in list(state.living.values()):
        transitions.end_process(state, process, EndKind.REBOOT, state.now_ns, rows)
    past = [*state.past_boots, state.boot_id][-PAST_BOOTS_MAX:] if state.boot_id.int else []
    fresh = HostState(host_id=batch.host_id, host=batch.hostname, boot_id=batch.boot_id, past_boots=past)
    for name in HostState.__dataclass_fields__:
        setattr(state, name, getattr(fresh, name))


def _new_ring(state: HostState, batch: Batch, rows: list[Row]) -> None:
    """A new ring was made: its positions and counters begin at 0. Its first mark tells the time in between."""
    if state.unread is not None:
        _tell_unread(state, rows)
    new_ring(state)
    state.ring_id, state.position = batch.ring_id, 0
    state.counters = {}
    state.open_snapshot = 0
    state.ended_meanwhile.clear()


def _keep_snapshot(state: HostState, batch: Batch) -> None:
    """Keep it, or its next part, for its end mark. The log is in order, so a part that is not the next one was there already."""
    snapshot_id = batch.lost
    if batch.ring_id >= state.ring_id and snapshot_id > state.last_snapshot:
        arrived, parts, body = state.snapshots.get(snapshot_id, (0, batch.parts, b""))
        if batch.part == arrived and batch.parts == parts:
            state.snapshots[snapshot_id] = (arrived + 1, parts, body + batch.body)
        while len(state.snapshots) > SNAPSHOTS_MAX:
            del state.snapshots[min(state.snapshots)]


def _records(state: HostState, batch: Batch, hole: int, rows: list[Row]) -> None:
    """Hand each record that is new to the rules, after what its time brings about."""
    body, first, skip_to, waiting = batch.body, batch.start - RING_HEADER, state.position, state.waiting
    missing = (hole, batch.start, state.now_ns) if hole else None
    lost, event_ns = state.counters.get("lost", 0), state.event_ns
    try:
        for at, size in frames(body):
            position = first + at
            if position < skip_to:
                continue
            try:
                record = decode_record(body, at, size)
                if record.__class__ is Fork:
                    check_creator(record)
            except DecodeError:
                _count_unread(state, position)
                continue
            state.events += 1
            time_ns, since_ns = record.time_ns, state.now_ns
            if time_ns > since_ns:
                state.now_ns = time_ns
                if waiting and waiting[0][0] <= time_ns:
                    write_due(state, time_ns, rows)
                if time_ns >= state.refresh_ns:
                    refresh(state, time_ns, rows)
            if missing is not None:
                _hole(state, missing, state.now_ns, rows)
                missing = None
            if state.unread is not None:
                _tell_unread(state, rows)
            if record.lost > lost:
                lost = record.lost
                count_lost(state, lost, position, since_ns, rows)
            rule = RULES.get(record.__class__)
            if rule is not None:
                if time_ns > event_ns:
                    event_ns = time_ns
                    if not state.recording_since_ns:
                        first_event(state, time_ns, position, rows)
                rule(state, record, position, rows)
            else:
                state.event_ns = event_ns
                _remark(state, record, position, rows)
    except DecodeError:
        _count_unread(state, batch.start)
    state.event_ns = event_ns
    if missing is not None:
        # An empty batch stands where a full spool threw others away, and has the time of the last of them.
        _hole(state, missing, max(state.now_ns, batch.boottime_ns), rows)


def _hole(state: HostState, missing: tuple[int, int, int], until_ns: int, rows: list[Row]) -> None:
    amount, position, since_ns = missing
    lose(state, position, LossCause.LOG_HOLE, (since_ns, until_ns), amount, f"{amount} bytes of the ring never arrived", rows)


def _count_unread(state: HostState, position: int) -> None:
    """One more record that cannot be read; the next good one ends the interval of the loss."""
    amount, first, since_ns = state.unread or (0, position, state.now_ns)
    state.unread = (amount + 1, first, since_ns)


def _tell_unread(state: HostState, rows: list[Row]) -> None:
    assert state.unread is not None
    amount, position, since_ns = state.unread
    state.unread = None
    lose(state, position, LossCause.UNDECODABLE, (since_ns, state.now_ns), amount, f"{amount} records could not be read", rows)


def _remark(state: HostState, record: Record, position: int, rows: list[Row]) -> None:
    """A remark of the recorder; records of a snapshot have no place in a ring and change nothing."""
    if isinstance(record, MarkRecord):
        mark(state, record, position, rows)
        if record.mark == Mark.SNAPSHOT_BEGIN:
            snapshot.begin(state, record.values[0])
        elif record.mark == Mark.SNAPSHOT_END:
            snapshot.end(state, record.values[0], position, rows)


def _tick(state: HostState, batch: Batch, rows: list[Row]) -> None:
    """All that happened before the batch's time is in: rows that are due by then need not wait for a record."""
    if batch.drained and batch.ring_id == state.ring_id:
        now_ns = batch.boottime_ns - TICK_MARGIN_NS
        if now_ns > state.now_ns:
            write_due(state, now_ns, rows)
            refresh(state, now_ns, rows)
