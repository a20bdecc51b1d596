"""deploy/kafka/acls.sh on a real Kafka with an authorizer: each user can do its work, and nothing else."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from broker.cluster import Cluster, cluster
from broker.connection import LogReader, Sender
from deploy.local.hosts import Identity, boot
from deploy.local.kafka import Kafka, jars, tools
from queries.recordings import batches
from schemas import topics
from schemas.batch import Batch, encode_batch
from schemas.errors import TasktrailError
from store.address import Address
from store.connection import Connection
from tasktrail.demo import RECORDING, open_recording
from tests.e2e.running import ROOT, TASKTRAIL, Place, open_directory, wait_until
from tests.fleet.kafka_for_tests import needs_its_own_kafka

USERS = ("admin", "tasktrail-producer", "tasktrail-worker", "tasktrail-operator", "stranger")
PASSWORD = "no-secret-in-tests"
MECHANISM = "SCRAM-SHA-512"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"
PARTITIONS = 4
WAIT_S = 30.0
EVERY_TOPIC = (topics.EVENTS, topics.STATE, topics.DEADLETTER)


class Guarded:
    """A Kafka that lets nobody do anything but what acls.sh allows, with the fleet's topics in it."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address, self.directory = address, directory
        self.password_file = directory / "password"
        self.password_file.write_text(PASSWORD + "\n")

    def of(self, user: str) -> Cluster:
        """How that user gets in."""
        return cluster(self.address, user=user, password=PASSWORD, mechanism=MECHANISM)

    def environment(self, user: str) -> dict[str, str]:
        """The same as settings."""
        names = {"KAFKA": self.address, "KAFKA_USER": user, "KAFKA_PASSWORD_FILE": str(self.password_file), "KAFKA_MECHANISM": MECHANISM}
        return {f"TASKTRAIL_{name}": value for name, value in names.items()}

    def tasktrail(self, user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command as that user."""
        env = {**os.environ, **self.environment(user)}
        return subprocess.run([*TASKTRAIL, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def give_rights(self) -> None:
        """Runs acls.sh as an administrator would, with Kafka's own tool."""
        admin = self.directory / "admin.properties"
        login = f'sasl.jaas.config={SCRAM} username="admin" password="{PASSWORD}";'
        admin.write_text(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism={MECHANISM}\n{login}\n")
        tool = self.directory / "kafka-acls.sh"
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{tools()}:{jars()}/*", "org.apache.kafka.tools.AclCommand"]
        tool.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        tool.chmod(0o755)
        script = [str(ROOT / "deploy" / "kafka" / "acls.sh"), self.address, str(admin)]
        done = subprocess.run(script, env={**os.environ, "KAFKA_ACLS": str(tool)}, capture_output=True, text=True, timeout=120, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Guarded]:
    """One for all tests here. The controller's own listener, on 127.0.0.1, asks for no password."""
    needs_its_own_kafka("gives rights to users")
    settings = {
        "listener.security.protocol.map": "BROKER:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": MECHANISM,
        "sasl.mechanism.inter.broker.protocol": MECHANISM,
        f"listener.name.broker.{MECHANISM.lower()}.sasl.jaas.config": f'{SCRAM} username="admin" password="{PASSWORD}";',
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:admin;User:ANONYMOUS",
    }
    users = [f"{MECHANISM}=[name={user},password={PASSWORD}]" for user in USERS]
    with open_directory() as directory, Kafka(directory / "kafka", settings=settings, users=users) as kafka:
        made = Guarded(kafka.address, directory)
        made.give_rights()
        done = made.tasktrail("tasktrail-operator", "topics", "create", "--replication", "1", "--partitions", str(PARTITIONS))
        assert done.returncode == 0, done.stderr
        yield made


def written(who: Cluster, topic: str) -> bool:
    """Whether the user can write there."""
    sender, told = Sender(who, delivery_ms=5_000), list[TasktrailError | None]()
    try:
        sender.send(topic, b"key", b"value", on_done=told.append)
        sender.flush(WAIT_S)
    finally:
        sender.close()
    assert len(told) == 1
    assert told[0] is None or re.search("uthoriz|fatal", f"{told[0]} {sender.trouble} {sender.broken}"), told
    return told[0] is None


def read(who: Cluster, topic: str) -> bool:
    """Whether the user can read there."""
    reader = LogReader(who, answer_s=5.0)
    try:
        list(reader.read(topic, dict.fromkeys(range(reader.partitions(topic)), 0)))
    except TasktrailError as refused:
        assert "uthoriz" in str(refused), refused
        return False
    finally:
        reader.close()
    return True


@pytest.mark.parametrize(
    ("user", "writes", "reads"),
    [
        ("admin", set(EVERY_TOPIC), set(EVERY_TOPIC)),
        ("tasktrail-producer", {topics.EVENTS}, set()),
        ("tasktrail-worker", {topics.STATE, topics.DEADLETTER}, {topics.EVENTS, topics.STATE}),
        ("tasktrail-operator", set(), set()),
        ("stranger", set(), set()),
    ],
)
def test_each_user_writes_and_reads_only_what_is_its_own(guarded: Guarded, user: str, writes: set[str], reads: set[str]) -> None:
    assert all(written(guarded.of("admin"), topic) for topic in EVERY_TOPIC)  # so that there is something to read
    who = guarded.of(user)
    assert {topic for topic in EVERY_TOPIC if written(who, topic)} == writes
    assert {topic for topic in EVERY_TOPIC if read(who, topic)} == reads


@pytest.mark.parametrize(("user", "may"), [("tasktrail-worker", True), ("tasktrail-producer", False), ("stranger", False)])
def test_only_workers_are_of_the_group(guarded: Guarded, user: str, may: bool) -> None:
    reader = LogReader(guarded.of(user), answer_s=5.0)
    try:
        if may:
            assert set(reader.committed("tasktrail", topics.EVENTS, range(PARTITIONS))) == set(range(PARTITIONS))
        # The client goes on asking who coordinates a group that it may not see.
        with pytest.raises(TasktrailError, match=r"uthoriz|Timed out"):
            reader.committed("another" if may else "tasktrail", topics.EVENTS, range(PARTITIONS))
    finally:
        reader.close()


def test_an_operator_looks_after_topics_and_a_host_cannot(guarded: Guarded) -> None:
    shown = guarded.tasktrail("tasktrail-operator", "topics", "show")
    assert shown.returncode == 0 and len(shown.stdout.splitlines()) == len(EVERY_TOPIC), shown.stderr
    for user in ("tasktrail-producer", "stranger"):
        refused = guarded.tasktrail(user, "topics", "create", "--replication", "1", "--partitions", str(PARTITIONS))
        assert refused.returncode != 0 and "Traceback" not in refused.stderr


def recorded(host_id: UUID) -> list[Batch]:
    """A host's batches."""
    with open_recording() as file:
        return [batch for _, batch in boot(list(batches(file, RECORDING)), Identity(host_id, uuid4(), b"web-1"), 2 * 10**18, 5.0)]


def test_host_and_worker_do_their_work_with_these_rights(guarded: Guarded, place: Place, addresses: dict[str, Address]) -> None:
    host_id = uuid4()
    sender = Sender(guarded.of("tasktrail-producer"), gapless=True)
    headers = {topics.VERSION: topics.MESSAGE_VERSION, topics.SESSION: bytes(8), topics.MACHINE: bytes(8)}
    for batch in recorded(host_id):
        assert sender.send(topics.EVENTS, str(batch.host_id).encode(), encode_batch(batch), headers)
    assert sender.flush(WAIT_S) == 0
    sender.close()
    writer = addresses["writer"]
    env = {**place.env, **guarded.environment("tasktrail-worker"), "TASKTRAIL_STORE": str(writer), "TASKTRAIL_PASSWORD": writer.password}
    said = place.directory / "worker.stderr"
    with said.open("wb") as log:
        worker = subprocess.Popen([*TASKTRAIL, "stream"], env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        with Connection(addresses["reader"]) as reader:

            def rows() -> int:
                assert worker.poll() is None, said.read_text()
                return int(reader.query(f"SELECT count() FROM images WHERE host_id = '{host_id}'").rows[0][0])

            wait_until(lambda: rows() > 500, "rows of the recording", 240)
        worker.terminate()
        assert worker.wait(20) == 0, said.read_text()
        # What `admin` wrote among the events is a dead letter: this worker could put it there.
        dead = LogReader(guarded.of("admin"))
        assert "dead letters" in said.read_text()
        assert list(dead.read(topics.DEADLETTER, dict.fromkeys(range(dead.partitions(topics.DEADLETTER)), 0)))
        assert any(mark.end for mark in dead.watermarks(topics.STATE, range(PARTITIONS)).values())
        assert any(at for at in dead.committed("tasktrail", topics.EVENTS, range(PARTITIONS)).values())
        dead.close()
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def test_a_wrong_password_is_nobody(guarded: Guarded) -> None:
    reader = LogReader(replace(guarded.of("tasktrail-worker"), password="wrong"), answer_s=3.0)
    with pytest.raises(TasktrailError):
        reader.partitions(topics.EVENTS)
    reader.close()
