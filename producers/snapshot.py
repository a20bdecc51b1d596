"""Snapshots of all living processes, and the spool directory where they wait for the reader of the ring.

A snapshot is written whole, under its final name, before its SNAPSHOT_END mark goes into the ring: whoever reads the ring picks up
``pending`` files before reading on, so the snapshot is there when its mark comes, whoever died meanwhile.
"""

import os
import pwd
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from producers import host, locks
from producers.bpf import syscall
from producers.ring import Ring
from schemas import events
from schemas.batch import Batch, BatchKind, encode_batch, frame, frames
from schemas.errors import Unavailable
from schemas.identity import TICK_NS

SPOOL = locks.RUN_DIRECTORY / "snapshots"
_READ_BYTES = 1 << 20
ONCE = struct.Struct("<QQQQI4x")
"""Value of the once map: start_ns, creator_start_ns, creator_exec_id, exec_id, creator_tgid (struct once in records.bpf.c)."""
_MEMORY = struct.Struct("<I")
"""Low half of the address of the arguments, which the iterator puts at the end of SEEN's fixed part: with addresses randomized it tells
one image's memory from the next one's."""
_STAT_START, _STAT_ARG_START = 22 - 3, 48 - 3
"""Positions in /proc/PID/stat after the comm, proc(5)."""
_SEEN_FLAGS_AT = struct.calcsize("<BBH")
_SEEN_ARGC_AT = struct.calcsize(events.HEAD.format + "4Q15I")
_SEEN_ARGV_SIZE_AT = struct.calcsize(events.HEAD.format + "4Q17I4x16s")


class RingFull(Unavailable):
    """The ring has no room for a mark: read it first."""


class Source(NamedTuple):
    """What a snapshot is taken from.

    ring        the ring that the marks go into
    ring_id     its name
    mark        puts a mark into the ring: True if it found room
    seen        descriptor of the iterator's link
    once        descriptor of the once map
    epoch       of the programs that are attached
    argv_bytes  argument bytes kept of one process
    skipped     times that the kernel did not run a program, so far
    mask        masks arguments in framed records
    """

    ring: Ring
    ring_id: int
    mark: Callable[..., bool]
    seen: int
    once: int
    epoch: int
    argv_bytes: int
    skipped: int
    mask: Callable[[bytes], bytes]


def take(source: Source, this_host: host.Host, spool: Path = SPOOL) -> Batch:
    """Takes a snapshot, leaves it in the spool and gives it.

    Raises RingFull when the ring has no room for the marks; a file without its end mark goes with the next ``discard``.
    """
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locks.lock_file(spool / ".lock"):
        moment = host.now()
        snapshot_id = moment.boottime_ns
        if not source.mark(events.Mark.SNAPSHOT_BEGIN, snapshot_id):
            raise _full()
        position = source.ring.producer()
        body = source.mask(b"".join(_seen_records(source))) + b"".join(_user_records(source.epoch))
        batch = Batch(
            kind=BatchKind.SNAPSHOT,
            host_id=this_host.host_id,
            boot_id=this_host.boot_id,
            ring_id=source.ring_id,
            start=position,
            end=position,
            boottime_ns=moment.boottime_ns,
            realtime_ns=moment.realtime_ns,
            lost=snapshot_id,
            skipped=source.skipped,
            hostname=this_host.hostname,
            body=body,
        )
        _write(spool, f"{source.ring_id}-{snapshot_id}.batch", encode_batch(batch))
        if not source.mark(events.Mark.SNAPSHOT_END, snapshot_id):
            raise _full()
        return batch


def _full() -> RingFull:
    return RingFull("the ring is full: a snapshot has no room for its marks", "start a reader (`tasktrail run`)")


def _write(directory: Path, name: str, data: bytes) -> None:
    unfinished = directory / f".{name}"
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(directory / name)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _seen_records(source: Source) -> Iterator[bytes]:
    """Framed SEEN records of all processes, argv added."""
    fd = syscall.open_iterator(source.seen)
    parts = []
    try:
        while part := os.read(fd, _READ_BYTES):
            parts.append(part)
    finally:
        os.close(fd)
    body = b"".join(parts)
    for at, size in frames(body):
        yield frame(_with_argv(body[at : at + size], source))


