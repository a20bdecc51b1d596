"""Which Kafka, and how one proves who one is: texts from settings into a checked value, and that into librdkafka's options. Pure."""

import re
from dataclasses import dataclass

from schemas.errors import BadInput

PORT_DEFAULT = 9092
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{0,100}")
"""Kafka's own rule for names of topics, of which ours are short (org.apache.kafka.common.internals.Topic: 249 signs)."""
SYSTEM_CA = "system"
"""In place of a file: the certificates that the distribution trusts."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kafka cluster.

    servers    some of its brokers, (host, port)
    ca         file with the certificates that vouch for the brokers, or "system"; given, the connection is encrypted
    cert, key  files with our own certificate and its key; both or neither
    mechanism  SASL mechanism, one of MECHANISMS, or empty
    user       name for SASL
    password   for SASL
    prefix     what our topics and groups begin with there, where one Kafka serves several fleets
    """

    servers: tuple[tuple[str, int], ...]
    ca: str = ""
    cert: str = ""
    key: str = ""
    mechanism: str = ""
    user: str = ""
    password: str = ""
    prefix: str = ""

    def __repr__(self) -> str:
        """Without the password, since values like this end in messages."""
        return f"Cluster({self.bootstrap!r}, {self.protocol}, user={self.user!r})"

    @property
    def bootstrap(self) -> str:
        """``host:port,host:port``"""
        return ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.servers)

    @property
    def protocol(self) -> str:
        """Kafka's name for how the connection is made."""
        return ("SASL_" if self.mechanism else "") + ("SSL" if self.ca else "PLAINTEXT")

    def ours(self, name: str) -> str:
        """What the brokers call a topic or group of ours."""
        return self.prefix + name

    def options(self) -> dict[str, str | int | float | bool]:
        """librdkafka's options for this cluster."""
        found: dict[str, str | int | float | bool] = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol.lower()}
        if self.ca and self.ca != SYSTEM_CA:
            found["ssl.ca.location"] = self.ca
        if self.cert:
            found |= {"ssl.certificate.location": self.cert, "ssl.key.location": self.key}
        if self.mechanism:
            found |= {"sasl.mechanism": self.mechanism, "sasl.username": self.user, "sasl.password": self.password}
        return found


def parse_servers(text: str) -> tuple[tuple[str, int], ...]:
    """``k1:9092,k2`` as hosts and ports; an IPv6 address stands in brackets. Raises BadInput."""
    found = []
    for one in text.split(","):
        one = one.strip()
        host, colon, port = one.rpartition(":")
        if (one.startswith("[") and one.endswith("]")) or not colon:
            host, port = one, str(PORT_DEFAULT)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise BadInput(f"Kafka address {one!r} has several colons", "write an IPv6 address in brackets: [::1]:9092")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536 or any(sign.isspace() for sign in host):
            raise BadInput(f"Kafka address {one!r} is not host:port", "write it like k1.example:9092,k2.example:9092")
        found.append((host, int(port)))
    return tuple(found)


def cluster(
    servers: str,
    ca: str = "",
    cert: str = "",
    key: str = "",
    mechanism: str = "",
    user: str = "",
    password: str = "",
    prefix: str = "",
) -> Cluster:
    """The cluster that these texts name, checked as a whole. Raises BadInput.

    ``user`` alone means SCRAM-SHA-512. PLAIN sends the password as it is, so it wants an encrypted connection.
    """
    if bool(cert) != bool(key):
        raise BadInput("of Kafka's certificate and its key only one is given", "give both or none")
    if cert and not ca:
        raise BadInput("a certificate for Kafka is given, but not who vouches for the brokers", f"give a CA file, or {SYSTEM_CA!r}")
    if user or mechanism:
        mechanism = mechanism.upper() or "SCRAM-SHA-512"
        if mechanism not in MECHANISMS:
            raise BadInput(f"SASL mechanism {mechanism!r} is not known", "use one of " + ", ".join(MECHANISMS))
        if not user or not password:
            raise BadInput(f"Kafka's {mechanism} wants a user and a password", "give the user, and a file that holds the password")
        if mechanism == "PLAIN" and not ca:
            raise BadInput("PLAIN would send Kafka's password unencrypted", f"give a CA file or {SYSTEM_CA!r}, or use SCRAM-SHA-512")
    elif password:
        raise BadInput("a password for Kafka is given, but no user", "give the user too")
    if not _PREFIX.fullmatch(prefix):
        raise BadInput(f"{prefix!r} cannot stand before a topic's name", "use up to 100 letters, digits, points, _ and -")
    return Cluster(parse_servers(servers), ca, cert, key, mechanism, user, password, prefix)
