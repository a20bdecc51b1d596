"""What the tests of `stream` share: a Kafka and a ClickHouse, workers as processes, messages whose rows are known.

Topics and tables are shared: every test sends batches of hosts that no other has, and looks at these alone.
"""

import contextlib
import random
import re
import select
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from broker.cluster import Cluster, cluster
from broker.connection import Admin, LogReader, Sender
from broker.edges import Record
from deploy.local.kafka import Kafka
from queries.rows import fetch
from schemas import topics
from schemas.batch import Batch, encode_batch
from schemas.errors import Unavailable
from schemas.limits import RETENTION_DAYS_MAX
from schemas.rows import HostRow, ImageRow, LossRow, Row
from store import migrate
from store.address import Address
from store.connection import Connection
from store.server import Server
from tests.e2e.running import ROOT, open_directory, wait_until
from tests.fleet.kafka_for_tests import delete_records, set_topic, settings_of
from tests.sim.oracle import store_of
from tests.sim.scenario import joined
from tests.sim.test_fleet import hosts_of, interleaved
from tests.sim.test_sim import unequal

PARTITIONS = 6
GROUP = "tasktrail"
SESSION_S = 6.0
PLAIN = {topics.VERSION: topics.MESSAGE_VERSION}


def pause(seconds: float) -> None:
    """Let some time go by, where what is tested is that nothing happens at some moment rather than at another."""
    select.select([], [], [], seconds)


class Sent(NamedTuple):
    """A message as a producer sends it."""

    key: bytes
    value: bytes
    headers: Mapping[str, bytes] = PLAIN


def message_of(batch: Batch) -> Sent:
    """The batch as a message without any fact about who sends it."""
    return Sent(str(batch.host_id).encode(), encode_batch(batch))


class Known(NamedTuple):
    """Batches of some hosts, and the same as messages in an order in which they may arrive."""

    logs: list[list[Batch]]
    messages: list[Sent]

    @property
    def boots(self) -> set[UUID]:
        """All boots in them."""
        return {batch.boot_id for log in self.logs for batch in log}

    def different(self, rows: Iterable[Row]) -> str:
        """The first differences between these rows and those of the embedded join; empty if there are none."""
        expected = [row for log in self.logs for row in joined(log)[0]]
        return unequal(store_of(rows), store_of(expected))


def known(seed: int) -> Known:
    """Five hosts, one of which has losses of all kinds: some hundreds of messages. Each seed has hosts of its own."""
    logs = hosts_of(seed)
    return Known(logs, [message_of(batch) for batch in interleaved(logs, random.Random(seed))])


class Parts(NamedTuple):
    """A Kafka and a ClickHouse; ``kafka`` and ``server`` are None where they must not be killed."""

    kafka: Kafka | None
    cluster: Cluster
    server: Server | None
    addresses: dict[str, Address]


def addresses_of(server: Server) -> dict[str, Address]:
    """The ways into it."""
    return {role: server.address(role) for role in ("reader", "writer")}


@contextlib.contextmanager
def running_parts(directory: Path) -> Iterator[Parts]:
    """Both, with topics and tables, to be killed at will."""
    with open_directory() as open_one, Server(open_one / "store") as server, Kafka(directory / "kafka") as kafka:
        made = Parts(kafka, cluster(kafka.address), server, addresses_of(server))
        prepare(made)
        yield made


def prepare(parts: Parts) -> None:
    """Make topics and tables."""
    migrate.apply(parts.addresses["writer"], RETENTION_DAYS_MAX)
    Admin(parts.cluster).create_topics(topics.topics(PARTITIONS, replication=1), 1)


