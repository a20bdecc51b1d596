"""Hostile bytes end in values or in DecodeError, never in anything else."""

from collections.abc import Callable
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import limits
from schemas.batch import HEADER, Batch, BatchKind, batch_size, decode_batch, encode_batch, frame, frames
from schemas.errors import DecodeError
from schemas.events import LAYOUT, Exec, Exit, Flag, Fork, Kind, MarkRecord, Record, Rename, Seen, User, decode_record
from tests.sim.encode import encode_record
from tests.unit.test_wire_vectors import RECORDS, vector

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
TEXT = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"."))
COMM = st.binary(max_size=15).map(lambda raw: raw.replace(b"\0", b"."))
NAME = st.binary(min_size=1, max_size=12).map(lambda raw: raw.replace(b"\0", b".").replace(b"/", b"."))
PATH = st.lists(NAME, max_size=5).map(lambda parts: b"/" + b"/".join(parts))
ARGV = st.lists(TEXT, max_size=5).map(tuple)
WIDE = {"creator_start_ns", "creator_exec_id", "real_parent_start_ns", "parent_exec_id", "cgroup_id", "clone_flags", "exe_inode"}
WIDE |= {"time_ns", "start_ns", "exec_id", "lost", "utime_ns", "stime_ns", "max_rss_kib"}
SPECIAL = {
    "comm": COMM,
    "old_comm": COMM,
    "argv": ARGV,
    "exe": PATH.filter(lambda path: path != b"/"),
    "cwd": PATH,
    "filename": TEXT,
    "interp": TEXT,
    "cgroup": TEXT,
}
SPECIAL |= {"tty": TEXT, "name": TEXT, "values": st.tuples(*[U64] * 8), "flags": st.just(0)}


def records(kind: type) -> st.SearchStrategy[Record]:
    """Any record of the kind whose values fit their fields."""
    fields = kind._fields  # type: ignore[attr-defined]
    return st.builds(kind, **{name: SPECIAL.get(name, U64 if name in WIDE else U32) for name in fields})


ANY_RECORD = st.one_of(*(records(kind) for kind in (Fork, Exec, Exit, Rename, MarkRecord, Seen, User)))


@given(ANY_RECORD)
def test_records_come_back(record: Record) -> None:
    data = encode_record(record)
    back = decode_record(data, 0, len(data))
    assert back == record


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_frames_come_back(contents: list[bytes]) -> None:
    body = b"".join(map(frame, contents))
    assert [body[at : at + size] for at, size in frames(body)] == contents


@given(
    st.sampled_from(BatchKind),
    st.tuples(st.uuids(), st.uuids()),
    st.lists(st.integers(0, 2**63), min_size=6, max_size=6),
    st.binary(max_size=64).map(lambda raw: raw.rstrip(b"\0")),
    st.binary(max_size=200),
)
def test_batches_come_back(kind: BatchKind, ids: tuple[UUID, UUID], numbers: list[int], hostname: bytes, body: bytes) -> None:
    ring_id, start, boottime_ns, realtime_ns, lost, skipped = numbers
    skipped &= 0xFFFFFFFF
    batch = Batch(kind, *ids, ring_id, start, start + len(body), boottime_ns, realtime_ns, lost, skipped, hostname, body)
    data = encode_batch(batch)
    assert decode_batch(data) == batch
    assert batch_size(data) == batch_size(data[: HEADER.size]) == len(data)


def survives(read: Callable[[], object]) -> None:
    """Reading ends in a value or in DecodeError."""
    try:
        read()
    except DecodeError as error:
        assert error.problem


@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    survives(lambda: decode_batch(data))
    survives(lambda: batch_size(data))
    survives(lambda: list(frames(data)))
    survives(lambda: decode_record(data, 0, len(data)))


