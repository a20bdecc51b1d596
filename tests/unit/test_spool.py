"""The spool: order, room, damage, and a stop at any moment."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.segments import HEADER, encode_record, padded
from producers.spool import Disk, Spool, nothing

ROOM = 1 << 20


def drain(spool: Spool) -> list[bytes]:
    """All that is not delivered, sent and delivered."""
    found = []
    while (record := spool.peek()) is not None:
        spool.advance()
        spool.delivered(record[0])
        found.append(record[1])
    return found


def payload(number: int, size: int = 100) -> bytes:
    """A payload that names its number."""
    return (b"%08d" % number).ljust(size, b".")


def segments(directory: Path) -> list[Path]:
    """The segments' files in order."""
    return sorted(directory.glob("*.seg"))


def test_records_come_out_as_they_went_in_over_restarts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    assert spool.peek() is None and spool.records == 0
    assert [spool.append(payload(number, number)) for number in range(30)] == list(range(30))
    spool.sync()
    spool.close()
    again = Spool(tmp_path, ROOM)
    assert again.records == 30
    again.append(b"later")
    assert drain(again) == [payload(number, number) for number in range(30)] + [b"later"]
    assert again.records == 0 and not segments(tmp_path) and again.size_bytes == 0
    again.close()
    assert Spool(tmp_path, ROOM).append(b"next") == 31


def test_what_was_sent_and_not_delivered_is_sent_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for number in range(6):
        spool.append(payload(number))
    for number in range(4):
        assert spool.peek() == (number, payload(number))
        spool.advance()
    spool.delivered(1)
    spool.rewind()
    assert spool.peek() == (2, payload(2))
    spool.close()
    assert Spool(tmp_path, ROOM).peek() == (2, payload(2))


def test_what_was_sent_otherwise_is_skipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for number in range(3):
        spool.append(payload(number))
    spool.skip_to(2)
    assert spool.peek() == (2, payload(2))
    spool.rewind()
    assert spool.peek() == (0, payload(0))


def test_delivered_segments_go(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 80_000, segment_bytes=4096)
    for number in range(200):
        spool.append(payload(number, 200))
    before = len(segments(tmp_path))
    spool.delivered(150)
    assert before > 5 and len(segments(tmp_path)) < before - 5
    assert drain(spool) == [payload(number, 200) for number in range(151, 200)]


def test_the_oldest_goes_when_it_is_full_and_is_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40_000)
    for number in range(1000):
        spool.append(payload(number, 300))
        assert spool.size_bytes <= 40_000 == spool._bytes_max
        assert sum(path.stat().st_size for path in segments(tmp_path)) == spool.size_bytes
    left = drain(spool)
    assert left == [payload(number, 300) for number in range(1000 - len(left), 1000)]
    assert len(left) > 80
    assert spool.counts.dropped == 1000 - len(left) and spool.counts.dropped_bytes == 300 * spool.counts.dropped


def last_of(payloads: Iterable[bytes]) -> list[bytes]:
    """A summary: the number of the last record."""
    numbers = [one.removeprefix(b"until ")[:8] for one in payloads]
    return [b"until " + numbers[-1]] if numbers else []


def test_a_summary_stands_where_the_oldest_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40_000, last_of)
    for number in range(1000):
        spool.append(payload(number, 300))
    spool.close()
    again = Spool(tmp_path, 40_000, last_of)
    first, *left = drain(again)
    assert left == [payload(number, 300) for number in range(1000 - len(left), 1000)]
    assert first == b"until %08d" % (1000 - len(left) - 1)
    assert spool.counts.dropped == 1000 - len(left) - 1
    assert (again.counts.damaged, again.counts.cut_bytes) == (0, 0)


def test_a_drop_of_what_was_sent_leaves_no_record_to_wait_for(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40_000, last_of)
    for number in range(50):
        spool.append(payload(number, 300))
    for _ in range(20):
        spool.peek()
        spool.advance()
    for number in range(50, 300):
        spool.append(payload(number, 300))
    spool.delivered(3)  # of a segment that is gone by now
    spool.rewind()
    left = drain(spool)
    assert left[0].startswith(b"until") and left[1:] == [payload(number, 300) for number in range(301 - len(left), 300)]


def test_a_record_that_never_fits_is_refused_and_drops_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 40_000)
    spool.append(b"small")
    with pytest.raises(OSError, match="does not fit"):
        spool.append(bytes(30_000))
    assert drain(spool) == [b"small"]


def written(directory: Path, count: int = 12, size: int = 50) -> Path:
    """A spool with one segment of records; gives the segment."""
    spool = Spool(directory, ROOM)
    for number in range(count):
        spool.append(payload(number, size))
    spool.close()
    return segments(directory)[0]


