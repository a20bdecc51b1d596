"""A Kafka and a ClickHouse that all tests of a session share, and a Kafka that they may kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cluster import Cluster, cluster
from deploy.local.kafka import Kafka
from schemas.limits import RETENTION_DAYS_MAX
from store import migrate
from store.address import Address
from store.server import Server
from tests.contract.named_store import named_address, private_database
from tests.e2e.running import Place, open_directory
from tests.fleet.kafka_for_tests import needs_its_own_kafka, private, started_kafka
from tests.fleet.producing import Producing
from tests.fleet.streaming import Fleet, Parts, prepare, started_fleet


@pytest.fixture(scope="session")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that no test kills, for use under prefixes of one's own."""
    with started_kafka(tmp_path_factory) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def killable_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that tests may kill and let hang."""
    needs_its_own_kafka("kills its broker, lets it hang or looks at its disk")
    with Kafka(tmp_path_factory.mktemp("killable")) as kafka:
        yield kafka


@pytest.fixture
def kafka(killable_kafka: Kafka) -> Iterator[Kafka]:
    """The same; it lives again when the test has ended."""
    yield killable_kafka
    revive(killable_kafka)


def revive(kafka: Kafka) -> None:
    """Let a broker live, whatever was done to it."""
    if kafka.process is None:
        kafka.start()
    else:
        kafka.resume()


@pytest.fixture
def own_cluster(kafka_cluster: Cluster) -> Cluster:
    """Nothing is in it yet."""
    return private(kafka_cluster)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server | None]:
    """A ClickHouse that no test kills; None where another one is named."""
    if named_address():
        yield None
        return
    with open_directory() as directory, Server(directory / "store") as server:
        yield server


@pytest.fixture(scope="session")
def addresses(shared_server: Server | None) -> Iterator[dict[str, Address]]:
    """Of its reader and its writer, to a database with our tables."""
    named = named_address()
    if shared_server is None:
        assert named is not None
        with private_database(named) as ours:
            migrate.apply(ours, RETENTION_DAYS_MAX)
            yield {"reader": ours, "writer": ours}
        return
    migrate.apply(shared_server.address("writer"), RETENTION_DAYS_MAX)
    yield {role: shared_server.address(role) for role in ("reader", "writer")}


@pytest.fixture
def producing(request: pytest.FixtureRequest, place: Place) -> Iterator[Producing]:
    """`produce` with a small ring, so that it is a quarter full soon, into the broker that the test may kill, if it asks for one.
    Nothing is started yet."""
    place.env["TASKTRAIL_RING_BYTES"] = "8MiB"
    if "kafka" in request.fixturenames:
        kafka: Kafka = request.getfixturevalue("kafka")
        where = private(cluster(kafka.address))
    else:
        where = request.getfixturevalue("own_cluster")
    producing = Producing(place, where)
    yield producing
    producing.end()


@pytest.fixture(scope="module")
def parts(kafka_cluster: Cluster, addresses: dict[str, Address]) -> Parts:
    """Topics of the module's own, for tests that kill neither Kafka nor ClickHouse."""
    made = Parts(None, private(kafka_cluster), None, addresses)
    prepare(made)
    return made


@pytest.fixture
def fleet(parts: Parts, tmp_path: Path) -> Iterator[Fleet]:
    """No worker yet."""
    with started_fleet(parts, tmp_path) as made:
        yield made
