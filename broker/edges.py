"""What is asked of a broker, whichever it is. ``tests/contract/test_broker.py`` says in full what each promises."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from schemas.errors import TasktrailError
from schemas.topics import Topic

Done = Callable[[TasktrailError | None], None]
"""Told once for each message: None when the brokers keep it for good, else why they do not."""


class Record(NamedTuple):
    """A message as it lies in the log. ``time_ms`` is when it arrived there, Unix time."""

    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]
    time_ms: int


class Watermarks(NamedTuple):
    """Offset of a partition's first message, and the one that the next message will get."""

    low: int
    end: int


class TopicFound(NamedTuple):
    """A topic as it is: partitions, replicas of each, and its own settings by Kafka's names."""

    name: str
    partitions: int
    replication: int
    configuration: dict[str, str]


class SenderEdge(Protocol):
    """Sends messages; keeps the order of each partition, and writes none twice while it lives."""

    def send(
        self,
        topic: str,
        key: bytes,
        value: bytes,
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        on_done: Done | None = None,
    ) -> bool:
        """Queue a message: False, and nothing is queued, when the queue is full. Messages with one key go to one partition.

        ``on_done`` is called inside ``poll``, ``flush``, ``purge`` or ``close``, never elsewhere. Raises BadInput for a message that is
        larger than can be sent, Unavailable when this sender is of no use any more (``broken``).
        """

    def partitions(self, topic: str, timeout_s: float) -> int:
        """How many partitions the topic has: to be asked before sending, since a broker may make a topic that somebody sends to, with
        settings of its own. Raises BadInput when it is not there, Unavailable when there is no answer in time."""

    def poll(self, timeout_s: float) -> int:
        """Wait at most that long for news, and tell them; returns how many messages were told of."""

    def flush(self, timeout_s: float) -> int:
        """Wait at most that long until all that was queued is told of; returns how many messages are not."""

    def purge(self) -> None:
        """Give up all that is queued or under way: each is told as failed, though it may arrive still."""

    def close(self) -> None:
        """Give up what is left, as ``purge`` does, and let go."""

    @property
    def waiting(self) -> int:
        """Messages that were sent and not told of."""

    @property
    def trouble(self) -> str:
        """What stands in the way of sending now, one sentence; empty if nothing is known."""

    @property
    def broken(self) -> str:
        """Why nothing can be sent by this sender any more; empty if it can."""


class LogReaderEdge(Protocol):
    """Reads stretches of the log, outside of any group. Each call may raise Unavailable, or BadInput for a topic that is not there."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""

    def watermarks(self, topic: str, partitions: Iterable[int]) -> dict[int, Watermarks]:
        """Where each partition begins and ends now."""

    def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """The offset that the group has committed in each partition, None where it has none."""

    def offsets_at(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """In each partition the offset of the first message that arrived at that time (milliseconds since 1970) or later; its end if
        there is none."""

    def read(self, topic: str, offsets: Mapping[int, int]) -> Iterator[Record]:
        """The messages from these offsets to where each partition ended when the call was made; each partition's in order.

        An offset that the log does not reach back to any more raises Unavailable.
        """

    def close(self) -> None:
        """Let go."""


class AdminEdge(Protocol):
    """Makes and describes topics. Each call may raise Unavailable."""

    def create_topics(self, topics: Iterable[Topic], replication: int) -> list[str]:
        """Make those that are not there, and give their names. Raises BadInput when the cluster refuses one."""

    def describe(self, names: Iterable[str]) -> dict[str, TopicFound]:
        """Those of these topics that are there."""
