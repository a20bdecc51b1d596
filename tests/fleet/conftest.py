"""The fleet's tests run on a real Kafka: one that they start, or the one that TASKTRAIL_TEST_KAFKA names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cluster import Cluster
from deploy.local.kafka import Kafka
from tests.e2e.conftest import kernel_allows_recording, place, programs
from tests.e2e.running import Place
from tests.fleet.kafka_for_tests import started_kafka
from tests.fleet.producing import Producing
from tests.fleet.streaming import fleet, parts

__all__ = ["fleet", "kernel_allows_recording", "parts", "place", "programs"]


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that no test kills."""
    with started_kafka(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A broker that the test may kill."""
    with Kafka(tmp_path / "kafka") as kafka:
        yield kafka


@pytest.fixture
def producing(place: Place, kafka: Kafka) -> Iterator[Producing]:
    """`produce` into that broker, with a small ring, so that it is a quarter full soon. Nothing is started yet."""
    place.env["TASKTRAIL_RING_BYTES"] = "8MiB"
    producing = Producing(place, kafka.address)
    yield producing
    producing.end()
