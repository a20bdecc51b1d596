"""A stretch of the log joined once more, after a fix: the same keys, versions that count above those of the first time."""

from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass

from broker.edges import LogReaderEdge, Record
from schemas import topics
from schemas.rows import HostRow, Row
from streams.fleet.partition import Message, Partition
from streams.memory import MemoryEdge

CORRECTION_MAX = 99
"""Replays of one stretch that can count one above the other. A version is four times a time in nanoseconds, and two events of one image
are further apart than 25 ns."""


@dataclass(slots=True)
class Replayed:
    """What was done. ``refused`` are messages that could not be read, or were not taken."""

    messages: int = 0
    refused: int = 0
    rows: int = 0


class Replay:
    """Joins what arrived in an interval, each host from what the store remembers of the moment before."""

    def __init__(self, reader: LogReaderEdge, memory: MemoryEdge, refuse: Callable[[Message], str], correction: int) -> None:
        """``correction`` is added to versions: a second replay of the same stretch needs a larger one than the first had."""
        self.done = Replayed()
        self._reader = reader
        self._memory = memory
        self._refuse = refuse
        self._correction = correction

    def rows(self, partitions: Iterable[int], from_ms: int, to_ms: int, hosts: Set[bytes] = frozenset()) -> Iterator[list[Row]]:
        """The rows of one message after the other.

        from_ms, to_ms  when they arrived, Unix time; the end not included
        hosts           keys of the hosts that are wanted; all if empty

        Raises Unavailable.
        """
        joining = {number: Partition(number, self._refuse, self._memory) for number in partitions}
        reading = set(joining)
        for record in self._reader.read(topics.EVENTS, self._reader.offsets_at(topics.EVENTS, sorted(reading), from_ms)):
            if record.time_ms >= to_ms:
                reading.discard(record.partition)
                if not reading:
                    return
            elif record.partition in reading and (not hosts or record.key in hosts):
                yield self._joined(joining[record.partition], record)

    def _joined(self, partition: Partition, record: Record) -> list[Row]:
        taken = partition.take(Message(record.offset, record.key, record.value, record.headers))
        partition.stored(record.offset)
        self.done.messages += 1
        self.done.refused += bool(taken.reason)
        rows: list[Row] = [row._replace(version=row.version + self._correction) for row in taken.rows if not isinstance(row, HostRow)]
        self.done.rows += len(rows)
        return rows
