"""Kafka over TLS with SASL, by settings: who has no certificate or not the password gets nowhere and is told so."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.cluster import Cluster, cluster
from broker.connection import Admin, LogReader, Sender
from deploy.local.kafka import Kafka
from schemas.errors import TasktrailError, Unavailable
from schemas.topics import topics
from tests.fleet.kafka_for_tests import needs_its_own_kafka

PASSWORD = "no-secret-in-tests"
WAIT_S = 30.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with a CA, and a certificate of it for 127.0.0.1 with its key: ca.pem, broker.pem (both, as Kafka wants them)."""
    at = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=at, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl(
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        )
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "broker.key", "-out", "broker.csr", "-subj", "/CN=127.0.0.1")
    (at / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "x509", "-req", "-in", "broker.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-out", "broker.crt", "-days", "2", "-extfile", "names"
    )
    (at / "broker.pem").write_text((at / "broker.key").read_text() + (at / "broker.crt").read_text())
    return at


@pytest.fixture(scope="module", params=["PLAIN", "SCRAM-SHA-512"])
def secured(request: pytest.FixtureRequest, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that takes one user by this mechanism, over TLS."""
    needs_its_own_kafka("sets up how one gets in")
    login = f"required username=web password={PASSWORD}"
    plain = f"org.apache.kafka.common.security.plain.PlainLoginModule {login} user_web={PASSWORD};"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    settings = {
        "listener.security.protocol.map": "BROKER:SASL_SSL,CONTROLLER:PLAINTEXT",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificates / "ca.pem"),
        "sasl.enabled.mechanisms": request.param,
        "sasl.mechanism.inter.broker.protocol": request.param,
        f"listener.name.broker.{request.param.lower()}.sasl.jaas.config": plain if request.param == "PLAIN" else scram,
    }
    users = [f"{request.param}=[name=web,password={PASSWORD}]"] if request.param != "PLAIN" else []
    with Kafka(tmp_path_factory.mktemp("kafka"), settings=settings, users=users) as kafka:
        ca = str(certificates / "ca.pem")
        yield cluster(kafka.address, ca=ca, user="web", password=PASSWORD, mechanism=request.param)


def test_messages_pass_with_the_right_ca_and_password(secured: Cluster) -> None:
    topic = topics(1, 1, 1)[0]
    assert Admin(secured).create_topics([topic], 1) == [topic.name]
    told: list[TasktrailError | None] = []
    sender = Sender(secured)
    assert sender.send(topic.name, b"key", b"value", on_done=told.append)
    assert sender.flush(WAIT_S) == 0 and told == [None]
    sender.close()
    reader = LogReader(secured)
    assert [one.value for one in reader.read(topic.name, {0: 0})] == [b"value"]
    reader.close()


def test_a_wrong_password_is_told_as_that(secured: Cluster) -> None:
    sender = Sender(replace(secured, password="wrong"))
    with pytest.raises(Unavailable):
        sender.partitions("any", 3.0)
    assert "uthentication" in sender.trouble and "wrong" not in sender.trouble
    sender.close()


def test_a_broker_that_another_ca_vouches_for_is_not_spoken_to(secured: Cluster, certificates: Path) -> None:
    sender = Sender(replace(secured, ca=str(certificates / "other.pem")))
    with pytest.raises(Unavailable):
        sender.partitions("any", 3.0)
    assert "certificate" in sender.trouble
    sender.close()
    plain = Sender(Cluster(secured.servers))
    with pytest.raises(Unavailable):
        plain.partitions("any", 2.0)
    plain.close()