def test_a_segment_cut_at_any_byte_keeps_its_whole_records(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    each = padded(50)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        (tmp_path / "cursor").unlink()
        spool = Spool(tmp_path, ROOM)
        assert spool.counts.cut_bytes == size % each
        assert spool.append(b"next") == size // each
        assert drain(spool) == [payload(number, 50) for number in range(size // each)] + [b"next"]
        spool.close()


@settings(deadline=None)
@given(st.integers(0, 12 * padded(50) - 1), st.integers(0, 7))
def test_a_flipped_bit_costs_one_record_and_is_counted(at: int, bit: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = written(directory)
        damaged = bytearray(path.read_bytes())
        damaged[at] ^= 1 << bit
        path.write_bytes(damaged)
        spool = Spool(directory, ROOM)
        hit = at // padded(50)
        good = [payload(number, 50) for number in range(12)]
        if at % padded(50) >= HEADER.size + 50:  # padding holds nothing
            assert drain(spool) == good
        else:
            assert drain(spool) == good[:hit] + good[hit + 1 :]
            assert spool.counts.damaged == (1 if hit < 11 else 0) and (spool.counts.cut_bytes == (padded(50) if hit == 11 else 0))
        spool.close()


def test_damage_in_the_middle_segment_is_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 80_000, segment_bytes=4096)
    for number in range(60):
        spool.append(payload(number, 200))
    spool.close()
    middle = segments(tmp_path)[1]
    with middle.open("r+b") as file:
        file.truncate(middle.stat().st_size - 10)
    again = Spool(tmp_path, 80_000, segment_bytes=4096)
    lost = int(segments(tmp_path)[2].stem) - 1
    assert again.counts.damaged == 1
    assert drain(again) == [payload(number, 200) for number in range(60) if number != lost]


def test_a_payload_that_looks_like_records_is_read_as_one(tmp_path: Path) -> None:
    nested = b"".join(encode_record(number, b"inside") for number in range(5))
    spool = Spool(tmp_path, ROOM)
    for one in (nested, b"behind"):
        spool.append(one)
    spool.close()
    assert drain(Spool(tmp_path, ROOM)) == [nested, b"behind"]


def test_a_damaged_cursor_means_from_the_first_record_on(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for number in range(5):
        spool.append(payload(number))
    spool.delivered(2)
    spool.close()
    (tmp_path / "cursor").write_bytes(b"\x7f" * 12)
    assert Spool(tmp_path, ROOM).peek() == (0, payload(0))


class Stop(BaseException):
    """The machine stopped."""


class FailingDisk(Disk):
    """Does ``after`` calls, then fails: stops the machine, or has no room until ``after`` is set anew."""

    def __init__(self, after: int, failure: BaseException, part: float = 0.5) -> None:
        self.after, self.failure, self.part = after, failure, part

    def _call(self) -> None:
        self.after -= 1
        if self.after < 0:
            raise self.failure

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        """A part of it gets there before the failure."""
        try:
            self._call()
        except BaseException:
            super().write(fd, bytes(data)[: int(len(data) * self.part)], at)
            raise
        return super().write(fd, data, at)

    def create(self, path: Path) -> int:
        """The file may be there before the failure."""
        self._call()
        return super().create(path)

    def rename(self, old: Path, new: Path) -> None:
        """All or nothing."""
        self._call()
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        """All or nothing."""
        self._call()
        super().unlink(path)

    def sync(self, fd: int) -> None:
        """It may stop here too."""
        self._call()


def work(spool: Spool, kept: list[int], count: int) -> int:
    """Append and deliver; ``kept`` gets what was kept for good; gives the first number that is not delivered."""
    delivered = 0
    for number in range(count):
        spool.append(payload(number, 400))
        spool.sync()
        kept.append(number)
        if number % 9 == 8:
            for _ in range(2):
                record = spool.peek()
                assert record is not None
                spool.advance()
                spool.delivered(record[0])
                delivered = record[0] + 1
    return delivered


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("summary", [nothing, last_of])
def test_a_stop_at_any_call_loses_nothing_that_was_kept(tmp_path: Path, part: float, summary: object) -> None:
    make = last_of if summary is last_of else nothing
    stops = 0
    for after in range(2, 100_000):
        directory = tmp_path / str(after)
        disk, kept = FailingDisk(after, Stop(), part), list[int]()
        try:
            spool = Spool(directory, 18_000, make, disk=disk)
            work(spool, kept, 54)
            assert spool.counts.dropped
            break
        except Stop:
            stops += 1
        again = Spool(directory, 18_000, make)
        found = [int(one[:8]) for one in drain(again) if not one.startswith(b"until")]
        assert found == list(range(found[0], found[-1] + 1)) if found else not kept
        assert not kept or found[-1] >= kept[-1], f"stopped at call {after}"
        # No more than an eighth is gone at once, so most of what fits is there.
        assert len(found) >= min(len(kept), 20) - 2 * (len(kept) // 9)
    assert stops > 100


@pytest.mark.parametrize("part", [0.0, 0.7])
def test_a_full_disk_takes_nothing_by_halves(tmp_path: Path, part: float) -> None:
    for after in range(1, 60):
        disk = FailingDisk(after, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), part)
        directory, kept = tmp_path / str(after), list[int]()
        spool = Spool(directory, ROOM, disk=disk)
        for number in range(40):
            try:
                spool.append(payload(number))
                kept.append(number)
            except OSError:
                disk.after = 1_000_000
        disk.after = 1_000_000
        assert drain(spool) == [payload(number) for number in kept]
        spool.close()
        assert spool.counts.damaged == 0