def _with_argv(record: bytes, source: Source) -> bytes:
    """The record with what /proc/PID/cmdline says, if it was still about the same image when that had been read."""
    _, _, _, flags, _, tgid, _, start_ns, exec_id, _ = events.HEAD.unpack_from(record)
    if flags & (events.Flag.KTHREAD | events.Flag.ENDED):
        return patched(record, flags, 0, b"")
    if not source.argv_bytes:
        return patched(record, flags | events.Flag.ARGV_MASKED, 0, b"")
    (memory,) = _MEMORY.unpack_from(record, events.SEEN.size - _MEMORY.size)
    try:
        argv = _read(f"/proc/{tgid}/cmdline")
        stat = _read(f"/proc/{tgid}/stat").rsplit(b")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return patched(record, flags | events.Flag.ARGV_FAULT, 0, b"")
    started, memory_now = int(stat[_STAT_START]), int(stat[_STAT_ARG_START]) & 0xFFFFFFFF
    entry = syscall.lookup(source.once, struct.pack("<I", tgid), ONCE.size)
    known = ONCE.unpack(entry) if entry else None
    same = started == start_ns // TICK_NS and memory_now == memory and (not known or (known[0], known[3]) == (start_ns, exec_id))
    if not same:
        return patched(record, flags | events.Flag.ARGV_FAULT, 0, b"")
    flags |= events.Flag.ARGV_FROM_PROC
    argc = len(events.argv_of(argv))
    if len(argv) > source.argv_bytes:
        flags |= events.Flag.ARGV_CUT
        argv = argv[: source.argv_bytes]
    return patched(record, flags, argc, argv)


def _read(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def patched(record: bytes, flags: int, argc: int, argv: bytes) -> bytes:
    """The record as it came from the kernel, without arguments, with these; and with zeros where it says which memory it is about."""
    fixed = bytearray(record[: events.SEEN.size])
    struct.pack_into("<I", fixed, _SEEN_FLAGS_AT, flags)
    struct.pack_into("<I", fixed, _SEEN_ARGC_AT, argc)
    struct.pack_into("<H", fixed, _SEEN_ARGV_SIZE_AT, len(argv))
    _MEMORY.pack_into(fixed, events.SEEN.size - _MEMORY.size, 0)
    return bytes(fixed) + argv + record[events.SEEN.size :]


def _user_records(epoch: int) -> Iterator[bytes]:
    """Framed USER records of everybody whom the user database lists."""
    boottime_ns = host.now().boottime_ns
    for entry in pwd.getpwall():
        name = os.fsencode(entry.pw_name)
        head = (events.Kind.USER, events.RECORD_VERSION, 0, 0, epoch, os.getpid(), boottime_ns, 0, 0, 0)
        yield frame(events.USER.pack(*head, entry.pw_uid & 0xFFFFFFFF, len(name), 0) + name)


def _files(spool: Path, ring_id: int) -> list[tuple[int, Path]]:
    """Snapshot ids and files of one ring, oldest first."""
    found = []
    for path in spool.glob(f"{ring_id}-*.batch"):
        number = path.stem.partition("-")[2]
        if number.isdigit():
            found.append((int(number), path))
    return sorted(found)


def pending(spool: Path, ring_id: int, after: int = 0) -> list[bytes]:
    """Encoded batches of the snapshots of this ring that were not discarded and have a larger id than ``after``, oldest first."""
    return [path.read_bytes() for number, path in _files(spool, ring_id) if number > after]


def discard(spool: Path, ring_id: int, snapshot_id: int) -> None:
    """Removes this ring's snapshots up to the one whose end mark has been passed for good."""
    for number, path in _files(spool, ring_id):
        if number <= snapshot_id:
            path.unlink(missing_ok=True)
