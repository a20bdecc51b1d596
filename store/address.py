"""Where a ClickHouse is and who asks: what ``clickhouse://user:password@host:port,other:port/database?ca_certs=FILE`` says."""

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from schemas.errors import BadInput

DATABASE = "tasktrail"
PASSWORD_VARIABLE = "TASKTRAIL_PASSWORD"
PORT = 9000
PORT_SECURE = 9440
SCHEMES = ("clickhouse", "clickhouses")


class Address(NamedTuple):
    """One way into a server.

    host      name or address
    port      of the native protocol
    user      user's name
    password  its password; never shown (``str`` leaves it out)
    database  the database that unqualified names mean
    secure    TLS
    http_port of the same server, 0 if not known
    verify    with TLS: the server's certificate must be for its name and from an authority that is known
    ca_certs  with TLS: file with the authorities' certificates, empty for the well-known ones
    alt_hosts other servers that hold the same, host:port,host:port; they are taken in turn when one cannot be reached
    """

    host: str
    port: int
    user: str
    password: str
    database: str = DATABASE
    secure: bool = False
    http_port: int = 0
    verify: bool = True
    ca_certs: str = ""
    alt_hosts: str = ""

    def __str__(self) -> str:
        scheme = "clickhouses" if self.secure else "clickhouse"
        others = f",{self.alt_hosts}" if self.alt_hosts else ""
        return f"{scheme}://{self.user}@{_place(self.host, self.port)}{others}/{self.database}"

    def __repr__(self) -> str:
        return f"Address({self})"

    def next(self) -> "Address":
        """The same with the next server first."""
        if not self.alt_hosts:
            return self
        first, *rest = self.alt_hosts.split(",")
        there = urlsplit(f"//{first}")
        assert there.hostname is not None and there.port is not None, self.alt_hosts
        return self._replace(host=there.hostname, port=there.port, alt_hosts=",".join([*rest, _place(self.host, self.port)]))


def is_address(store: str) -> bool:
    """Whether this names a server, not a directory."""
    return store.split("://", 1)[0] in SCHEMES and "://" in store


def parse(url: str, environment: Mapping[str, str]) -> Address:
    """The address that a clickhouse:// (or clickhouses://, TLS) URL means; a password in ``environment`` goes before one in the URL.

    Several servers are given as host:port,host:port, or the others as alt_hosts=. Options: alt_hosts, secure, verify, ca_certs.
    Raises BadInput where the URL has no host, a bad port or an option that is not known.
    """
    parts = _URL.fullmatch(url)
    if not parts:
        raise BadInput(f"store address {_without_password(url)} is no address", _CURE)
    scheme, netloc, path, query = parts.groups(default="")
    who, _, where = netloc.rpartition("@")
    options = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    unknown = options.keys() - {"alt_hosts", "secure", "verify", "ca_certs"}
    if unknown:
        raise BadInput(f"store address: option {min(unknown)} is not known", "there are alt_hosts, secure, verify and ca_certs")
    secure = scheme == "clickhouses" or _flag(options, "secure", default=False)
    try:
        places = [
            _server(one, PORT_SECURE if secure else PORT) for one in where.split(",") + options.get("alt_hosts", "").split(",") if one
        ]
    except ValueError as bad:
        raise BadInput(f"store address {_without_password(url)}: {bad}", _CURE) from None
    if scheme not in SCHEMES or not places:
        raise BadInput(f"store address {_without_password(url)} names no server", _CURE)
    user, _, password = who.partition(":")
    (host, port), *others = places
    return Address(
        host,
        port,
        unquote(user or "default"),
        environment.get(PASSWORD_VARIABLE) or unquote(password),
        unquote(path.strip("/")) or DATABASE,
        secure,
        verify=_flag(options, "verify", default=True),
        ca_certs=options.get("ca_certs", ""),
        alt_hosts=",".join(_place(*one) for one in others),
    )


_URL = re.compile(r"([a-z]+)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
_CURE = "write clickhouse://user@host:9000/tasktrail"


def _server(text: str, port: int) -> tuple[str, int]:
    """Host and port of ``host:port``. Raises ValueError."""
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no server")
    return parts.hostname, parts.port or port


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    """Whether the option is on. Raises BadInput for what is neither."""
    value = options.get(name, str(default)).lower()
    if value not in ("1", "true", "0", "false", ""):
        raise BadInput(f"store address: {name} is {value!r}", f"write {name}=1 or {name}=0")
    return value in ("1", "true")


def _without_password(url: str) -> str:
    """The URL as it may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://', 1)[0]}://...@{tail}" if at else url
