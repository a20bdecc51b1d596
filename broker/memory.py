"""A broker in memory that keeps the contract of a real one, for tests: it can be away, slow, full or wiped at the test's word."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.edges import Done, Record, TopicFound, Watermarks
from schemas.errors import BadInput, TasktrailError, Unavailable
from schemas.topics import Topic, no_topic

_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Kafka's hash of a key (org.apache.kafka.common.utils.Utils.murmur2), its sign bit cleared."""
    multiplier = 0x5BD1E995
    found = 0x9747B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & _MASK
        word = (word ^ word >> 24) * multiplier & _MASK
        found = (found * multiplier & _MASK) ^ word
    if len(key) > whole:
        found = (found ^ int.from_bytes(key[whole:], "little")) * multiplier & _MASK
    found = (found ^ found >> 13) * multiplier & _MASK
    return (found ^ found >> 15) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that messages with this key go to, in every broker here and with Kafka's own clients."""
    return murmur2(key) % partitions


@dataclass(slots=True)
class _Partition:
    """Records that are kept, and the offset of the next one."""

    records: list[Record] = field(default_factory=list)
    end: int = 0


@dataclass(slots=True)
class MemoryBroker:
    """The cluster. A test may set these at any time:

    away      nobody can be reached
    refusing  what every message is told as, None to take them
    time_ms   the broker's clock
    """

    away: bool = False
    refusing: TasktrailError | None = None
    time_ms: int = 1_700_000_000_000
    _topics: dict[str, tuple[Topic, int, list[_Partition]]] = field(default_factory=dict)
    _commits: dict[tuple[str, str, int], int] = field(default_factory=dict)

    # -- AdminEdge --

    def create_topics(self, topics: Iterable[Topic], replication: int) -> list[str]:
        """See AdminEdge."""
        self.reach()
        made = []
        for topic in topics:
            if topic.name not in self._topics:
                self._topics[topic.name] = (topic, replication, [_Partition() for _ in range(topic.partitions)])
                made.append(topic.name)
        return made

    def describe(self, names: Iterable[str]) -> dict[str, TopicFound]:
        """See AdminEdge."""
        self.reach()
        found = ((name, self._topics.get(name)) for name in names)
        return {name: TopicFound(name, one[0].partitions, one[1], dict(one[0].configuration)) for name, one in found if one}

    # -- what a test does to it --

    def commit(self, group: str, topic: str, offsets: Mapping[int, int]) -> None:
        """As a consumer of the group would."""
        for partition, offset in offsets.items():
            self._commits[(group, topic, partition)] = offset

    def trim(self, topic: str, partition: int, low: int) -> None:
        """Retention: messages below ``low`` go."""
        log = self.log(topic)[partition]
        log.records = [record for record in log.records if record.offset >= low]

    # -- for MemorySender and MemoryLogReader --

    def reach(self) -> None:
        """Raises Unavailable while the broker is away."""
        if self.away:
            raise Unavailable("Kafka cannot be reached: the broker is away", "see that it runs")

    def log(self, topic: str) -> list[_Partition]:
        """The partitions of a topic. Raises BadInput when it is not there."""
        if topic not in self._topics:
            raise no_topic(topic)
        return self._topics[topic][2]

    def committed(self, group: str, topic: str, partition: int) -> int | None:
        """What the group has committed."""
        return self._commits.get((group, topic, partition))


class _Queued(NamedTuple):
    topic: str
    partition: int | None
    key: bytes
    value: bytes
    headers: dict[str, bytes]
    on_done: Done | None


