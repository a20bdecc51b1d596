"""The bytes of every kind of record and batch, and the values that they are: once published, they never change."""

from ast import literal_eval
from pathlib import Path
from struct import calcsize
from typing import Any
from uuid import UUID

import pytest

from schemas import events
from schemas.batch import HEADER, Batch, BatchKind, decode_batch, encode_batch, frame, frames, split_snapshot
from schemas.errors import DecodeError
from schemas.events import LAYOUT, Kind, decode_record
from tests.sim.encode import encode_record

VECTORS = Path(__file__).parent / "vectors"
RECORDS = ("fork", "exec", "exec_script_cut", "exit", "rename", "mark", "seen", "user")

SIZES = {Kind.FORK: 160, Kind.EXEC: 184, Kind.EXIT: 120, Kind.RENAME: 88, Kind.MARK: 120, Kind.SEEN: 216, Kind.USER: 56}


def vector(name: str) -> tuple[bytes, dict[str, Any]]:
    """Bytes and values of one vector file: lines of offset and hex, a line ---, lines of name = value."""
    above, below = (VECTORS / f"{name}.txt").read_text("utf-8").split("---\n")
    lines = [line for line in above.splitlines() if not line.startswith("#")]
    data = b"".join(bytes.fromhex(line[6:]) for line in lines)
    assert [int(line[:4], 16) for line in lines] == list(range(0, len(data), 16))
    return data, {name: literal_eval(value) for name, value in (line.split(" = ", 1) for line in below.splitlines())}


@pytest.mark.parametrize("name", RECORDS)
def test_record_vectors(name: str) -> None:
    data, values = vector(name)
    record = decode_record(data, 0, len(data))
    assert record._asdict() == values
    assert encode_record(record) == data


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_read_wherever_it_lies(name: str) -> None:
    data, values = vector(name)
    assert decode_record(b"\xaa" * 13 + data + b"\xbb" * 9, 13, len(data))._asdict() == values


@pytest.mark.parametrize("name", ["batch_events", "batch_snapshot"])
def test_batch_vectors(name: str) -> None:
    data, values = vector(name)
    expected = Batch(
        **{**values, "kind": BatchKind(values["kind"]), "host_id": UUID(values["host_id"]), "boot_id": UUID(values["boot_id"])}
    )
    batch = decode_batch(data)
    assert batch == expected
    assert encode_batch(batch) == data
    for at, size in frames(batch.body):
        decode_record(batch.body, at, size)


def test_every_kind_has_a_vector() -> None:
    assert {decode_record(vector(name)[0], 0, len(vector(name)[0])).__class__ for name in RECORDS} == {
        layout[1] for layout in LAYOUT.values()
    }
    assert {path.stem for path in VECTORS.glob("*.txt")} == {*RECORDS, "batch_events", "batch_snapshot"}


@pytest.mark.parametrize("kind", Kind)
def test_fixed_parts_have_their_published_sizes(kind: Kind) -> None:
    assert LAYOUT[kind][0].size == SIZES[kind]
    assert SIZES[kind] % 8 == 0


def test_header_sizes() -> None:
    assert HEADER.size == 176
    assert events.HEAD.size == 48


@pytest.mark.parametrize("kind", Kind)
def test_numbers_are_aligned_as_a_c_struct_lays_them_out(kind: Kind) -> None:
    packed = LAYOUT[kind][0].format.lstrip("<")
    assert calcsize("@" + packed) == SIZES[kind], "the kernel programs write C structs: no member may need padding of its own"


def test_discarded_records_are_left_out_and_positions_count_them() -> None:
    first, second = frame(b"a" * 20), frame(b"b" * 8)
    gone = bytearray(frame(b"x" * 16))
    gone[3] |= 0x40
    assert list(frames(first + bytes(gone) + second)) == [(8, 20), (8 + 24 + 24 + 8, 8)]


def test_frames_are_padded_to_eight_bytes() -> None:
    assert [len(frame(b"x" * size)) for size in (0, 1, 8, 9)] == [8, 16, 16, 24]


def test_a_snapshot_in_parts_is_the_snapshot() -> None:
    body = b"".join(frame(bytes([size]) * size) for size in range(1, 60))
    whole = Batch(BatchKind.SNAPSHOT, UUID(int=1), UUID(int=2), 3, 8, 8, 5, 6, 7, 8, b"host", body)
    parts = [decode_batch(encode_batch(part)) for part in split_snapshot(whole, 300)]
    assert b"".join(part.body for part in parts) == body
    assert [(part.part, part.parts) for part in parts] == [(number, len(parts)) for number in range(len(parts))]
    assert max(len(part.body) for part in parts) <= 300 and len(parts) > 5
    assert split_snapshot(whole, len(body)) == [whole]
    assert len(split_snapshot(whole, 1)) == 59


@pytest.mark.parametrize(("kind", "part", "parts"), [(BatchKind.SNAPSHOT, 2, 2), (BatchKind.SNAPSHOT, 1, 0), (BatchKind.EVENTS, 0, 2)])
def test_parts_that_cannot_be(kind: BatchKind, part: int, parts: int) -> None:
    batch = Batch(kind, UUID(int=1), UUID(int=2), 3, 8, 8, 5, 6, 7, 8, b"host", b"", part=part, parts=parts)
    with pytest.raises(DecodeError, match="part"):
        decode_batch(encode_batch(batch))