@given(st.sampled_from(Kind), st.binary(max_size=300), st.integers(-8, 400), st.integers(-8, 400))
def test_random_records_of_known_kinds(kind: Kind, data: bytes, at: int, size: int) -> None:
    marked = bytes([kind, 1]) + data
    survives(lambda: decode_record(marked, 0, len(marked)))
    survives(lambda: decode_record(marked, at, size))


@given(st.sampled_from(RECORDS), st.data())
def test_damaged_records(name: str, data: st.DataObject) -> None:
    record = bytearray(vector(name)[0])
    for _ in range(data.draw(st.integers(1, 4))):
        record[data.draw(st.integers(0, len(record) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    cut = bytes(record[: data.draw(st.integers(0, len(record)))])
    survives(lambda: decode_record(bytes(record), 0, len(record)))
    survives(lambda: decode_record(cut, 0, len(cut)))
    survives(lambda: decode_record(bytes(record), 0, len(cut)))


@settings(max_examples=300)
@given(st.sampled_from(["batch_events", "batch_snapshot"]), st.data())
def test_damaged_batches_are_refused(name: str, data: st.DataObject) -> None:
    whole = vector(name)[0]
    at, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    survives(lambda: decode_batch(bytes(damaged)))
    if at >= HEADER.size:
        with pytest.raises(DecodeError, match="checksum"):
            decode_batch(bytes(damaged))
    with pytest.raises(DecodeError):
        decode_batch(whole[:at])
    with pytest.raises(DecodeError):
        decode_batch(whole + b"\0")
    survives(lambda: list(frames(bytes(damaged[HEADER.size :]))))


@pytest.mark.parametrize("kind", Kind)
def test_sizes_that_do_not_fit_are_refused(kind: Kind) -> None:
    fixed = LAYOUT[kind][0].size
    short = bytes([kind, 1]) + bytes(fixed - 3)
    with pytest.raises(DecodeError):
        decode_record(short, 0, len(short))
    long = bytes([kind, 1]) + bytes(fixed)
    with pytest.raises(DecodeError):
        decode_record(long, 0, len(long))


@pytest.mark.parametrize(
    ("name", "at", "value", "problem"),
    [
        ("batch_events", 0, b"X", "not a Tasktrail batch"),
        ("batch_events", 4, b"\x02", "version 2"),
        ("batch_events", 6, b"\x09", "kind 9"),
        ("batch_events", 12, b"\xff\xff\xff\x7f", "limit"),
    ],
)
def test_refusals_say_why(name: str, at: int, value: bytes, problem: str) -> None:
    data = bytearray(vector(name)[0])
    data[at : at + len(value)] = value
    with pytest.raises(DecodeError, match=problem):
        decode_batch(bytes(data))


def test_newer_records_ask_for_an_update() -> None:
    data = bytearray(vector("fork")[0])
    data[1] = 2
    with pytest.raises(DecodeError, match="update") as caught:
        decode_record(bytes(data), 0, len(data))
    assert caught.value.cure


def test_a_body_beyond_the_limit_is_refused_before_it_is_read() -> None:
    header = bytearray(vector("batch_events")[0][: HEADER.size])
    header[12:16] = (limits.BATCH_BYTES_MAX + 1).to_bytes(4, "little")
    with pytest.raises(DecodeError, match="limit"):
        batch_size(bytes(header))


def test_unfinished_records_stop_the_reading() -> None:
    busy = bytearray(frame(b"x" * 8))
    busy[3] |= 0x80
    good = frame(b"y" * 8)
    reader = frames(good + bytes(busy))
    assert next(reader) == (8, 8)
    with pytest.raises(DecodeError, match="not finished"):
        next(reader)


def test_cut_paths_lack_their_slash() -> None:
    data, values = vector("exec_script_cut")
    record = decode_record(data, 0, len(data))
    assert isinstance(record, Exec)
    assert record.flags & Flag.EXE_CUT and record.exe == values["exe"] == b"deep/bin/dash (deleted)"
