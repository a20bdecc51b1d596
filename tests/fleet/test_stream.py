"""The same recordings through Kafka and Faust and through the embedded join: the rows are the same, whatever happens to the workers."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cluster import cluster
from broker.connection import Admin, LogReader, Sender
from deploy.local.kafka import Kafka
from queries.rows import NEWEST, fetch
from schemas import topics
from schemas.batch import encode_batch
from schemas.errors import Unavailable
from schemas.limits import RETENTION_DAYS_MAX
from schemas.rows import ImageRow, LossRow, Row
from store import migrate
from store.address import Address
from store.connection import Connection
from store.server import Server
from tests.e2e.running import ROOT, open_directory, wait_until
from tests.sim.oracle import store_of
from tests.sim.scenario import joined
from tests.sim.test_fleet import hosts_of, interleaved
from tests.sim.test_sim import unequal

PARTITIONS = 6
GROUP = "tasktrail"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A real Kafka."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


class Fleet:
    """Topics of its own would be better for a broker that is shared; here the broker is ours, and each test has its own store."""

    def __init__(self, kafka: Kafka, server: Server, directory: Path) -> None:
        self.kafka, self.server, self.directory = kafka, server, directory
        self.cluster = cluster(kafka.address)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.reader = LogReader(self.cluster)

    @property
    def writer(self) -> Address:
        """Who may write."""
        return self.server.address("writer")

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """One more worker."""
        number = len(self.workers)
        url = f"clickhouse://{self.writer.user}@127.0.0.1:{self.writer.port}/tasktrail"
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TASKTRAIL_PASSWORD": self.writer.password}
        command = [sys.executable, "-m", "tasktrail", "stream", "--kafka", self.kafka.address, "--store", url, "--session", "6"]
        command += ["--state-dir", str(self.directory / f"worker-{number}")]
        with (self.directory / f"worker-{number}.log").open("wb") as log:
            self.workers.append(subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=self.directory))
        return self.workers[-1]

    def said(self) -> str:
        """What the workers said."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("worker-*.log")))

    def produce(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Send and wait."""
        sender = Sender(self.cluster)
        for key, value in messages:
            while not sender.send(topics.EVENTS, key, value, {topics.VERSION: topics.MESSAGE_VERSION}):
                sender.poll(0.1)
        assert sender.flush(60) == 0

    def caught_up(self, seconds: float = 120) -> None:
        """Until all that was produced is committed."""

        def all_committed() -> bool:
            try:
                ends = self.reader.watermarks(topics.EVENTS, range(PARTITIONS))
                committed = self.reader.committed(GROUP, topics.EVENTS, range(PARTITIONS))
            except Unavailable:
                return False  # a group that is new has no coordinator yet
            return all(committed[number] == mark.end for number, mark in ends.items() if mark.end)

        wait_until(all_committed, f"everything being committed; the workers said {self.said()}", seconds)

    def rows(self) -> list[Row]:
        """What is stored."""
        with Connection(self.server.address("reader")) as connection:
            images: list[Row] = [*fetch(connection, ImageRow, NEWEST)]
            return images + fetch(connection, LossRow, "", table="losses")

    def end(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.reader.close()


@pytest.fixture
def fleet(kafka: Kafka) -> Iterator[Fleet]:
    """Empty topics, an empty store, no worker yet."""
    with open_directory() as directory, Server(directory / "store") as server:
        migrate.apply(server.address("writer"), RETENTION_DAYS_MAX)
        Admin(cluster(kafka.address)).create_topics(topics.topics(PARTITIONS, replication=1), 1)
        made = Fleet(kafka, server, directory)
        try:
            yield made
        finally:
            made.end()


def test_the_rows_are_those_of_one_host(fleet: Fleet) -> None:
    logs, rng = hosts_of(7), random.Random(7)
    messages = [(str(batch.host_id).encode(), encode_batch(batch)) for batch in interleaved(logs, rng)]
    expected = store_of([row for log in logs for row in joined(log)[0]])
    third = len(messages) // 3
    fleet.start_worker()
    fleet.produce(messages[:third])
    fleet.caught_up()
    second = fleet.start_worker()
    fleet.produce(messages[third : 2 * third])
    second.kill()
    fleet.produce(messages[2 * third :])
    fleet.start_worker()
    fleet.caught_up()
    different = unequal(store_of(fleet.rows()), expected)
    assert not different, different
    fleet.workers[0].terminate()
    assert fleet.workers[0].wait(15) == 0, fleet.said()