class MemorySender:
    """Sends to a MemoryBroker; what it queued arrives in ``poll`` and ``flush``, at most ``each_poll`` messages in one."""

    def __init__(self, broker: MemoryBroker, queue_bytes: int = 32 << 20, message_bytes: int = 2 << 20, each_poll: int = 1 << 30) -> None:
        self._broker = broker
        self._queue: deque[_Queued] = deque()
        self._room = queue_bytes
        self._message_bytes = message_bytes
        self.each_poll = each_poll
        self.broken = ""

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        on_done: Done | None = None,
    ) -> bool:
        """See SenderEdge."""
        if self.broken:
            raise Unavailable(f"Kafka's producer is of no use any more: {self.broken}")
        size = len(key) + len(value)
        if size > self._message_bytes:
            raise BadInput(f"a message of {size} bytes is too large for {topic}", "make the batches smaller")
        if size > self._room:
            return False
        self._room -= size
        self._queue.append(_Queued(topic, partition, key, value, dict(headers or {}), on_done))
        return True

    def partitions(self, topic: str, timeout_s: float) -> int:
        """See SenderEdge."""
        self._broker.reach()
        return len(self._broker.log(topic))

    def poll(self, timeout_s: float) -> int:
        """See SenderEdge; it never waits."""
        told = 0
        while self._queue and not self._broker.away and told < self.each_poll:
            self._tell(self._queue[0], self._arrive(self._queue[0]))
            told += 1
        return told

    def _arrive(self, message: _Queued) -> TasktrailError | None:
        """Put it into the log; why not, if not."""
        if self._broker.refusing is not None:
            return self._broker.refusing
        try:
            log = self._broker.log(message.topic)
        except BadInput as missing:
            return missing
        number = partition_of(message.key, len(log)) if message.partition is None else message.partition
        if number >= len(log):
            return BadInput(f"Kafka's topic {message.topic} has no partition {number}")
        one = log[number]
        one.records.append(Record(number, one.end, message.key, message.value, message.headers, self._broker.time_ms))
        one.end += 1
        return None

    def _tell(self, message: _Queued, error: TasktrailError | None) -> None:
        self._queue.popleft()
        self._room += len(message.key) + len(message.value)
        if message.on_done is not None:
            message.on_done(error)

    def flush(self, timeout_s: float) -> int:
        """See SenderEdge; it never waits."""
        while self.poll(0):
            pass
        return self.waiting

    def purge(self) -> None:
        """See SenderEdge."""
        for message in list(self._queue):
            self._tell(message, Unavailable("the message was given up"))

    def close(self) -> None:
        """See SenderEdge."""
        self.purge()

    @property
    def waiting(self) -> int:
        """See SenderEdge."""
        return len(self._queue)

    @property
    def trouble(self) -> str:
        """See SenderEdge."""
        return "Kafka cannot be reached: the broker is away" if self._broker.away else ""


class MemoryLogReader:
    """Reads a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def partitions(self, topic: str) -> int:
        """See LogReaderEdge."""
        self._broker.reach()
        return len(self._broker.log(topic))

    def watermarks(self, topic: str, partitions: Iterable[int]) -> dict[int, Watermarks]:
        """See LogReaderEdge."""
        self._broker.reach()
        log = self._broker.log(topic)
        return {one: Watermarks(log[one].records[0].offset if log[one].records else log[one].end, log[one].end) for one in partitions}

    def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """See LogReaderEdge."""
        self._broker.reach()
        return {one: self._broker.committed(group, topic, one) for one in partitions}

    def offsets_at(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """See LogReaderEdge."""
        self._broker.reach()
        log = self._broker.log(topic)
        return {one: next((record.offset for record in log[one].records if record.time_ms >= time_ms), log[one].end) for one in partitions}

    def read(self, topic: str, offsets: Mapping[int, int]) -> Iterator[Record]:
        """See LogReaderEdge."""
        marks = self.watermarks(topic, offsets)
        log = self._broker.log(topic)
        for number, offset in offsets.items():
            if not marks[number].low <= offset <= marks[number].end:
                raise Unavailable(f"{topic}/{number} begins at {marks[number].low} and ends at {marks[number].end}: {offset} is not there")
            yield from (record for record in list(log[number].records) if offset <= record.offset < marks[number].end)

    def close(self) -> None:
        """See LogReaderEdge."""
