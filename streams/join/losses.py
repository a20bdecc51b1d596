"""What is missing, and what the recorder says of itself: counters, marks, times without a recorder."""

from schemas.batch import Batch
from schemas.events import Mark, MarkRecord
from schemas.rows import LossCause, Row
from streams.join.model import HostState, join_intervals
from streams.join.rows import SECOND_NS, loss_row, write_all

LOSSES_MAX = 256
"""Intervals of loss that are remembered; beyond, the two oldest become one that holds both."""

_BEFORE = "before the recorder was loaded"
TOUCHES_CHAINS = frozenset({LossCause.RING_FULL, LossCause.SKIPPED, LossCause.NO_RECORDER, LossCause.LOG_HOLE, LossCause.UNDECODABLE})


def lose(state: HostState, position: int, cause: LossCause, interval: tuple[int, int], amount: int, detail: str, rows: list[Row]) -> None:
    """Note a loss between two moments, and write its row."""
    if cause in TOUCHES_CHAINS:
        state.losses.append(interval)
        if len(state.losses) > LOSSES_MAX:
            state.losses[:2] = [join_intervals(*state.losses[:2])]
    rows.append(loss_row(state, position, cause, interval, amount, detail))


def rows_lost(state: HostState, stored_version: int) -> list[Row]:
    """The store has no row of this boot that is newer than ``stored_version``, though newer ones were stored: it was put back.

    What ended since then is not stored any more, and its loss is told; what lives, and all that it descends from, is written again.
    """
    rows: list[Row] = []
    detail = "the store was put back to an earlier state: rows of processes that ended since are gone"
    lose(state, state.position, LossCause.ROWS_LOST, (stored_version // 4, state.now_ns), 0, detail, rows)
    state.newest_version = stored_version
    write_all(state, state.now_ns, rows)
    return rows


def claimed(first: HostState, other: HostState, batch: Batch) -> list[Row]:
    """Another machine has the host_id of ``first``; its rows bear that of ``other``, whose batch this is. A row for each of the two."""
    told: list[Row] = []
    for state, detail in (
        (first, f"another machine has this host_id; its rows bear {other.host_id}"),
        (other, f"this machine gives itself host_id {first.host_id}, which another machine had first"),
    ):
        row = loss_row(state, state.position, LossCause.IDENTITY_CLASH, (state.now_ns, state.now_ns), 0, detail)
        if state.offset_ns is None:
            # It has sent nothing but a snapshot, which waits for its mark. A row of 1970 would be expired before anybody reads it.
            wall_ns, boottime_ns = batch.realtime_ns, batch.boottime_ns if state is other else 0
            row = row._replace(begin=wall_ns, end=wall_ns, begin_boottime=boottime_ns, end_boottime=boottime_ns)
            row = row._replace(seen=wall_ns // SECOND_NS, version=boottime_ns * 4)
        told.append(row)
    return told


def count_lost(state: HostState, lost: int, position: int, since_ns: int, rows: list[Row]) -> None:
    """Compare a record's count of drops with what was known before it; processors may show theirs out of order, so only growth counts."""
    before = state.counters.get("lost", 0)
    if lost > before:
        state.counters["lost"] = lost
        amount = lost - before
        detail = f"the ring was full: {amount} records of fork, exec or exit found no room"
        lose(state, position, LossCause.RING_FULL, (since_ns, state.now_ns), amount, detail, rows)


_CLOCK_COUNTERS = (
    (2, "skipped", LossCause.SKIPPED, "times that the kernel did not run a program of the recorder"),
    (6, "dropped_rename", LossCause.RENAME_DROPPED, "renames left out while the ring was more than half full"),
    (7, "short_argv", LossCause.ARGV_SHORTENED, "arguments cut short while the ring was more than half full"),
)


def mark(state: HostState, record: MarkRecord, position: int, rows: list[Row]) -> None:
    """A remark of the recorder (those of snapshots are streams.join.snapshot's)."""
    state.reader = (record.tgid, record.start_ns)
    if record.mark != Mark.ATTACHED and position and state.links_lost is not None:
        _mark_is_missing(state, state.links_lost, rows)
    if record.mark == Mark.CLOCK:
        _clock(state, record, position, rows)
    elif record.mark == Mark.LINKS_LOST:
        last_good_ns = min(record.values[0], record.time_ns)
        state.links_lost = (position, last_good_ns)
        detail = "the recorder's programs were detached"
        lose(state, position, LossCause.NO_RECORDER, (last_good_ns, record.time_ns), 0, detail, rows)
    elif record.mark == Mark.ATTACHED:
        _attached(state, record, position, rows)


def _mark_is_missing(state: HostState, links_lost: tuple[int, int], rows: list[Row]) -> None:
    """Nobody marks before the loader has put the mark of attachment: where a new ring has another one first, that one was lost."""
    gap_position, begin_ns = links_lost
    if not begin_ns:
        state.links_lost = None
    elif not gap_position:
        state.links_lost = None
        lose(state, gap_position, LossCause.NO_RECORDER, (begin_ns, state.now_ns), 0, "nobody recorded", rows)


def first_event(state: HostState, time_ns: int, position: int, rows: list[Row]) -> None:
    """An event came before any mark of attachment: the programs are attached one after another, or the mark found no room.

    Recording began with it at the latest, unless the mark comes yet and says when the last of them was attached.
    """
    state.recording_since_ns = time_ns
    state.links_lost = (position, 0)
    rows.append(loss_row(state, position, LossCause.NO_RECORDER, (0, time_ns), 0, _BEFORE))


def new_ring(state: HostState) -> None:
    """Nobody recorded since the last event of the ring before; what comes first in the new one may come before its mark of attachment."""
    if state.recording_since_ns:
        since_ns = state.links_lost[1] if state.links_lost is not None else 0
        state.links_lost = (0, since_ns or max(state.event_ns, state.recording_since_ns))


def _clock(state: HostState, record: MarkRecord, position: int, rows: list[Row]) -> None:
    """The clock pair from now on, and counters; what they count happened since the mark before."""
    boottime_ns, realtime_ns = record.values[:2]
    state.offset_ns = realtime_ns - boottime_ns
    since_ns = state.counters.get("clock_ns", 0)
    for index, name, cause, meaning in _CLOCK_COUNTERS:
        amount = record.values[index] - state.counters.get(name, 0)
        if amount > 0:
            state.counters[name] = record.values[index]
            lose(state, position, cause, (since_ns, state.now_ns), amount, f"{amount} {meaning}", rows)
    state.counters["clock_ns"] = state.now_ns


def _attached(state: HostState, record: MarkRecord, position: int, rows: list[Row]) -> None:
    """The programs are attached; if nobody recorded before, the time until now is a loss."""
    first = not state.recording_since_ns
    if not record.values[0]:
        end_ns = max(record.time_ns, state.event_ns)
        gap_position, begin_ns = state.links_lost or (position, 0 if first else state.event_ns)
        if begin_ns:
            at_begin = gap_position in (0, position)
            detail = "nobody recorded" if at_begin else "the recorder's programs were detached until they were loaded again"
            lose(state, gap_position, LossCause.NO_RECORDER, (begin_ns, end_ns), 0, detail, rows)
        else:
            first = True
            rows.append(loss_row(state, gap_position, LossCause.NO_RECORDER, (0, end_ns), 0, _BEFORE))
    state.links_lost = None
    if first:
        state.recording_since_ns = record.time_ns
