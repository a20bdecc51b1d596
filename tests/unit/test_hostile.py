"""Records and saved states that no kernel and no program of ours would make, each found by the fuzzer once: they are refused, counted."""

import json
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from producers import remains
from producers.recording import last_snapshot_end
from schemas.batch import Batch, BatchKind, decode_batch, encode_batch, frame
from schemas.errors import DecodeError
from schemas.events import Flag, Fork, Mark, MarkRecord, Record, Seen
from schemas.rows import LossCause, LossRow
from streams.fleet.state_log import ANY_RATIO_BYTES, unpacked
from streams.join import HostState, apply, dump, load
from streams.join.saved import CHECKSUM, signed
from tests.sim.encode import encode_record
from tests.unit.test_saved import log

HOST, BOOT, RING = UUID(int=1), UUID(int=2), 1_000
SECOND = 1_000_000_000


def fork(tgid: int, start_ns: int, creator: int, creator_start_ns: int, exec_id: int = 3, creator_exec_id: int = 3) -> Fork:
    """A FORK record."""
    zeros = dict.fromkeys(Fork._fields, 0)
    known = {"tgid": tgid, "time_ns": start_ns, "start_ns": start_ns, "exec_id": exec_id, "comm": b"x"}
    link = {"creator_tgid": creator, "creator_start_ns": creator_start_ns, "creator_exec_id": creator_exec_id, "creator_tid": creator}
    return Fork(**zeros | known | link)  # type: ignore[arg-type]


def seen(tgid: int, start_ns: int, parent: int, parent_start_ns: int) -> Seen:
    """A SEEN record of a process whose creator is not known, but the kernel's parent."""
    values: dict[str, Any] = dict.fromkeys(Seen._fields, 0) | dict.fromkeys(
        ("comm", "filename", "interp", "exe", "cwd", "cgroup", "tty"), b""
    )
    known = {"tgid": tgid, "time_ns": start_ns, "start_ns": start_ns, "exec_id": 1, "argv": (), "exe": b"/x"}
    return Seen(**values | known | {"real_parent_tgid": parent, "real_parent_start_ns": parent_start_ns, "parent_exec_id": 1})


def mark(kind: Mark, *values: int) -> MarkRecord:
    """A MARK record."""
    return MarkRecord(0, 0, 9, SECOND, 1, 0, 0, kind, values + (0,) * (8 - len(values)))


def batch(*records: Record, start: int = 0, kind: BatchKind = BatchKind.EVENTS, snapshot_id: int = 0) -> Batch:
    """Records as a batch."""
    body = b"".join(frame(encode_record(record)) for record in records)
    end = start + (len(body) if kind == BatchKind.EVENTS else 0)
    return Batch(kind, HOST, BOOT, RING, start, end, 20 * SECOND, 30 * SECOND, snapshot_id, 0, b"h", body, drained=True)


