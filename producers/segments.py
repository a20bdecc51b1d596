"""Records in a segment of the spool: a header of 24 bytes, the payload, and padding to a multiple of 8.

    <4sIQII   magic, payload bytes, number, CRC-32 of the payload, CRC-32 of the 20 header bytes before

What lies behind damage is found again by its magic and its header's checksum.
"""

import os
import struct
import zlib
from collections.abc import Iterator

HEADER = struct.Struct("<4sIQII")
MAGIC = b"TTR1"
_SCAN_BYTES = 1 << 20


def padded(size: int) -> int:
    """Bytes that a payload of that size takes in a segment."""
    return HEADER.size + (size + 7 & ~7)


def encode_record(number: int, payload: bytes) -> bytes:
    """The record as it lies in a segment."""
    begin = HEADER.pack(MAGIC, len(payload), number, zlib.crc32(payload), 0)[:-4]
    return begin + struct.pack("<I", zlib.crc32(begin)) + payload + bytes(-len(payload) % 8)


def _header_at(fd: int, at: int, size: int) -> tuple[int, int, int] | None:
    """Number, payload bytes and payload checksum of the record whose header lies there, None if there is none."""
    data = os.pread(fd, HEADER.size, at)
    if len(data) < HEADER.size:
        return None
    magic, length, number, crc, check = HEADER.unpack(data)
    if magic != MAGIC or zlib.crc32(data[:-4]) != check or at + padded(length) > size:
        return None
    return number, length, crc


def _find_header(fd: int, at: int, size: int) -> int:
    """Where the next header lies, ``size`` if there is none."""
    while at < size:
        data = os.pread(fd, _SCAN_BYTES + len(MAGIC) - 1, at)
        found = data.find(MAGIC)
        while found >= 0:
            if _header_at(fd, at + found, size) is not None:
                return at + found
            found = data.find(MAGIC, found + 1)
        at += _SCAN_BYTES
    return size


def scan(fd: int, size: int, at: int = 0) -> Iterator[tuple[int, int, bytes | None]]:
    """Place, number and payload of each record from ``at`` on; None as payload where its checksum does not fit. What is no record is
    passed over."""
    while at < size:
        header = _header_at(fd, at, size)
        if header is None:
            at = _find_header(fd, at + 1, size)
            continue
        number, length, crc = header
        payload = os.pread(fd, length, at + HEADER.size)
        yield at, number, payload if len(payload) == length and zlib.crc32(payload) == crc else None
        at += padded(length)
