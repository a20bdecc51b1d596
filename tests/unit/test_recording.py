"""Recordings: what was written is read again; a cut or broken file gives its good batches first, then one sentence."""

from pathlib import Path
from uuid import UUID

import pytest

from producers.recording import last_snapshot_end, read_recording
from schemas import events
from schemas.batch import HEADER, Batch, BatchKind, encode_batch, frame
from schemas.errors import BadInput, DecodeError
from schemas.events import Kind, Mark


def mark(kind: Mark, value: int) -> bytes:
    """A framed MARK record."""
    return frame(events.MARK.pack(Kind.MARK, events.RECORD_VERSION, 0, 0, 1, 2, 3, 4, 5, 0, kind, value, *(0,) * 7))


def batch(start: int, body: bytes) -> Batch:
    """A batch of events."""
    return Batch(BatchKind.EVENTS, UUID(int=1), UUID(int=2), 3, start, start + len(body), 5, 6, 7, 8, b"host", body)


def written(tmp_path: Path, *batches: Batch) -> Path:
    """A recording that holds them."""
    path = tmp_path / "recording"
    path.write_bytes(b"".join(map(encode_batch, batches)))
    return path


def test_batches_come_back(tmp_path: Path) -> None:
    batches = [batch(0, mark(Mark.CLOCK, 1)), batch(128, b""), batch(128, mark(Mark.CLOCK, 2) * 3)]
    assert list(read_recording(written(tmp_path, *batches))) == batches
    assert list(read_recording(written(tmp_path))) == []


@pytest.mark.parametrize("cut", [1, 100, HEADER.size, HEADER.size + 5])
def test_a_cut_file_gives_the_good_batches_first(tmp_path: Path, cut: int) -> None:
    whole = batch(0, mark(Mark.CLOCK, 1))
    path = written(tmp_path, whole, whole)
    size = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.truncate(size + cut)
    reader = read_recording(path)
    assert next(reader) == whole
    with pytest.raises(DecodeError, match=f"{path}, byte {size}: "):
        next(reader)


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = written(tmp_path, batch(0, mark(Mark.CLOCK, 1)), batch(128, mark(Mark.CLOCK, 2)))
    data = bytearray(path.read_bytes())
    data[HEADER.size + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=r"byte 0: .*checksum does not fit"):
        next(read_recording(path))


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nothing cannot be read: No such file"):
        list(read_recording(tmp_path / "nothing"))
    (tmp_path / "text").write_text("x" * 500)
    with pytest.raises(DecodeError, match="not a Tasktrail batch"):
        list(read_recording(tmp_path / "text"))


def test_the_last_snapshot_end_is_found() -> None:
    assert last_snapshot_end(b"") == 0
    body = mark(Mark.SNAPSHOT_END, 7) + mark(Mark.CLOCK, 9) + mark(Mark.SNAPSHOT_END, 8) + mark(Mark.SNAPSHOT_BEGIN, 99)
    assert last_snapshot_end(body) == 8
