"""A Kafka for tests, in which each test or module has topics and groups of its own, and what Kafka's administrators do to it."""

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import confluent_kafka
import pytest
from confluent_kafka import admin

from broker.cluster import Cluster, cluster
from deploy.local.kafka import Kafka
from schemas.topics import Topic

VARIABLE = "TASKTRAIL_TEST_KAFKA"
ANSWER_S = 30.0
_numbers = itertools.count(1)


def needs_its_own_kafka(why: str) -> None:
    """Skips a test that cannot be run on somebody's Kafka."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names another Kafka, and this test {why}")


@contextmanager
def started_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that TASKTRAIL_TEST_KAFKA names, else one that is started here and killed at the end."""
    named = os.environ.get(VARIABLE)
    if not named:
        with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
            yield cluster(kafka.address)
        return
    ours = private(cluster(named))
    try:
        yield ours
    finally:
        remove_all(ours)


def settings_of(where: Cluster) -> dict[str, str]:
    """What makes a program use it, without a password."""
    prefix = {"TASKTRAIL_KAFKA_PREFIX": where.prefix} if where.prefix else {}
    return {"TASKTRAIL_KAFKA": where.bootstrap, **prefix}


def private(shared: Cluster) -> Cluster:
    """The same with topics and groups that nobody else has."""
    return replace(shared, prefix=f"{shared.prefix}test-{uuid4().hex[:12]}.")


def remove_all(where: Cluster) -> None:
    """Remove the topics and groups of that prefix."""
    client = _client(where)
    topics = [name for name in client.list_topics(timeout=ANSWER_S).topics if name.startswith(where.prefix)]
    going = client.delete_topics(topics, request_timeout=ANSWER_S).values() if topics else []
    groups = [one.group_id for one in client.list_consumer_groups(request_timeout=ANSWER_S).result().valid]
    mine = [name for name in groups if name.startswith(where.prefix)]
    leaving = client.delete_consumer_groups(mine, request_timeout=ANSWER_S).values() if mine else []
    for future in going:
        future.result()
    for future in leaving:
        future.exception()  # a member that was killed counts until its session ends: that group stays, empty and without a topic


def _client(one: Cluster) -> admin.AdminClient:
    return admin.AdminClient({**one.options(), "log_level": 2})  # type: ignore[dict-item]


def delete_records(where: Cluster, topic: str, before: Mapping[int, int]) -> None:
    """In each partition, throw away all messages before the offset."""
    wanted = [confluent_kafka.TopicPartition(where.ours(topic), number, offset) for number, offset in before.items()]
    client = _client(where)  # it must outlive the answers
    for future in client.delete_records(wanted, request_timeout=ANSWER_S).values():
        future.result()


def set_topic(where: Cluster, topic: str, name: str, value: str) -> None:
    """Change a setting of a topic."""
    entry = admin.ConfigEntry(name, value, incremental_operation=admin.AlterConfigOpType.SET)
    resource = admin.ConfigResource(admin.ConfigResource.Type.TOPIC, where.ours(topic), incremental_configs=[entry])
    client = _client(where)
    for future in client.incremental_alter_configs([resource], request_timeout=ANSWER_S).values():
        future.result()


def own(topic: Topic) -> Topic:
    """The topic under a name that no other test has."""
    return topic._replace(name=f"test-{os.getpid()}-{next(_numbers)}-{topic.name}")
