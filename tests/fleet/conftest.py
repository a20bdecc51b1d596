"""The fleet's tests run on a real Kafka: one that they start, or the one that TASKTRAIL_TEST_KAFKA names."""

from collections.abc import Iterator

import pytest

from broker.cluster import Cluster
from tests.fleet.kafka_for_tests import started_kafka


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that no test kills."""
    with started_kafka(tmp_path_factory) as cluster:
        yield cluster