class Worker:
    """`tasktrail stream` as a process, with its numbers served."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as said:
            self.process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=log.parent)

    def said(self) -> str:
        """What it has said."""
        return self.log.read_text()

    def lives(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9; it is dead on return."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Let it hang, its connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds: float = 15.0) -> int:
        """Ask it to end; its exit code. Fails when it takes longer."""
        self.process.terminate()
        return self.process.wait(seconds)

    def metrics(self) -> dict[str, float]:
        """Its numbers by name and labels, as they are served."""
        found = re.search(r"metrics on port (\d+)", self.said())
        if not found:
            return {}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/metrics", timeout=10) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return {}
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))}

    def number(self, name: str) -> float:
        """One of them, 0 while it does not serve it. Counters are served under their name and ``_total``."""
        numbers = self.metrics()
        return numbers.get(f"tasktrail_{name}", numbers.get(f"tasktrail_{name}_total", 0.0))


class Load(threading.Thread):
    """Sends messages evenly over some seconds, each when its turn comes; whether the brokers are there or not."""

    def __init__(self, where: Cluster, messages: Sequence[Sent], seconds: float, sent: Callable[[int], None] | None = None) -> None:
        """``sent`` is told the number of each message that is sent, in this thread."""
        super().__init__(daemon=True)
        self._sent = sent
        self._sender = Sender(where)
        self._messages, self._seconds = messages, seconds
        self._cut_short = threading.Event()
        self.undelivered = 0
        self.start()

    def run(self) -> None:
        """The thread."""
        begun = time.monotonic()
        for number, one in enumerate(self._messages):
            self._cut_short.wait(max(0.0, begun + self._seconds * number / len(self._messages) - time.monotonic()))
            while not self._sender.send(topics.EVENTS, one.key, one.value, one.headers):
                self._sender.poll(0.1)
            self._sender.poll(0)
            if self._sent is not None:
                self._sent(number)
        self.undelivered = self._sender.flush(120)

    def all_sent(self) -> None:
        """Send what is left at once, and wait until the brokers have all of it."""
        self._cut_short.set()
        self.join(150)
        assert not self.is_alive()
        assert not self.undelivered


class Fleet:
    """The workers of one test."""

    def __init__(self, parts: Parts, directory: Path) -> None:
        self.parts, self.directory = parts, directory
        self.workers: list[Worker] = []
        self.environment: dict[str, str] = {}
        self.store_host, self.store_port = parts.addresses["writer"].host, parts.addresses["writer"].port
        self._reader = LogReader(parts.cluster)
        # A topic that was made just now has no leader yet.
        self._dead_before = wait_until(self._dead_ends, "a leader for each partition", 240)

    def start_worker(self, *arguments: str) -> Worker:
        """One more worker."""
        writer, number = self.parts.addresses["writer"], len(self.workers)
        url = str(writer._replace(host=self.store_host, port=self.store_port))
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "TASKTRAIL_PASSWORD": writer.password}
        environment |= {"TASKTRAIL_METRICS": "127.0.0.1:0", **settings_of(self.parts.cluster), **self.environment}
        command = [sys.executable, "-m", "tasktrail", "stream", "--store", url]
        command += ["--session", f"{SESSION_S:g}", "--state-dir", str(self.directory / f"worker-{number}"), *arguments]
        self.workers.append(Worker(command, environment, self.directory / f"worker-{number}.log"))
        return self.workers[-1]

    def ready(self, *workers: Worker) -> None:
        """Until each of these has partitions."""
        for worker in workers:
            wait_until(partial(worker.number, "worker_partitions"), f"{worker.log.name} having partitions", 240)

    def said(self) -> str:
        """What the workers said."""
        return "\n".join(worker.said() for worker in self.workers)

    def produce(self, messages: Iterable[Sent]) -> None:
        """Send, and wait until the brokers have them."""
        sender = Sender(self.parts.cluster)
        for one in messages:
            while not sender.send(topics.EVENTS, one.key, one.value, one.headers):
                sender.poll(0.1)
        assert sender.flush(60) == 0

    def load(self, messages: Sequence[Sent], seconds: float, sent: Callable[[int], None] | None = None) -> Load:
        """Send them evenly over that time, in a thread."""
        return Load(self.parts.cluster, messages, seconds, sent)

    def _ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        return {number: mark.end for number, mark in self._reader.watermarks(topic, partitions).items()}

    def _dead_ends(self) -> dict[int, int]:
        try:
            return self._ends(topics.DEADLETTER, range(topics.DEADLETTER_PARTITIONS))
        except Unavailable:
            return {}

    def uncommitted(self) -> dict[int, int] | None:
        """Of each partition that is not committed to its end, how many messages are not; None where nobody can tell now."""
        try:
            ends = self._ends(topics.EVENTS, range(PARTITIONS))
            committed = self._reader.committed(GROUP, topics.EVENTS, range(PARTITIONS))
        except Unavailable:
            return None  # the broker is away, or the group is new and has no coordinator yet
        return {number: end - (committed[number] or 0) for number, end in ends.items() if end > (committed[number] or 0)}

    def caught_up(self, seconds: float = 300) -> None:
        """Until all that was produced is committed."""
        try:
            wait_until(lambda: self.uncommitted() == {}, "everything being committed", seconds)
        except AssertionError as late:
            late.add_note(f"not committed: {self.uncommitted()}; the workers said {self.said()}")
            for worker in self.workers:
                late.add_note(f"{worker.log.name}: {worker.process.poll()} {worker.metrics()}")
            raise

    def rows(self, boots: Iterable[UUID]) -> list[Row]:
        """All rows of these boots that are stored, superseded ones included."""
        where = "WHERE boot_id IN ('" + "', '".join(map(str, boots)) + "')"
        with Connection(self.parts.addresses["reader"]) as connection:
            found: list[Row] = [*fetch(connection, ImageRow, where), *fetch(connection, LossRow, where, table="losses")]
            return found + fetch(connection, HostRow, where, table="hosts")

    def check(self, *all_known: Known) -> None:
        """Everything is committed, and the rows are those of the embedded join."""
        self.caught_up()
        for one in all_known:
            different = one.different(self.rows(one.boots))
            assert not different, f"{different}\nthe workers said {self.said()}"

    def delete_states(self) -> set[int]:
        """Have the brokers delete all records of the topic of states, as an administrator does; gives the partitions that had any."""
        ends = self._ends(topics.STATE, {record.partition for record in self.topic(topics.STATE)})
        set_topic(self.parts.cluster, topics.STATE, "cleanup.policy", "compact,delete")  # only then it is allowed
        delete_records(self.parts.cluster, topics.STATE, ends)
        set_topic(self.parts.cluster, topics.STATE, "cleanup.policy", "compact")
        assert not self.topic(topics.STATE)
        return set(ends)

    def delete_events(self) -> None:
        """Have the brokers delete all batches there are, as they do when these are too old."""
        delete_records(self.parts.cluster, topics.EVENTS, self._ends(topics.EVENTS, range(PARTITIONS)))
        assert not self.topic(topics.EVENTS)

    def forget_states(self) -> set[int]:
        """Empty the topic of states, state by state; gives the partitions that had any."""
        states = {(record.partition, record.key) for record in self.topic(topics.STATE)}
        sender = Sender(self.parts.cluster)
        for partition, key in states:
            assert sender.send(topics.STATE, key, b"", {}, partition)
        assert sender.flush(60) == 0
        return {partition for partition, _ in states}

    def dead(self) -> list[Record]:
        """Dead letters that came since the test began."""
        return list(self._reader.read(topics.DEADLETTER, self._dead_before))

    def topic(self, name: str) -> list[Record]:
        """All messages of one of the other topics."""
        marks = self._reader.watermarks(name, range(PARTITIONS))
        return list(self._reader.read(name, {number: mark.low for number, mark in marks.items()}))

    def end(self) -> None:
        """End the workers, as quickly as a group forgets them."""
        for worker in self.workers:
            if worker.lives():
                worker.thaw()
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
        self._reader.close()


@contextlib.contextmanager
def started_fleet(parts: Parts, directory: Path) -> Iterator[Fleet]:
    """No worker yet."""
    fleet = Fleet(parts, directory)
    try:
        yield fleet
    finally:
        fleet.end()
