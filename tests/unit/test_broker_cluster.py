"""Addresses of a Kafka cluster and how one proves who one is, from settings to the client's options."""

import pytest

from broker.cluster import SYSTEM_CA, Cluster, cluster, parse_servers
from schemas.errors import BadInput


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("k1:9092,k2:9093", (("k1", 9092), ("k2", 9093))),
        (" k1 , k2:1 ", (("k1", 9092), ("k2", 1))),
        ("[::1]:9092,[fe80::1]", (("::1", 9092), ("fe80::1", 9092))),
    ],
)
def test_servers_are_read(text: str, servers: tuple[tuple[str, int], ...]) -> None:
    found = parse_servers(text)
    assert found == servers
    assert parse_servers(Cluster(found).bootstrap) == servers


@pytest.mark.parametrize("text", ["", "k1,", ":9092", "k1:", "k1:x", "k1:0", "k1:70000", "::1:9092", "a b:1", "k1:٣"])
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(BadInput):
        parse_servers(text)


def test_plain_text_is_the_default() -> None:
    assert cluster("k1").options() == {"bootstrap.servers": "k1:9092", "security.protocol": "plaintext"}


def test_a_ca_means_encryption() -> None:
    own = cluster("k1", ca="/ca.pem", cert="/c.pem", key="/k.pem").options()
    assert own["security.protocol"] == "ssl"
    assert (own["ssl.ca.location"], own["ssl.certificate.location"], own["ssl.key.location"]) == ("/ca.pem", "/c.pem", "/k.pem")
    assert "ssl.ca.location" not in cluster("k1", ca=SYSTEM_CA).options()


def test_a_user_means_scram() -> None:
    found = cluster("k1", user="web", password="s3cret")
    assert found.options() | {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "web"} == found.options()
    assert found.options()["security.protocol"] == "sasl_plaintext"
    assert cluster("k1", ca="/ca", user="web", password="x", mechanism="plain").options()["security.protocol"] == "sasl_ssl"
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    "given",
    [
        {"cert": "/c"},
        {"key": "/k", "ca": "/ca"},
        {"cert": "/c", "key": "/k"},
        {"user": "web"},
        {"password": "x"},
        {"mechanism": "GSSAPI", "user": "web", "password": "x"},
        {"mechanism": "PLAIN", "user": "web", "password": "x"},
        {"mechanism": "SCRAM-SHA-256"},
        {"prefix": "a b"},
        {"prefix": "x" * 101},
    ],
)
def test_halves_and_what_no_topic_can_be_called_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        cluster("k1", **given)
