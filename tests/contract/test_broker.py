"""What every broker promises: the one in memory, that unit tests run on, and a real Kafka."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from broker import connection, memory
from broker.cluster import Cluster
from broker.edges import AdminEdge, LogReaderEdge, Record, SenderEdge
from schemas.errors import BadInput, TasktrailError, Unavailable
from schemas.topics import Topic, topics
from tests.fleet.kafka_for_tests import own, started_kafka

PARTITIONS = 6
WAIT_S = 30.0


class Broker(NamedTuple):
    """One broker's edges; ``sender`` gives another sender with a queue of so many bytes."""

    admin: AdminEdge
    reader: LogReaderEdge
    real: Cluster | None
    memory: memory.MemoryBroker | None

    def sender(self, queue_bytes: int = 8 << 20, message_bytes: int = 1 << 20) -> SenderEdge:
        """A new sender."""
        if self.real is not None:
            return connection.Sender(self.real, queue_bytes, message_bytes)
        assert self.memory is not None
        return memory.MemorySender(self.memory, queue_bytes, message_bytes)


@pytest.fixture(scope="module", params=["memory", "kafka"])
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Both kinds."""
    if request.param == "memory":
        one = memory.MemoryBroker()
        yield Broker(one, memory.MemoryLogReader(one), None, one)
        return
    with started_kafka(tmp_path_factory) as real:
        reader = connection.LogReader(real)
        yield Broker(connection.Admin(real), reader, real, None)
        reader.close()


@pytest.fixture
def topic(broker: Broker) -> str:
    """A new topic for events."""
    wanted = own(topics(PARTITIONS, 1, 1)[0])
    assert broker.admin.create_topics([wanted], 1) == [wanted.name]
    return wanted.name


class Told:
    """What a sender said of each message."""

    def __init__(self) -> None:
        self.errors: list[TasktrailError | None] = []

    def __call__(self, error: TasktrailError | None) -> None:
        self.errors.append(error)


def fill(broker: Broker, topic: str, messages: dict[bytes, list[bytes]]) -> None:
    """Send values by key and wait until they are there."""
    sender, told = broker.sender(), Told()
    for key, values in messages.items():
        for value in values:
            assert sender.send(topic, key, value, {"version": b"1"}, on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert told.errors == [None] * sum(map(len, messages.values()))
    sender.close()


def everything(broker: Broker, topic: str) -> list[Record]:
    """All that the topic holds."""
    marks = broker.reader.watermarks(topic, range(PARTITIONS))
    return list(broker.reader.read(topic, {number: mark.low for number, mark in marks.items()}))


def test_a_message_arrives_as_it_was_sent_and_each_partition_is_in_order(broker: Broker, topic: str) -> None:
    sent = {b"host-%d" % host: [b"%d-%d" % (host, number) for number in range(20)] for host in range(8)}
    fill(broker, topic, sent)
    found = everything(broker, topic)
    assert {key: [one.value for one in found if one.key == key] for key in sent} == sent
    assert all(one.headers == {"version": b"1"} and one.time_ms > 0 for one in found)
    for number in range(PARTITIONS):
        assert [one.offset for one in found if one.partition == number] == list(range(sum(one.partition == number for one in found)))


def test_a_key_goes_where_kafka_s_own_clients_send_it(broker: Broker, topic: str) -> None:
    keys = [b"", b"a", b"ab", b"abc", b"abcd", b"5f0c7a52-8a3e-4c3c-9d6d-0f5b7d0f5c11", bytes(range(256))][1:]
    fill(broker, topic, {key: [b"x"] for key in keys})
    assert {one.key: one.partition for one in everything(broker, topic)} == {key: memory.partition_of(key, PARTITIONS) for key in keys}


def test_a_partition_can_be_named(broker: Broker, topic: str) -> None:
    sender, told = broker.sender(), Told()
    assert sender.send(topic, b"key", b"value", partition=3, on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert told.errors == [None]
    assert [(one.partition, one.key, one.headers) for one in everything(broker, topic)] == [(3, b"key", {})]
    sender.close()


def test_a_full_queue_takes_nothing_and_says_so(broker: Broker, topic: str) -> None:
    sender, told = broker.sender(queue_bytes=1 << 20), Told()
    taken = 0
    while sender.send(topic, b"key", bytes(100_000), on_done=told):
        taken += 1
        assert taken <= 20
    assert taken >= 5 and told.errors == []
    assert sender.flush(WAIT_S) == 0
    assert told.errors == [None] * taken and sender.waiting == 0
    assert sender.send(topic, b"key", b"again", on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert len(everything(broker, topic)) == taken + 1
    sender.close()


def test_a_message_that_is_too_large_is_refused_and_hurts_no_other(broker: Broker, topic: str) -> None:
    sender, told = broker.sender(message_bytes=200_000), Told()
    assert sender.send(topic, b"key", b"before", on_done=told)
    with pytest.raises(BadInput):
        sender.send(topic, b"key", bytes(200_001), on_done=told)
    assert sender.send(topic, b"key", b"after", on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert told.errors == [None, None]
    assert [one.value for one in everything(broker, topic)] == [b"before", b"after"]
    sender.close()


def test_what_is_purged_is_told_as_not_delivered(broker: Broker, topic: str) -> None:
    sender, told = broker.sender(), Told()
    for _ in range(50):
        assert sender.send(topic, b"key", bytes(1000), on_done=told)
    sender.purge()
    assert len(told.errors) == 50 and sender.waiting == 0
    assert all(error is None or isinstance(error, Unavailable) for error in told.errors)
    assert any(error is not None for error in told.errors)
    sender.close()


def test_committed_offsets_are_of_the_group_asked_for(broker: Broker, topic: str) -> None:
    fill(broker, topic, {b"host-%d" % host: [b"x"] * 5 for host in range(12)})
    if broker.memory is not None:
        broker.memory.commit("one", topic, {0: 2})
    else:
        assert broker.real is not None
        commit_for_test(broker.real, "one", topic, 0, 2)
    assert broker.reader.committed("one", topic, range(3)) == {0: 2, 1: None, 2: None}
    assert broker.reader.committed("two", topic, [0]) == {0: None}


def commit_for_test(cluster: Cluster, group: str, topic: str, partition: int, offset: int) -> None:
    """Commit as a consumer of the group does."""
    import confluent_kafka

    consumer = confluent_kafka.Consumer({**cluster.options(), "group.id": cluster.ours(group)})
    consumer.commit(offsets=[confluent_kafka.TopicPartition(cluster.ours(topic), partition, offset)], asynchronous=False)
    consumer.close()


def test_reading_starts_where_it_is_asked_to_and_ends_where_the_log_ended(broker: Broker, topic: str) -> None:
    fill(broker, topic, {b"key": [b"%d" % number for number in range(30)]})
    number = memory.partition_of(b"key", PARTITIONS)
    assert broker.reader.watermarks(topic, [number]) == {number: (0, 30)}
    assert [one.value for one in broker.reader.read(topic, {number: 25})] == [b"25", b"26", b"27", b"28", b"29"]
    assert list(broker.reader.read(topic, {number: 30})) == []
    assert list(broker.reader.read(topic, {})) == []


def test_what_arrived_since_a_time_is_found(broker: Broker, topic: str) -> None:
    fill(broker, topic, {b"key": [b"a", b"b"]})
    number = memory.partition_of(b"key", PARTITIONS)
    first, _ = broker.reader.read(topic, {number: 0})
    assert broker.reader.offsets_at(topic, [number], first.time_ms) == {number: 0}
    assert broker.reader.offsets_at(topic, [number], first.time_ms + 3_600_000) == {number: 2}, "nothing yet: the end"


def test_an_offset_that_is_not_there_is_an_error_and_not_another_offset(broker: Broker, topic: str) -> None:
    fill(broker, topic, {b"key": [b"x"]})
    number = memory.partition_of(b"key", PARTITIONS)
    with pytest.raises(Unavailable):
        list(broker.reader.read(topic, {number: 2}))


def test_a_topic_that_is_not_there_is_said_to_be_missing(broker: Broker) -> None:
    with pytest.raises(BadInput):
        broker.reader.partitions("nobody-made-this")
    sender = broker.sender()
    with pytest.raises(BadInput, match=r"no topic .*nobody-made-this; make it by"):
        sender.partitions("nobody-made-this", WAIT_S)
    sender.close()
    assert broker.admin.describe(["nobody-made-this"]) == {}


def test_topics_are_made_once_and_described_as_they_are(broker: Broker) -> None:
    wanted = [own(one) for one in topics(PARTITIONS, 48, 1)]
    assert sorted(broker.admin.create_topics(wanted, 1)) == sorted(one.name for one in wanted)
    assert broker.admin.create_topics(wanted, 1) == []
    found = broker.admin.describe([one.name for one in wanted])
    for one in wanted:
        assert (found[one.name].partitions, found[one.name].replication) == (one.partitions, 1)
        assert found[one.name].configuration.items() >= one.configuration.items()
        assert broker.reader.partitions(one.name) == one.partitions


def test_a_state_of_many_megabytes_passes(broker: Broker) -> None:
    state: Topic = own(topics(PARTITIONS, 1, 1)[1])
    broker.admin.create_topics([state], 1)
    sender, told = broker.sender(queue_bytes=64 << 20, message_bytes=64 << 20), Told()
    value = bytes(range(256)) * 80_000
    assert sender.send(state.name, b"key", value, partition=0, on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert told.errors == [None]
    assert [one.value == value for one in broker.reader.read(state.name, {0: 0})] == [True]
    sender.close()


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_two_fleets_on_one_kafka_do_not_see_each_other(broker: Broker) -> None:
    """On a real Kafka alone, by what their topics and groups begin with."""
    assert broker.real is not None
    fleets = [replace(broker.real, prefix=f"{broker.real.prefix}{name}.") for name in ("one", "other")]
    wanted = own(topics(PARTITIONS, 1, 1)[0])
    for number, fleet in enumerate(fleets):
        assert connection.Admin(fleet).describe([wanted.name]) == {}
        assert connection.Admin(fleet).create_topics([wanted], 1) == [wanted.name]
        sender, told = connection.Sender(fleet), Told()
        assert sender.send(wanted.name, b"key", b"%d" % number, partition=0, on_done=told)
        assert sender.flush(WAIT_S) == 0 and told.errors == [None]
        commit_for_test(fleet, "group", wanted.name, 0, number)
        assert sender.partitions(wanted.name, WAIT_S) == PARTITIONS
        assert connection.Admin(fleet).describe([wanted.name])[wanted.name].partitions == PARTITIONS
        sender.close()
    assert broker.admin.describe([wanted.name]) == {}
    for number, fleet in enumerate(fleets):
        reader = connection.LogReader(fleet)
        assert reader.partitions(wanted.name) == PARTITIONS and reader.offsets_at(wanted.name, [0], 0) == {0: 0}
        assert [one.value for one in reader.read(wanted.name, {0: 0})] == [b"%d" % number]
        assert reader.committed("group", wanted.name, [0]) == {0: number}
        reader.close()


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_where_one_message_is_refused_none_behind_it_is_taken(broker: Broker) -> None:
    """On a real Kafka alone: a broker that refuses a message would take the next one, and the order would be lost."""
    assert broker.real is not None
    wanted = own(topics(1, 1, 1)[0])
    small = wanted._replace(configuration=wanted.configuration | {"max.message.bytes": "2000"})
    broker.admin.create_topics([small], 1)
    sender, told = connection.Sender(broker.real, gapless=True), Told()
    assert sender.send(small.name, b"key", b"first", on_done=told)
    assert sender.flush(WAIT_S) == 0
    for value in (os.urandom(5_000), b"behind"):
        assert sender.send(small.name, b"key", value, on_done=told)
    assert sender.flush(WAIT_S) == 0
    assert sender.broken and told.errors[0] is None and None not in told.errors[1:]
    with pytest.raises(Unavailable):
        sender.send(small.name, b"key", b"later")
    assert sender.partitions(small.name, 10.0) == 1
    sender.close()
    assert [one.value for one in broker.reader.read(small.name, {0: 0})] == [b"first"]


def test_a_cluster_that_is_not_there_is_unavailable_and_nothing_is_told_as_sent() -> None:
    nobody = Cluster((("127.0.0.1", 1),))
    sender, told = connection.Sender(nobody, 1 << 20), Told()
    assert sender.send("topic", b"key", b"value", on_done=told)
    assert sender.flush(1.0) == 1
    assert told.errors == []
    assert "127.0.0.1:1" in sender.trouble
    sender.close()
    assert len(told.errors) == 1 and isinstance(told.errors[0], Unavailable)
    reader = connection.LogReader(nobody, answer_s=1.0)
    for ask in (lambda: reader.partitions("t"), lambda: reader.watermarks("t", [0]), lambda: reader.committed("g", "t", [0])):
        with pytest.raises(Unavailable):
            ask()
    with pytest.raises(Unavailable):
        connection.Admin(nobody, answer_s=1.0).describe(["t"])
    reader.close()
