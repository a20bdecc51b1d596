"""A state made of the stored rows: the log read again from any point, with it, changes nothing."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import pytest

from schemas.batch import Batch, BatchKind, frames
from schemas.events import Exit, Fork, decode_record
from schemas.rows import EndKind, ImageRow, Row
from streams.join import HostState, apply, dump, load
from streams.join.recall import AROUND_NS, Point, Remembered, recall
from tests.sim.channel import Log, batches, cut_randomly
from tests.sim.oracle import Key, Store, store_of
from tests.sim.scenario import exact_log, flat, seeds, told
from tests.sim.test_sim import unequal


def remembered(store: Store, batch: Batch, point: Point) -> Remembered:
    """What the store is asked for (streams.memory)."""
    images = [row for row in store.images.values() if row.boot_id == batch.boot_id]
    living = [row for row in images if row.start_boottime <= point.time_ns + AROUND_NS and not ended(row, point)]
    wanted = {row.task_id for row in living} | {one for row in living for one in row.ancestor_ids}
    losses = [row for row in store.losses.values() if row.boot_id == batch.boot_id]
    users = {uid: name for row in images for uid, name in ((row.uid, row.user), (row.loginuid, row.login_user)) if name}
    return Remembered([row for row in images if row.task_id in wanted], losses, users, [], point[:2])


def ended(row: ImageRow, point: Point) -> bool:
    """Whether the image had ended at the point."""
    return row.end_kind != EndKind.LIVING and row.begin_boottime + row.duration < point.time_ns - AROUND_NS


def point_at(log: list[Batch], number: int) -> Point:
    """The point of the log before that batch."""
    batch = log[number]
    records = [
        decode_record(one.body, at, size)
        for one in log[number:]
        if one.kind == BatchKind.EVENTS and (one.boot_id, one.ring_id) == (batch.boot_id, batch.ring_id)
        for at, size in frames(one.body)
    ]
    time_ns = records[0].time_ns
    near = [one for one in records if one.time_ns <= time_ns + AROUND_NS]
    forks = frozenset((one.tgid, one.start_ns) for one in near if isinstance(one, Fork))
    exits = frozenset((one.tgid, one.start_ns) for one in near if isinstance(one, Exit))
    return Point(batch.ring_id, batch.start, time_ns, forks, exits)


def content(log: Log, clock_was_set: bool, row: ImageRow) -> ImageRow:
    """The row without what the store does not tell: which wall clock was in force at an earlier moment, and that it was the recorder's
    own reader that took the names by which it looks for itself."""
    row = row._replace(version=0, seen=0)
    if (row.tgid, row.start_boottime) in {(one.tgid, one.start_ns) for one in log.host.readers}:
        row = row._replace(renamed=b"")
    return row._replace(start=0, begin=0, chain_start=(), lost_from=0, lost_to=0) if clock_was_set else row


def marks(again: ImageRow, before: ImageRow) -> dict[str, int]:
    """The marks of loss that the row must have: those it had, if it is marked at all."""
    return {name: getattr(before if again.chain_lost else again, name) for name in ("chain_lost", "lost_from", "lost_to")}


def version_of(store: Store, key: Key) -> int:
    """Version of the row that is stored."""
    return store.images[key].version if key in store.images else 0


def goes_on(state: HostState, log: Iterable[Batch]) -> list[Row]:
    """The rows from that state on."""
    rows: list[Row] = []
    for batch in log:
        rows += apply(state, batch)
    return rows


class World(NamedTuple):
    """A simulated host's log, the rows that the join makes of it, and places in it where no snapshot is under way."""

    log: Log
    batches: list[Batch]
    store: Store
    quiet: list[int]

    def __repr__(self) -> str:
        """Short: whole worlds fill a page."""
        return f"World({len(self.batches)} batches)"


def world(seed: int) -> World:
    """From a seed."""
    log, rng = exact_log(seed)
    whole = flat(batches(log, cut_randomly(log, rng), rng))
    rows, quiet, state = list[Row](), list[int](), HostState()
    for number, batch in enumerate(whole):
        if batch.kind == BatchKind.EVENTS and not state.snapshots and not state.open_snapshot:
            quiet.append(number)
        rows += apply(state, batch)
    return World(log, whole, store_of(rows), rng.sample(quiet, min(len(quiet), 5)))


def check_from(it: World, number: int, recalled: HostState) -> None:
    """From that batch on the log gives the rows that are stored."""
    store, log = it.store, it.log
    again = store_of(goes_on(load(dump(recalled)), it.batches[number:])).images
    # Where a snapshot and an exec crossed, the join said that something was lost, and may know it better now.
    crossed = {row.task_id for row in store.images.values() if row.chain_lost}
    newer = {key: row for key, row in again.items() if row.version >= version_of(store, key) and row.task_id not in crossed}
    # A loss may be marked on more rows than before, never on fewer.
    newer = {key: row._replace(**marks(row, store.images.get(key, row))) for key, row in newer.items()}
    offsets = {entry.offset_ns for boot in log.host.boots for ring in boot.rings for entry in ring.entries}
    fit = partial(content, log, len(offsets) > 1)
    different = unequal(
        Store({key: fit(row) for key, row in newer.items()}, {}),
        Store({key: fit(row) for key, row in store.images.items() if key in newer}, {}),
    )
    assert not different, f"from batch {number} on: {different}"


@pytest.mark.parametrize("seed", seeds())
def test_from_any_point_the_log_gives_the_same_rows_again(seed: int) -> None:
    with told(seed):
        it = world(seed)
        for number in it.quiet:
            point = point_at(it.batches, number)
            recalled = recall(remembered(it.store, it.batches[number], point), point)
            if recalled is not None:
                check_from(it, number, recalled)
