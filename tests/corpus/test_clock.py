"""A recording of a real host whose wall clock was stepped or slewed: order, keys and durations stay what they were."""

import struct

import pytest

from queries.recordings import batches
from schemas.batch import Batch, BatchKind, frames
from schemas.events import HEAD, MARK, Kind, Mark
from tasktrail.demo import RECORDING, open_recording
from tests.sim.oracle import Store, store_of
from tests.sim.scenario import joined

HOUR_NS = 3_600_000_000_000
_REALTIME_AT = HEAD.size + 8 + 8
"""Where a CLOCK mark has its second value."""
WALL = {"start", "begin", "chain_start", "lost_from", "lost_to", "seen"}
"""Columns that show wall clock."""


@pytest.fixture(scope="module")
def log() -> list[Batch]:
    """The recording's batches."""
    with open_recording() as file:
        return list(batches(file, RECORDING))


@pytest.fixture(scope="module")
def store(log: list[Batch]) -> Store:
    """What remains in the store of it as it is."""
    return store_of(joined(log)[0])


def shifted(log: list[Batch], from_ns: int, shift_ns: int, slew: float) -> list[Batch]:
    """The log as if the wall clock had been stepped at that boottime, and had gone ``slew`` faster from then on."""

    def wall(boottime_ns: int, realtime_ns: int) -> int:
        later_ns = boottime_ns - from_ns
        return realtime_ns if later_ns < 0 else realtime_ns + shift_ns + int(later_ns * slew)

    out = []
    for batch in log:
        body = bytearray(batch.body)
        for at, size in frames(batch.body) if batch.kind == BatchKind.EVENTS else ():
            if body[at] == Kind.MARK and size == MARK.size:
                values = MARK.unpack_from(body, at)
                if values[10] == Mark.CLOCK:
                    struct.pack_into("<Q", body, at + _REALTIME_AT, wall(values[11], values[12]))
        out.append(batch._replace(body=bytes(body), realtime_ns=wall(batch.boottime_ns, batch.realtime_ns)))
    return out


def clock_marks(log: list[Batch]) -> list[int]:
    """Boottimes of the recording's clock marks."""
    bodies = [batch.body for batch in log if batch.kind == BatchKind.EVENTS]
    marks = [MARK.unpack_from(body, at) for body in bodies for at, size in frames(body) if body[at] == Kind.MARK and size == MARK.size]
    return [values[11] for values in marks if values[10] == Mark.CLOCK]


@pytest.mark.parametrize(("shift_ns", "slew"), [(HOUR_NS, 0.0), (-9 * HOUR_NS, 0.0), (0, 0.0005), (0, -0.0005)])
def test_only_what_is_shown_of_later_times_changes(log: list[Batch], store: Store, shift_ns: int, slew: float) -> None:
    told_ns = clock_marks(log)[1]
    from_ns = told_ns - 1_000_000
    other = store_of(joined(shifted(log, from_ns, shift_ns, slew))[0])
    assert list(other.images) == list(store.images) and list(other.losses) == list(store.losses)
    changed = 0
    for key, row in store.images.items():
        now, was = other.images[key]._asdict(), row._asdict()
        assert {name for name in was if now[name] != was[name]} <= WALL
        assert now["duration"] >= 0
        if was["begin_boottime"] < from_ns:
            assert (now["start"], now["begin"]) == (was["start"], was["begin"]), "wall times are shown as they were then"
        elif now["begin"] != was["begin"]:
            changed += 1
    assert changed > 100
    if shift_ns:
        assert {row.begin - store.images[key].begin for key, row in other.images.items() if row.begin_boottime > told_ns} == {shift_ns}
