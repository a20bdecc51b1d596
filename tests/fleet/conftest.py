"""The fleet's tests run on a real Kafka and a real ClickHouse: those that they start, or those that TASKTRAIL_TEST_KAFKA and
TASKTRAIL_TEST_CLICKHOUSE name. A test that kills one has one of its own."""

from tests.e2e.conftest import kernel_allows_recording, place, programs
from tests.fleet.fixtures import addresses, fleet, kafka, kafka_cluster, killable_kafka, own_cluster, parts, producing, shared_server

__all__ = [
    "addresses",
    "fleet",
    "kafka",
    "kafka_cluster",
    "kernel_allows_recording",
    "killable_kafka",
    "own_cluster",
    "parts",
    "place",
    "producing",
    "programs",
    "shared_server",
]
