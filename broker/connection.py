"""A real Kafka cluster, through librdkafka. The only module that knows its client.

The delivery callback is the only truth about a message (librdkafka's INTRODUCTION.md, "Message reliability"): what it does not
report as delivered is to be sent again by whoever has it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import confluent_kafka as kafka

from broker.cluster import Cluster
from broker.edges import Done, Record, TopicFound, Watermarks
from broker.failures import error_of, told
from schemas.errors import TasktrailError, Unavailable
from schemas.topics import Topic, no_topic

QUEUE_BYTES = 32 << 20
LINGER_MS = 50
"""How long a message may wait for others that go into the same request."""
COMPRESSION_LEVEL = 6
"""Of zstd: a process in a storm takes 55 bytes on the wire and 12 us of CPU here; at its default of 3, 64 and 8."""
DELIVERY_MS = 24 * 3_600_000
"""How long one is tried for: whoever sends decides when to do something else with it, not the client."""
MESSAGE_BYTES_MAX = 64 << 20
ANSWER_S = 15.0
"""How long an answer is waited for before the cluster counts as unreachable."""
QUIET = 2
"""librdkafka's log level: what it has to say of failures comes to ``error_cb`` too."""


class Sender:
    """Sends messages to a cluster; see SenderEdge. Nothing is connected until something is sent, and nothing here waits for it."""

    def __init__(
        self,
        cluster: Cluster,
        queue_bytes: int = QUEUE_BYTES,
        message_bytes: int = MESSAGE_BYTES_MAX,
        linger_ms: int = LINGER_MS,
        delivery_ms: int = DELIVERY_MS,
        gapless: bool = False,
    ) -> None:
        """``gapless``: when a message fails, none behind it is taken either, and the sender is broken.

        Raises BadInput when the client does not take the settings, such as a certificate file that is not there.
        """
        self.trouble = self.broken = ""
        self._sent = 0
        self._untold: dict[int, Done | None] = {}
        options: dict[str, object] = {
            **cluster.options(),
            "client.id": "tasktrail",
            "enable.idempotence": True,
            "enable.gapless.guarantee": gapless,
            "acks": "all",
            "compression.type": "zstd",
            "compression.level": COMPRESSION_LEVEL,
            "linger.ms": linger_ms,
            "message.timeout.ms": delivery_ms,
            "message.max.bytes": message_bytes,
            "queue.buffering.max.kbytes": max(1, queue_bytes >> 10),
            "queue.buffering.max.messages": 1_000_000,
            # Keys go where Kafka's own clients would send them.
            "partitioner": "murmur2_random",
            "topic.metadata.refresh.sparse": True,
            "reconnect.backoff.max.ms": 5_000,
            "socket.keepalive.enable": True,
            "log_level": QUIET,
            "error_cb": self._on_error,
        }
        try:
            self._producer = kafka.Producer(options)
        except kafka.KafkaException as failure:
            raise told(f"settings for Kafka at {cluster.bootstrap}", error_of(failure)) from None
        self._where = f"Kafka at {cluster.bootstrap}"
        self._ours = cluster.ours

    def _on_error(self, error: kafka.KafkaError) -> None:
        if self.trouble and error.code() == kafka.KafkaError._ALL_BROKERS_DOWN:
            return  # it follows upon what says more
        self.trouble = str(told(self._where, error))
        if error.fatal():
            self.broken = self.trouble

    def partitions(self, topic: str, timeout_s: float) -> int:
        """See SenderEdge."""
        name = self._ours(topic)
        try:
            found = self._producer.list_topics(timeout=timeout_s).topics
        except kafka.KafkaException as failure:
            self.trouble = ""
            self.poll(0)  # why, is told there
            self.trouble = self.trouble or str(told(self._where, error_of(failure)))
            raise Unavailable(self.trouble) from None
        if name not in found:
            raise no_topic(name)
        return len(found[name].partitions)

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
        topic, number = self._ours(topic), -1 if partition is None else partition
        self._sent += 1
        callback = partial(self._done, self._sent, topic)
        try:
            self._producer.produce(topic, value, key, number, on_delivery=callback, headers=list((headers or {}).items()))
        except BufferError:
            return False
        except kafka.KafkaException as failure:
            raise told(f"a message of {len(value)} bytes for topic {topic}", error_of(failure)) from None
        self._untold[self._sent] = on_done
        return True

    def _done(self, which: int, topic: str, error: kafka.KafkaError | None, message: kafka.Message) -> None:
        if error is None:
            self.trouble = self.broken
        elif error.code() not in (kafka.KafkaError._PURGE_QUEUE, kafka.KafkaError._PURGE_INFLIGHT):
            self.trouble = str(told(f"topic {topic}", error))
        self._tell(which, None if error is None else told(f"topic {topic}", error))

    def _tell(self, which: int, error: TasktrailError | None) -> None:
        on_done = self._untold.pop(which)
        if on_done is not None:
            on_done(error)

    def poll(self, timeout_s: float) -> int:
        """See SenderEdge."""
        before = len(self._untold)
        self._served(self._producer.poll, timeout_s)
        return before - len(self._untold)

    def _served(self, serve: Callable[[float], int], timeout_s: float) -> bool:
        """Whether news were taken without trouble. A fatal error is raised here too, besides being told to ``error_cb``; and the client
        (2.16) calls delivery callbacks with that exception pending, which then fail and are not called again."""
        try:
            serve(timeout_s)
        except kafka.KafkaException as failure:
            self._on_error(error_of(failure))
        except SystemError:
            self.broken = self.trouble = self.trouble or f"{self._where}: the client gave up after a fatal error"
        else:
            return True
        return False

    def flush(self, timeout_s: float) -> int:
        """See SenderEdge."""
        deadline = time.monotonic() + timeout_s
        while not self._served(self._producer.flush, max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass
        if self.broken and not len(self._producer):
            for which in list(self._untold):
                self._tell(which, Unavailable(self.broken))
        return len(self._untold)

    def purge(self) -> None:
        """See SenderEdge."""
        self._producer.purge()
        self.flush(ANSWER_S)

    def close(self) -> None:
        """See SenderEdge."""
        self.purge()

    @property
    def waiting(self) -> int:
        """See SenderEdge."""
        return len(self._untold)


class LogReader:
    """Reads stretches of a cluster's log; see LogReaderEdge. It joins no group and commits nothing."""

    def __init__(self, cluster: Cluster, answer_s: float = ANSWER_S, buffered_bytes: int = 16 << 20) -> None:
        """``buffered_bytes`` is how much of the log may lie fetched at a time."""
        self._cluster = cluster
        self._answer_s = answer_s
        self._buffered_bytes = buffered_bytes
        self._consumers: dict[str, kafka.Consumer] = {}
        self._where = f"Kafka at {cluster.bootstrap}"

    def _consumer(self, group: str = "tasktrail-reader") -> kafka.Consumer:
        if group not in self._consumers:
            self._consumers[group] = self._make(group)
        return self._consumers[group]

    def _make(self, group: str) -> kafka.Consumer:
        options: dict[str, object] = {
            **self._cluster.options(),
            "client.id": "tasktrail",
            "group.id": self._cluster.ours(group),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "check.crcs": True,
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": max(1, self._buffered_bytes >> 10),
            "fetch.message.max.bytes": max(1 << 20, self._buffered_bytes >> 1),
            "log_level": QUIET,
            "error_cb": _ignored,
        }
        try:
            return kafka.Consumer(options)
        except kafka.KafkaException as failure:
            raise told(f"settings for {self._where}", error_of(failure)) from None

    def partitions(self, topic: str) -> int:
        """See LogReaderEdge."""
        topic = self._cluster.ours(topic)
        try:
            found = self._consumer().list_topics(topic, timeout=self._answer_s).topics[topic]
        except kafka.KafkaException as failure:
            raise told(self._where, error_of(failure)) from None
        if found.error is not None:
            raise told(f"topic {topic}", found.error)
        return len(found.partitions)

    def watermarks(self, topic: str, partitions: Iterable[int]) -> dict[int, Watermarks]:
        """See LogReaderEdge."""
        consumer, found, topic = self._consumer(), {}, self._cluster.ours(topic)
        for number in partitions:
            try:
                marks = consumer.get_watermark_offsets(kafka.TopicPartition(topic, number), timeout=self._answer_s)
            except kafka.KafkaException as failure:
                raise told(f"{topic}/{number}", error_of(failure)) from None
            if marks is None:
                raise Unavailable(f"{self._where} did not say in time where {topic}/{number} begins and ends")
            found[number] = Watermarks(int(marks[0]), int(marks[1]))
        return found

    def committed(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """See LogReaderEdge."""
        wanted = [kafka.TopicPartition(self._cluster.ours(topic), number) for number in partitions]
        try:
            found = self._consumer(group).committed(wanted, timeout=self._answer_s)
        except kafka.KafkaException as failure:
            raise told(f"offsets of group {group}", error_of(failure)) from None
        for one in found:
            if one.error is not None:
                raise told(f"offsets of group {group} in {topic}/{one.partition}", one.error)
        return {one.partition: one.offset if one.offset >= 0 else None for one in found}

    def offsets_at(self, topic: str, partitions: Iterable[int], time_ms: int) -> dict[int, int]:
        """See LogReaderEdge."""
        wanted = list(partitions)
        asked = [kafka.TopicPartition(self._cluster.ours(topic), number, time_ms) for number in wanted]
        try:
            found = self._consumer().offsets_for_times(asked, timeout=self._answer_s)
        except kafka.KafkaException as failure:
            raise told(self._where, error_of(failure)) from None
        ends = self.watermarks(topic, wanted)
        return {one.partition: one.offset if one.offset >= 0 else ends[one.partition].end for one in found}

    def read(self, topic: str, offsets: Mapping[int, int]) -> Iterator[Record]:
        """See LogReaderEdge."""
        marks = self.watermarks(topic, offsets)
        for number, offset in offsets.items():
            low, end = marks[number]
            if not low <= offset <= end:
                raise Unavailable(f"{topic}/{number} begins at {low} and ends at {end}: {offset} is not there")
        unread = {number: marks[number].end for number, offset in offsets.items() if offset < marks[number].end}
        if not unread:
            return
        consumer = self._make("tasktrail-reader")
        try:
            consumer.assign([kafka.TopicPartition(self._cluster.ours(topic), number, offsets[number]) for number in unread])
            yield from self._consume(consumer, topic, unread)
        finally:
            consumer.close()

    def _consume(self, consumer: kafka.Consumer, topic: str, unread: dict[int, int]) -> Iterator[Record]:
        """``unread`` says of each partition where to end; the end of the partition is one too, for compaction leaves no last message."""
        deadline = time.monotonic() + self._answer_s
        while unread:
            messages = consumer.consume(500, timeout=0.5)
            if messages:
                deadline = time.monotonic() + self._answer_s
            elif time.monotonic() > deadline:
                raise Unavailable(f"{self._where} gave nothing of {topic} for {self._answer_s:g} s, though there is more")
            for message in messages:
                number, offset, error = message.partition(), message.offset(), message.error()
                if error is not None and error.code() == kafka.KafkaError._PARTITION_EOF:
                    unread.pop(number or 0, None)
                elif error is not None:
                    raise told(f"{topic}/{number}", error)
                elif number in unread:
                    assert offset is not None
                    if offset < unread[number]:
                        yield _record(message)
                    if offset + 1 >= unread[number]:
                        del unread[number]

    def close(self) -> None:
        """See LogReaderEdge."""
        for consumer in self._consumers.values():
            consumer.close()
        self._consumers = {}


def _ignored(error: kafka.KafkaError) -> None:
    """Each call says itself what went wrong; without this the client would write to stderr."""


def _record(message: kafka.Message) -> Record:
    number, offset = message.partition(), message.offset()
    assert number is not None and offset is not None
    given = message.headers() or []
    pairs = list(given.items()) if isinstance(given, dict) else given
    headers = {pair[0]: pair[1] if isinstance(pair[1], bytes) else str(pair[1] or "").encode() for pair in pairs}
    return Record(number, offset, message.key() or b"", message.value() or b"", headers, message.timestamp()[1])


class Admin:
    """Makes and describes topics of a cluster; see AdminEdge."""

    def __init__(self, cluster: Cluster, answer_s: float = ANSWER_S) -> None:
        # Imported here: the producer of every host does without it.
        from confluent_kafka import admin
        from confluent_kafka.cimpl import NewTopic

        self._kinds = admin
        self._new_topic = NewTopic
        self._answer_s = answer_s
        self._ours = cluster.ours
        self._where = f"Kafka at {cluster.bootstrap}"
        try:
            options: dict[str, object] = {**cluster.options(), "log_level": QUIET, "error_cb": _ignored}
            self._client = admin.AdminClient(options)  # type: ignore[arg-type]
        except kafka.KafkaException as failure:
            raise told(f"settings for {self._where}", error_of(failure)) from None

    def create_topics(self, topics: Iterable[Topic], replication: int) -> list[str]:
        """See AdminEdge."""
        wanted = {self._ours(one.name): one for one in topics}
        asked = [self._new_topic(name, one.partitions, replication, config=one.configuration) for name, one in wanted.items()]
        made = []
        for name, future in self._client.create_topics(asked, request_timeout=self._answer_s).items():
            try:
                future.result()
                made.append(wanted[name].name)
            except kafka.KafkaException as failure:
                if error_of(failure).code() != kafka.KafkaError.TOPIC_ALREADY_EXISTS:
                    raise told(f"topic {name} at {self._where}", error_of(failure)) from None
        return made

    def describe(self, names: Iterable[str]) -> dict[str, TopicFound]:
        """See AdminEdge."""
        kinds, found = self._kinds, {}
        try:
            there = self._client.list_topics(timeout=self._answer_s).topics
            wanted = [name for name in names if self._ours(name) in there]
            asked = {name: kinds.ConfigResource(kinds.ConfigResource.Type.TOPIC, self._ours(name)) for name in wanted}
            answers = self._client.describe_configs(list(asked.values()), request_timeout=self._answer_s) if asked else {}
            for name, resource in asked.items():
                entries = answers[resource].result().values()
                own = {one.name: one.value for one in entries if one.source == kinds.ConfigSource.DYNAMIC_TOPIC_CONFIG.value}
                partitions = there[self._ours(name)].partitions
                found[name] = TopicFound(name, len(partitions), min(len(one.replicas) for one in partitions.values()), own)
        except kafka.KafkaException as failure:
            raise told(self._where, error_of(failure)) from None
        return found
