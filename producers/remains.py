"""What stays in the log of batches that a full spool throws away."""

from collections.abc import Iterable
from uuid import UUID

from schemas.batch import Batch, BatchKind, decode_batch, encode_batch, frames
from schemas.errors import DecodeError
from schemas.events import HEAD

_TIME_NS_MAX = (1 << 64) - 1
"""The latest time that a batch can bear."""


def ends(payloads: Iterable[bytes]) -> list[bytes]:
    """Stand-ins for batches that are thrown away: for each ring an empty batch where its last one ended."""
    last: dict[tuple[UUID, UUID, int], Batch] = {}
    for payload in payloads:
        try:
            batch = decode_batch(payload)
        except DecodeError:
            continue
        if batch.kind == BatchKind.EVENTS:
            last[batch.host_id, batch.boot_id, batch.ring_id] = batch
    return [encode_batch(_end_of(batch)) for batch in last.values()]


def _end_of(batch: Batch) -> Batch:
    """An empty batch where this one ends, with the time of its last record: its own time may be before that."""
    time_ns = batch.boottime_ns
    try:
        for at, size in frames(batch.body):
            if size >= HEAD.size:
                time_ns = max(time_ns, HEAD.unpack_from(batch.body, at)[6])
    except DecodeError:
        pass  # what stands behind it is no record, nor is it for whoever would have read the batch
    realtime_ns = min(batch.realtime_ns + time_ns - batch.boottime_ns, _TIME_NS_MAX)
    return batch._replace(start=batch.end, body=b"", drained=False, boottime_ns=time_ns, realtime_ns=realtime_ns)
