"""A Kafka for tests, and names of topics that no other test has."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.cluster import Cluster, cluster
from deploy.local.kafka import Kafka
from schemas.topics import Topic

_numbers = itertools.count(1)


@contextmanager
def started_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster that TASKTRAIL_TEST_KAFKA names, else one that is started here and killed at the end."""
    named = os.environ.get("TASKTRAIL_TEST_KAFKA")
    if named:
        yield cluster(named)
        return
    with Kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield cluster(kafka.address)


def own(topic: Topic) -> Topic:
    """The topic under a name that no other test has."""
    return topic._replace(name=f"test-{os.getpid()}-{next(_numbers)}-{topic.name}")
