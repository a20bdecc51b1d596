"""The batch: a stretch of one host's ring, or a snapshot of its living processes, as it is shipped, kept and read.

A fixed header of 176 bytes, then a body of framed records exactly as they lie in the kernel's ring: each an 8-byte
``struct bpf_ringbuf_hdr`` (length, where bit 31 means "not written yet" and bit 30 "discarded"; then the page offset, not used),
the record, and padding to a multiple of 8.

``start`` and ``end`` of an events batch are ring positions: gap-free byte counts since the ring was made, so two batches tell
exactly what is missing or repeated between them. A snapshot batch holds SEEN and USER records; both its positions are where the
ring stood when its SNAPSHOT_BEGIN mark had been written, and ``snapshot_id`` says which SNAPSHOT_END mark it belongs to. It is
shipped before the events batch that holds this mark. A snapshot that is larger than a message is shipped in parts, in their order.
"""

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from schemas import limits
from schemas.errors import DecodeError

MAGIC = b"TTB1"
VERSION = 1

HEADER = struct.Struct("<4sHBBII16s16sQQQQQQQIHH64s")
"""magic, version, kind, 1 if drained, header bytes, body bytes, host_id, boot_id, ring_id, start, end, boottime_ns, realtime_ns,
lost or snapshot_id, skipped, CRC-32 of the body, part, parts, hostname (NUL padded)."""

RING_HEADER = limits.RING_RECORD_HEADER_BYTES
BUSY = 0x80000000
DISCARD = 0x40000000
_LENGTH = 0x3FFFFFFF
_FRAME = struct.Struct("<II")


class BatchKind(IntEnum):
    """What a batch holds."""

    EVENTS = 1
    SNAPSHOT = 2


class Batch(NamedTuple):
    """One batch.

    kind         EVENTS or SNAPSHOT
    host_id      which installation (producers.host)
    boot_id      which boot of it (/proc/sys/kernel/random/boot_id)
    ring_id      which ring: the boottime in nanoseconds at which it was made, so later rings of one boot have larger ids
    start        ring position of the body's first byte
    end          ring position after the body's last byte
    boottime_ns  CLOCK_BOOTTIME when the batch was made
    realtime_ns  CLOCK_REALTIME at the same moment
    lost         EVENTS: records of fork, exec and exit that found no room since the ring was made; SNAPSHOT: the snapshot's id
    skipped      times that the kernel did not run one of our programs (bpf_prog_info.recursion_misses) since the ring was made
    hostname     the host's name, for showing
    body         framed records
    drained      nothing that happened more than a moment before boottime_ns is still in the ring: boottime_ns was read before the ring
                 was, and all that was there is in this batch or an earlier one. Only then may a reader take boottime_ns for "now".
    part, parts  SNAPSHOT: which part of how many this is, from 0; whole records in each
    """

    kind: BatchKind
    host_id: UUID
    boot_id: UUID
    ring_id: int
    start: int
    end: int
    boottime_ns: int
    realtime_ns: int
    lost: int
    skipped: int
    hostname: bytes
    body: bytes
    drained: bool = False
    part: int = 0
    parts: int = 1


def encode_batch(batch: Batch) -> bytes:
    """The batch as bytes: header, then body."""
    return (
        HEADER.pack(
            MAGIC,
            VERSION,
            batch.kind,
            batch.drained,
            HEADER.size,
            len(batch.body),
            batch.host_id.bytes,
            batch.boot_id.bytes,
            batch.ring_id,
            batch.start,
            batch.end,
            batch.boottime_ns,
            batch.realtime_ns,
            batch.lost,
            batch.skipped,
            zlib.crc32(batch.body),
            batch.part,
            batch.parts if batch.parts > 1 else 0,
            batch.hostname[:64],
        )
        + batch.body
    )


