"""Recordings: files of encoded batches one after another, made from a live ring and read anywhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from producers import host
from producers.recorder import Recorder
from schemas import events, limits
from schemas.batch import HEADER, Batch, BatchKind, batch_size, decode_batch, encode_batch, frames
from schemas.errors import BadInput, DecodeError

CLOCK_PERIOD_NS = 5_000_000_000
"""How often the wall clock is noted: a step of it is known after so long at the latest."""
LOOK_S, LOOK_SMALL_S, SMALL_BYTES = 0.1, 0.01, 16 << 20
"""Longest time that a record waits in the ring, and in one that is smaller than that. Each look writes what came to the disk, which
costs more than the writing; a small ring is full before a long one."""
_MARK = events.MARK


class Amount(NamedTuple):
    """How much a recording holds so far."""

    batches: int
    snapshots: int
    ring_bytes: int


def next_batch(recorder: Recorder, this_host: host.Host) -> Batch:
    """What lies finished in the ring after the consumer's position, as one batch, possibly an empty one. Nothing is released."""
    moment = host.now()
    counters = recorder.counters()
    start, end, body = recorder.ring.stretch(limits.BATCH_BYTES_MAX)
    return Batch(
        kind=BatchKind.EVENTS,
        host_id=this_host.host_id,
        boot_id=this_host.boot_id,
        ring_id=recorder.ring_id,
        start=start,
        end=end,
        boottime_ns=moment.boottime_ns,
        realtime_ns=moment.realtime_ns,
        lost=counters.lost,
        skipped=counters.skipped,
        hostname=this_host.hostname,
        body=body,
        drained=end == recorder.ring.producer(),
    )


def last_snapshot_end(body: bytes) -> int:
    """Id of the last snapshot whose end mark lies in the body, 0 if none does."""
    last = 0
    for at, size in frames(body):
        if size == _MARK.size and body[at] == events.Kind.MARK:
            values = _MARK.unpack_from(body, at)
            if values[10] == events.Mark.SNAPSHOT_END:
                last = values[11]
    return last


class Writer:
    """Moves a ring's content into a file: the ring is released only after the file has the bytes safely."""

    def __init__(self, recorder: Recorder, file: BinaryIO) -> None:
        self._recorder, self._file = recorder, file
        self._host = host.here(recorder.state_dir)
        self._last_snapshot = 0
        self.amount = Amount(0, 0, 0)

    def step(self) -> bool:
        """Writes waiting snapshots and one batch; False if the ring had nothing."""
        batch = next_batch(self._recorder, self._host)
        # Looked for after the ring was read: the snapshot of every end mark that was in it lies in the spool by now.
        snapshots = self._recorder.pending_snapshots(self._last_snapshot)
        for encoded in snapshots:
            self._file.write(encoded)
            self._last_snapshot = decode_batch(encoded).lost
        if not snapshots and not batch.body:
            return False
        if batch.body:
            self._file.write(encode_batch(batch))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._recorder.ring.release(batch.end)
        if ended := last_snapshot_end(batch.body):
            self._recorder.discard_snapshots(ended)
        count, taken, size = self.amount
        self.amount = Amount(count + bool(batch.body), taken + len(snapshots), size + batch.end - batch.start)
        return True


def write_recording(recorder: Recorder, path: Path, wait: Callable[[float], bool]) -> Amount:
    """Writes into ``path`` what waits in the ring, a snapshot, and what comes until ``wait(seconds)`` returns True.

    The caller holds the recorder's lock. The ring is looked at ten times a second, a small one a hundred times, and is
    emptied on while it holds a whole batch.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        writer = Writer(recorder, file)
        for _ in range(recorder.ring.size_bytes // limits.BATCH_BYTES_MAX + 2):  # a full ring has no room for the marks of a snapshot
            if not writer.step():
                break
        recorder.clock()
        recorder.snapshot()
        ring, stop, clocked_ns = recorder.ring, False, host.now().boottime_ns
        look_s = LOOK_SMALL_S if ring.size_bytes < SMALL_BYTES else LOOK_S
        while not stop:
            more = writer.step() and ring.producer() - ring.consumer() >= limits.BATCH_BYTES_MAX
            stop = wait(0.0 if more else look_s)
            recorder.refresh()
            if (now_ns := host.now().boottime_ns) >= clocked_ns + CLOCK_PERIOD_NS:
                recorder.clock()
                clocked_ns = now_ns
        recorder.clock()
        while writer.step():
            pass
        return writer.amount


def read_recording(path: Path) -> Iterator[Batch]:
    """The batches of a recording in order.

    Raises BadInput when the file cannot be read; DecodeError at the place where it is no recording or ends in the middle of a
    batch, after the good batches before it were given.
    """
    try:
        file = path.open("rb")
    except OSError as failure:
        raise BadInput(
            f"{path} cannot be read: {os.strerror(failure.errno or 0)}", "name a file that `tasktrail record dump` made"
        ) from None
    with file:
        at = 0
        while header := file.read(HEADER.size):
            try:
                size = batch_size(header)
                data = header + file.read(size - len(header))
                if len(data) < size:
                    raise DecodeError(f"the last batch has {len(data)} of {size} bytes: the recording was cut off")
                batch = decode_batch(data)
            except DecodeError as failure:
                raise DecodeError(f"{path}, byte {at}: {failure.problem}", failure.cure) from None
            yield batch
            at += size
