"""A queue on disk for what cannot be sent now: whole records, in order, each under checksums, the oldest thrown away when it is full.

    00000000000000000000.seg    records from the one with this number on
    cursor                      number of the first record that was not delivered

Records (producers.segments) are numbered without gaps. Whatever moment the machine stops, the next start finds the whole records up to
some point, cuts off what was half written, and counts what was damaged meanwhile. Delivered records may be given out again after a
stop; none that was kept is left out.
"""

import contextlib
import errno
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from producers.segments import encode_record, padded, scan

SEGMENT_BYTES = 8 << 20
SEGMENTS_MIN = 8
"""The room is divided into this many segments at least: as much as an eighth goes at once when it is full."""
_CURSOR = struct.Struct("<QI")
_SUFFIX = ".seg"

Summary = Callable[[Iterable[bytes]], list[bytes]]
"""Gives records that stand in for those that are thrown away, at most as many and much smaller; it goes through all of them."""


class Disk:
    """The calls that change files; tests put one in its place that fails or stops at any of them."""

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        """pwrite(2): how many bytes were written."""
        return os.pwrite(fd, data, at)

    def truncate(self, fd: int, size: int) -> None:
        """ftruncate(2)."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """fdatasync(2)."""
        os.fdatasync(fd)

    def create(self, path: Path) -> int:
        """Descriptor of a new, empty file that only its owner may read."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def rename(self, old: Path, new: Path) -> None:
        """rename(2)."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """unlink(2), if it is there."""
        path.unlink(missing_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory last."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@dataclass(slots=True)
class _Segment:
    """One file: its first record's number, the number after its last one's, its bytes."""

    path: Path
    first: int
    end: int
    size: int


@dataclass(slots=True)
class Counts:
    """What became of records other than delivery, since this process began.

    dropped        thrown away because the spool was full; dropped_bytes of payload
    damaged        found unreadable, by checksum or by a gap in the numbers
    cut_bytes      half a record at the end, cut off at the start
    """

    dropped: int = 0
    dropped_bytes: int = 0
    damaged: int = 0
    cut_bytes: int = 0


def nothing(payloads: Iterable[bytes]) -> list[bytes]:
    """No summary; the records are gone through all the same, since they are counted as they go."""
    for _ in payloads:
        pass
    return []


class Spool:
    """See the module. One process at a time; every call may raise OSError, after which nothing is half done."""

    def __init__(
        self,
        directory: Path,
        bytes_max: int,
        summary: Summary = nothing,
        sync: bool = True,
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
    ) -> None:
        """``bytes_max`` is what all segments together may take; ``sync`` makes ``sync()`` wait for the disk."""
        self.counts = Counts()
        self._directory, self._bytes_max, self._summary, self._sync = directory, bytes_max, summary, sync
        self._segment_bytes = max(4096, min(segment_bytes, bytes_max // SEGMENTS_MIN))
        self._disk = disk or Disk()
        self._segments: deque[_Segment] = deque()
        self._writing: int | None = None
        self._reading: tuple[Path, int] | None = None
        self._next: tuple[int, bytes] | None = None
        self._place: tuple[_Segment, int] | None = None
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._cursor_fd = os.open(directory / "cursor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.delivered_to = self._read_cursor()
        self._open_segments()
        self.end = max([self.delivered_to, *(segment.end for segment in self._segments)])
        self.unsent_from = self.delivered_to
        self._forget_delivered()

    # -- what there is --

    @property
    def records(self) -> int:
        """Records that are not delivered, or were lost here."""
        return self.end - self.delivered_to if self._segments else 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self._segments)

    def _read_cursor(self) -> int:
        data = os.pread(self._cursor_fd, _CURSOR.size, 0)
        if len(data) < _CURSOR.size:
            return 0
        number, check = _CURSOR.unpack(data)
        return int(number) if zlib.crc32(data[:8]) == check else 0

    def _open_segments(self) -> None:
        """Look through all segments: cut off what is half written at the end of the last, count what is damaged, undo a drop that was
        interrupted."""
        for path in self._directory.glob(".*" + _SUFFIX):
            self._disk.unlink(path)
        paths = sorted(path for path in self._directory.glob("*" + _SUFFIX) if path.stem.isdigit())
        for place, path in enumerate(paths):
            first = int(path.stem)
            if self._segments and first < self._segments[-1].end:
                self._disk.unlink(path)  # it would have stood in for records that are all there
                continue
            if self._segments:
                self.counts.damaged += max(0, first - max(self._segments[-1].end, self.delivered_to))
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._open_segment(path, first, fd, place == len(paths) - 1)
            finally:
                os.close(fd)

    def _open_segment(self, path: Path, first: int, fd: int, last: bool) -> None:
        size, whole, end = os.fstat(fd).st_size, 0, first
        for at, number, payload in scan(fd, size):
            if payload is None or number < end:
                continue
            self.counts.damaged += max(0, number - max(end, self.delivered_to))
            end, whole = number + 1, at + padded(len(payload))
        if last and whole < size:
            # Half a record, or one whose ring stretch was not released; damage here cannot be told from it.
            self.counts.cut_bytes += size - whole
            self._disk.truncate(fd, whole)
            size = whole
        if size:
            self._segments.append(_Segment(path, first, end, size))
        else:
            self._disk.unlink(path)

    # -- writing --

    def append(self, payload: bytes) -> int:
        """Keep a record behind all others and give its number; it lasts only after ``sync``. Throws away the oldest if there is no room."""
        data = encode_record(self.end, payload)
        if len(data) > self._bytes_max // 2:
            raise OSError(errno.EFBIG, f"a record of {len(payload)} bytes does not fit a spool of {self._bytes_max}")
        while self.size_bytes + len(data) > self._bytes_max and self._segments:
            self._drop_oldest()
        if self._writing is None or self._segments[-1].size >= self._segment_bytes:
            self._roll()
        assert self._writing is not None
        segment = self._segments[-1]
        self._write(self._writing, data, segment.size)
        segment.size += len(data)
        segment.end = self.end = self.end + 1
        return self.end - 1

    def _write(self, fd: int, data: bytes, at: int) -> None:
        """All of it, or nothing and OSError."""
        view, done = memoryview(data), 0
        try:
            while done < len(data):
                done += self._disk.write(fd, view[done:], at + done)
        except OSError:
            self._disk.truncate(fd, at)
            raise

    def _roll(self) -> None:
        """Begin a new segment."""
        self._close_writing()
        path = self._path(self.end)
        self._writing = self._disk.create(path)
        self._segments.append(_Segment(path, self.end, self.end, 0))
        if self._sync:
            self._disk.sync_directory(self._directory)

    def _close_writing(self) -> None:
        if self._writing is not None:
            if self._sync:
                self._disk.sync(self._writing)
            os.close(self._writing)
            self._writing = None

    def sync(self) -> None:
        """Returns when all that was appended lasts."""
        if self._writing is not None and self._sync:
            self._disk.sync(self._writing)

    def _path(self, first: int) -> Path:
        return self._directory / f"{first:020}{_SUFFIX}"

    # -- the oldest goes --

    def _drop_oldest(self) -> None:
        """Throw away the oldest half a segment or more, and put the summary of all of it in its place."""
        gone: list[_Segment] = []
        for segment in self._segments:
            gone.append(segment)
            if sum(one.size for one in gone) >= self._segment_bytes // 2:
                break
        if len(gone) == len(self._segments):
            self._close_writing()
        before = Counts()
        standing = self._summary(payload for segment in gone for payload in self._undelivered(segment, before))
        if standing:
            self._replace(gone, gone[-1].end - len(standing), standing)
        else:
            self._remove(gone)
        self.counts.dropped += before.dropped - len(standing)
        self.counts.dropped_bytes += before.dropped_bytes - sum(map(len, standing))
        self._pass_over()

    def _undelivered(self, segment: _Segment, counted: Counts) -> Iterator[bytes]:
        """Payloads of a segment's records that are not delivered, counted as dropped."""
        fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for _, number, payload in scan(fd, segment.size):
                if payload is not None and number >= self.delivered_to:
                    counted.dropped += 1
                    counted.dropped_bytes += len(payload)
                    yield payload
        finally:
            os.close(fd)

    def _replace(self, gone: list[_Segment], first: int, standing: list[bytes]) -> None:
        """The new segment is whole before the first old one goes; found beside them it is the one to go (``_open_segments``)."""
        data = b"".join(encode_record(first + at, payload) for at, payload in enumerate(standing))
        path = self._path(first)
        unfinished = path.with_name("." + path.name)
        fd = self._disk.create(unfinished)
        try:
            self._write(fd, data, 0)
            if self._sync:
                self._disk.sync(fd)
        except OSError:
            self._disk.unlink(unfinished)
            raise
        finally:
            os.close(fd)
        self._disk.rename(unfinished, path)
        if self._sync:
            self._disk.sync_directory(self._directory)
        self._remove(gone, keep=path)
        self._segments.appendleft(_Segment(path, first, first + len(standing), len(data)))

    def _remove(self, gone: list[_Segment], keep: Path | None = None) -> None:
        # The newest first: those that are left when this is interrupted are summaries that stand on their own.
        for segment in reversed(gone):
            if segment.path != keep:
                self._disk.unlink(segment.path)
        for _ in gone:
            self._segments.popleft()
        self._stop_reading()

    # -- reading --

    def peek(self) -> tuple[int, bytes] | None:
        """Number and payload of the first record that was not sent, None if all were."""
        while self._next is None and self.unsent_from < self.end and self._segments:
            segment = next((one for one in self._segments if one.end > self.unsent_from), None)
            if segment is None:
                break
            self._next = self._read(segment)
            if self._next is None:
                self.unsent_from = segment.end  # nothing readable is left in it; its records are counted
        return self._next

    def _read(self, segment: _Segment) -> tuple[int, bytes] | None:
        """The first good record of the segment from ``unsent_from`` on."""
        if self._reading is None or self._reading[0] != segment.path:
            self._stop_reading()
            self._reading = (segment.path, os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC))
        at = self._place[1] if self._place is not None and self._place[0] is segment else 0
        for place, number, payload in scan(self._reading[1], segment.size, at):
            if payload is not None and number >= self.unsent_from:
                self._place = (segment, place + padded(len(payload)))
                return number, payload
        return None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
        self._reading = self._next = self._place = None

    def advance(self) -> None:
        """The record that ``peek`` gave was sent."""
        assert self._next is not None
        self.unsent_from, self._next = self._next[0] + 1, None

    def skip_to(self, number: int) -> None:
        """The records before ``number`` were sent otherwise."""
        self.unsent_from, self._next = max(self.unsent_from, number), None

    def rewind(self) -> None:
        """What was sent and not delivered is to be sent again."""
        self.unsent_from = self.delivered_to
        self._stop_reading()

    def _pass_over(self) -> None:
        """After a drop: do not wait for records that are gone."""
        first = self._segments[0].first if self._segments else self.end
        self.delivered_to, self.unsent_from = max(self.delivered_to, first), max(self.unsent_from, first)

    def delivered(self, number: int) -> None:
        """All records up to this one have arrived; segments that hold only such ones go."""
        if number < self.delivered_to:
            return
        self.delivered_to = number + 1
        self.unsent_from = max(self.unsent_from, self.delivered_to)
        position = struct.pack("<Q", self.delivered_to)
        with contextlib.suppress(OSError):  # a cursor that stays behind means that some are sent once more
            self._disk.write(self._cursor_fd, position + struct.pack("<I", zlib.crc32(position)), 0)
        self._forget_delivered()

    def _forget_delivered(self) -> None:
        while self._segments and self._segments[0].end <= self.delivered_to:
            if len(self._segments) == 1:
                self._close_writing()
            self._stop_reading()
            self._disk.unlink(self._segments.popleft().path)

    def close(self) -> None:
        """Let go; what is in it stays."""
        self._close_writing()
        self._stop_reading()
        os.close(self._cursor_fd)
