"""What a worker asks of Kafka beside its group: the hosts' states in a compacted topic, dead letters, and where the log begins and ends."""

import asyncio
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.edges import LogReaderEdge, SenderEdge
from schemas import topics
from schemas.errors import DecodeError, TasktrailError, Unavailable
from streams.fleet.partition import Message, SavedHost
from streams.fleet.worker import Start

_HEADER = struct.Struct("<4sQI")
_MAGIC = b"TTS1"
STATE_BYTES_MAX = 1 << 30
"""What a state may be when it is unpacked: a value that would be larger is none of ours."""
RATIO_MAX, ANY_RATIO_BYTES = 200, 1 << 20
"""By how much one may grow, beyond this size: states grow tenfold (zlib could make a thousand bytes of one)."""
ANSWER_S = 30.0


def packed(saved: SavedHost) -> bytes:
    """The state as a message: magic, the offset that it covers, its size, and itself compressed (zlib)."""
    return _HEADER.pack(_MAGIC, saved.covers, len(saved.state)) + zlib.compress(saved.state, 1)


def unpacked(key: bytes, value: bytes) -> SavedHost:
    """What was packed. Raises DecodeError for anything else."""
    if len(value) < _HEADER.size:
        raise DecodeError(f"state of {len(value)} bytes")
    magic, covers, size = _HEADER.unpack_from(value)
    if magic != _MAGIC or not 0 < size <= STATE_BYTES_MAX:  # zlib takes a limit of 0 for none
        raise DecodeError(f"not a state: it begins with {magic!r} and would have {size} bytes")
    if size > max(ANY_RATIO_BYTES, RATIO_MAX * len(value)):
        raise DecodeError(f"state of {len(value)} bytes that would have {size}: no state grows so much")
    unpacking = zlib.decompressobj()
    try:
        state = unpacking.decompress(value[_HEADER.size :], size)
    except zlib.error as broken:
        raise DecodeError(f"state cannot be unpacked: {broken}") from broken
    if len(state) != size or unpacking.unconsumed_tail:
        raise DecodeError(f"state has {len(state)} bytes, its header says {size}")
    return SavedHost(key, covers, state)


class _Outgoing(NamedTuple):
    """A message to be sent."""

    topic: str
    partition: int | None
    key: bytes
    value: bytes
    headers: dict[str, bytes]


class StateLog:
    """See streams.fleet.worker.KafkaEdge. ``unread`` counts states that could not be read."""

    def __init__(self, sender: SenderEdge, reader: LogReaderEdge, group: str) -> None:
        self.unread = 0
        self._sender = sender
        self._reader = reader
        self._group = group
        # Another group stores its rows somewhere else, so what its states cover is not covered for us.
        self._ours = group.encode() + b"/"

    def starts(self, partitions: Iterable[int]) -> dict[int, Start]:
        """Blocking. Raises Unavailable."""
        wanted = list(partitions)
        committed = self._reader.committed(self._group, topics.EVENTS, wanted)
        marks = self._reader.watermarks(topics.EVENTS, wanted)
        return {one: Start(committed[one], marks[one].low, marks[one].end) for one in wanted}

    def read_states(self, partitions: Iterable[int]) -> dict[int, list[SavedHost]]:
        """Blocking: of each host the state that covers most. Raises Unavailable."""
        wanted = list(partitions)
        found: dict[int, dict[bytes, SavedHost]] = {number: {} for number in wanted}
        marks = self._reader.watermarks(topics.STATE, wanted)
        for record in self._reader.read(topics.STATE, {number: marks[number].low for number in wanted}):
            if not record.key.startswith(self._ours):
                continue
            states, key = found[record.partition], record.key.removeprefix(self._ours)
            if not record.value:
                states.pop(key, None)
                continue
            try:
                saved = unpacked(key, record.value)
            except DecodeError:
                self.unread += 1
                continue
            known = states.get(key)
            # A worker that has lost its partition may write once more, and later than the one that has it now.
            if known is None or known.covers <= saved.covers:
                states[key] = saved
        return {number: list(states.values()) for number, states in found.items()}

    async def write_states(self, states: list[tuple[int, SavedHost]]) -> None:
        """Returns when the broker keeps them for good. Raises Unavailable."""
        await self._send([_Outgoing(topics.STATE, number, self._ours + saved.key, packed(saved), {}) for number, saved in states])

    async def write_dead(self, partition: int, message: Message, reason: str) -> None:
        """Returns when the broker keeps it for good. Raises Unavailable."""
        origin = f"{topics.EVENTS}/{partition}/{message.offset}"
        headers = {**message.headers, topics.REASON: reason.encode(), topics.ORIGIN: origin.encode()}
        await self._send([_Outgoing(topics.DEADLETTER, None, message.key, message.value, headers)])

    async def _send(self, messages: Sequence[_Outgoing]) -> None:
        """Send all and wait for the last to be told of. What is not told of in time may still arrive: it does no harm."""
        errors: list[TasktrailError] = []
        left = len(messages)
        deadline = time.monotonic() + ANSWER_S

        def done(error: TasktrailError | None) -> None:
            nonlocal left
            left -= 1
            if error is not None:
                errors.append(error)

        async def poll() -> None:
            await asyncio.to_thread(self._sender.poll, 0.05)
            if time.monotonic() > deadline:
                raise Unavailable(self._sender.trouble or "Kafka does not say that it has the states", "are its brokers there?")

        for one in messages:
            while not self._sender.send(one.topic, one.key, one.value, one.headers, one.partition, done):
                await poll()
        while left:
            await poll()
        if errors:
            raise Unavailable(errors[0].problem, errors[0].cure)