def batch_size(header: bytes) -> int:
    """Bytes of the whole batch whose header these bytes begin with. Raises DecodeError when they are no header."""
    if len(header) < HEADER.size:
        raise DecodeError(f"batch header of {len(header)} bytes, expected {HEADER.size}")
    magic, version, kind, drained, header_bytes, body_bytes = HEADER.unpack_from(header)[:6]
    if magic != MAGIC:
        raise DecodeError(f"not a Tasktrail batch: it begins with {magic!r}")
    if version != VERSION or header_bytes != HEADER.size:
        raise DecodeError(f"batch version {version}: this program reads version {VERSION}", "update Tasktrail here")
    limit = limits.SNAPSHOT_BYTES_MAX if kind == BatchKind.SNAPSHOT else limits.BATCH_BYTES_MAX
    if drained > 1:
        raise DecodeError(f"batch header: byte 7 is {drained}, expected 0 or 1")
    if body_bytes > limit:
        raise DecodeError(f"batch body of {body_bytes} bytes, the limit is {limit}")
    return HEADER.size + int(body_bytes)


def decode_batch(data: bytes) -> Batch:
    """The batch that ``data`` holds, body not looked into but for its checksum.

    Raises DecodeError when the bytes are no batch of this version; any other exception is a bug here.
    """
    size = batch_size(data)
    if len(data) != size:
        raise DecodeError(f"batch of {len(data)} bytes, its header says {size}")
    values = HEADER.unpack_from(data)
    kind, host_id, boot_id = values[2], values[6], values[7]
    ring_id, start, end, boottime_ns, realtime_ns, lost, skipped, crc, part, parts, hostname = values[8:]
    body = data[HEADER.size :]
    if kind not in (BatchKind.EVENTS, BatchKind.SNAPSHOT):
        raise DecodeError(f"batch kind {kind} is not known")
    if kind == BatchKind.EVENTS and end - start != len(body):
        raise DecodeError(f"batch from {start} to {end} has a body of {len(body)} bytes")
    if zlib.crc32(body) != crc:
        raise DecodeError(f"batch from {start} to {end}: its checksum does not fit its body")
    parts = parts or 1
    if part >= parts or (kind == BatchKind.EVENTS and parts > 1):
        raise DecodeError(f"batch says that it is part {part} of {parts}")
    name = hostname.rstrip(b"\0")
    return Batch(
        BatchKind(kind),
        UUID(bytes=host_id),
        UUID(bytes=boot_id),
        ring_id,
        start,
        end,
        boottime_ns,
        realtime_ns,
        lost,
        skipped,
        name,
        body,
        bool(values[3]),
        part,
        parts,
    )


def split_snapshot(batch: Batch, body_bytes_max: int) -> list[Batch]:
    """The snapshot in parts whose bodies have at most that many bytes, cut between records; itself if it fits.

    Raises DecodeError when the body is not well framed. A single record that is larger than a part makes a part of its own.
    """
    cuts, begin, end = [0], 0, 0
    for at, size in frames(batch.body):
        following = at + (size + 7 & ~7)
        if following - begin > body_bytes_max and end > begin:
            begin = end
            cuts.append(begin)
        end = following
    cuts.append(len(batch.body))
    bodies = [batch.body[start:stop] for start, stop in pairwise(cuts)]
    return [batch._replace(body=body, part=part, parts=len(bodies)) for part, body in enumerate(bodies)]


def frame(record: bytes) -> bytes:
    """The record as it lies in a body: length, page offset, bytes, padding."""
    return _FRAME.pack(len(record), 0) + record + bytes(-len(record) % 8)


def frames(body: bytes) -> Iterator[tuple[int, int]]:
    """Offset and size of each record in the body, discarded ones left out.

    Raises DecodeError where the framing does not fit the body; what was given out before that is good.
    """
    at, end = 0, len(body)
    unpack = _FRAME.unpack_from
    last = end - RING_HEADER
    while at <= last:
        first = at + RING_HEADER
        size = unpack(body, at)[0]
        following = first + (size + 7 & -8)
        if following <= end:
            yield first, size
            at = following
            continue
        # One of the two high bits is set, which makes the length too large for any body; or it is too large without.
        if size & BUSY:
            raise DecodeError(f"record at byte {at} of the body was not finished")
        following = first + ((size & _LENGTH) + 7 & -8)
        if following > end:
            raise DecodeError(f"record of {size & _LENGTH} bytes at byte {at} goes beyond the body of {end}")
        at = following
    if at != end:
        raise DecodeError(f"body ends inside a record header at byte {at}")