LIES = {
    "its own creator": fork(7, 5 * SECOND, 7, 5 * SECOND),
    "a creator with its pid": fork(7, 5 * SECOND, 7, 4 * SECOND),
    "a creator that began later": fork(7, 5 * SECOND, 8, 6 * SECOND),
    "another exec_id than its creator": fork(7, 5 * SECOND, 8, 4 * SECOND, exec_id=2),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_creator_that_cannot_be_is_a_record_that_cannot_be_read(lie: str) -> None:
    good = fork(20, 10 * SECOND, 1, SECOND)
    state = HostState()
    rows = apply(state, batch(LIES[lie], good))
    (loss,) = [row for row in rows if isinstance(row, LossRow) and row.cause == LossCause.UNDECODABLE]
    assert loss.amount == 1 and sorted(state.living) == [1, 20]


def test_nobody_descends_from_himself_by_a_snapshot() -> None:
    state = HostState()
    snapshot = batch(seen(5, 2 * SECOND, 6, 3 * SECOND), seen(6, 3 * SECOND, 5, 2 * SECOND), kind=BatchKind.SNAPSHOT, snapshot_id=77)
    for one in (batch(mark(Mark.SNAPSHOT_BEGIN, 77)), snapshot):
        apply(state, one)
    apply(state, batch(mark(Mark.SNAPSHOT_END, 77), start=state.position))
    creators = {tgid: process.creator and process.creator.tgid for tgid, process in state.living.items()}
    assert creators == {5: None, 6: 5}


def test_a_creator_without_a_pid_is_not_looked_for() -> None:
    state = HostState()
    snapshot = batch(seen(0, 0, 0, 0)._replace(flags=Flag.CREATOR_KNOWN), kind=BatchKind.SNAPSHOT, snapshot_id=77)
    for one in (batch(mark(Mark.SNAPSHOT_BEGIN, 77)), snapshot):
        apply(state, one)
    (loss,) = apply(state, batch(mark(Mark.SNAPSHOT_END, 77), start=state.position))
    assert isinstance(loss, LossRow) and loss.cause == LossCause.UNDECODABLE and not state.living


def test_a_body_that_ends_in_an_empty_record_has_no_mark_there() -> None:
    assert last_snapshot_end(frame(encode_record(mark(Mark.SNAPSHOT_END, 77))) + frame(b"")) == 77


def test_what_stands_for_thrown_away_batches_bears_a_time_that_can_be_written() -> None:
    late = batch(fork(7, (1 << 64) - 1, 1, SECOND))
    (end,) = map(decode_batch, remains.ends([encode_batch(late)]))
    assert end.boottime_ns == end.realtime_ns == (1 << 64) - 1


def test_a_batch_that_is_not_well_framed_can_be_thrown_away() -> None:
    broken = batch(fork(7, 40 * SECOND, 1, SECOND))
    broken = broken._replace(body=broken.body + b"\xff" * 8, end=broken.end + 8)
    (end,) = map(decode_batch, remains.ends([encode_batch(broken)]))
    assert (end.start, end.end, end.boottime_ns) == (broken.end, broken.end, 40 * SECOND)


@pytest.mark.parametrize("size", [0, ANY_RATIO_BYTES + 1, 64 << 20, 1 << 30, (1 << 30) + 1, (1 << 32) - 1])
def test_a_few_bytes_do_not_become_a_large_state(size: int) -> None:
    value = b"TTS1" + (7).to_bytes(8, "little") + size.to_bytes(4, "little") + zlib.compress(bytes(ANY_RATIO_BYTES + 1))
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            unpacked(b"key", value)
        assert tracemalloc.get_traced_memory()[1] < ANY_RATIO_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def saved() -> dict[str, Any]:
    """A good state, as the JSON in it."""
    state = HostState()
    for one in log()[:7]:
        apply(state, one)
    tree: dict[str, Any] = json.loads(dump(state))
    del tree[CHECKSUM]
    assert load(written(tree)).living.keys() == state.living.keys()
    return tree


def written(tree: dict[str, Any]) -> bytes:
    """As dump writes it."""
    return signed(json.dumps(tree, separators=(",", ":")).encode())


def own_creator(tree: dict[str, Any]) -> None:
    tree["processes"][0][-3] = 0


def own_base(tree: dict[str, Any]) -> None:
    tree["images"][0][-1] = 0


def another_ones_image(tree: dict[str, Any]) -> None:
    living = tree["living"]
    tree["processes"][living[0]][-1] = tree["processes"][living[1]][-1]


def no_image(tree: dict[str, Any]) -> None:
    tree["processes"][tree["living"][0]][-1] = -1


def text_for_a_number(tree: dict[str, Any]) -> None:
    tree["now_ns"] = "soon"


def no_number(tree: dict[str, Any]) -> None:
    tree["ring_id"] = float("inf")


def a_count_of_nothing(tree: dict[str, Any]) -> None:
    tree["counters"]["lost"] = None


def a_pid_too_large(tree: dict[str, Any]) -> None:
    tree["processes"][0][0] = 1 << 64


def the_last_of_all(tree: dict[str, Any]) -> None:
    tree["living"][0] = -1


SPOILED = [
    own_creator,
    own_base,
    another_ones_image,
    no_image,
    text_for_a_number,
    no_number,
    a_count_of_nothing,
    the_last_of_all,
    a_pid_too_large,
]


@pytest.mark.parametrize("spoil", SPOILED, ids=lambda spoil: str(spoil.__name__))
def test_a_state_that_would_fail_later_is_refused(saved: dict[str, Any], spoil: Callable[[dict[str, Any]], None]) -> None:
    spoil(saved)
    with pytest.raises(DecodeError, match="a gap will be recorded"):
        load(written(saved))


def test_a_state_in_which_one_digit_is_another_is_refused(saved: dict[str, Any]) -> None:
    before = f'"position":{saved["position"]}'.encode()
    spoiled = written(saved).replace(before, before[:-1] + (b"1" if before[-1:] != b"1" else b"2"))
    with pytest.raises(DecodeError, match="checksum"):
        load(spoiled)
