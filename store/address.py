"""Where a ClickHouse is and who asks: what ``clickhouse://user:password@host:port/database`` says."""

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
    """

    host: str
    port: int
    user: str
    password: str
    database: str = DATABASE
    secure: bool = False
    http_port: int = 0

    def __str__(self) -> str:
        scheme = "clickhouses" if self.secure else "clickhouse"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{self.user}@{host}:{self.port}/{self.database}"

    def __repr__(self) -> str:
        return f"Address({self})"


def is_address(store: str) -> bool:
    """Whether this names a server, not a directory."""
    return store.split("://", 1)[0] in SCHEMES and "://" in store


def parse(url: str, environment: Mapping[str, str]) -> Address:
    """The address that a clickhouse:// (or clickhouses://, TLS) URL means; a password in ``environment`` goes before one in the URL.

    Raises BadInput where the URL has no host, a bad port or an option that is not known.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as bad:
        raise BadInput(f"store address {_without_password(url)}: {bad}", "write clickhouse://user@host:9000/tasktrail") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise BadInput(f"store address {_without_password(url)} names no server", "write clickhouse://user@host:9000/tasktrail")
    options = parse_qs(parts.query)
    secure = parts.scheme == "clickhouses" or options.pop("secure", ["0"])[-1] not in ("0", "false", "")
    if options:
        raise BadInput(f"store address: option {min(options)} is not known", "the only option is secure=1")
    password = environment.get(PASSWORD_VARIABLE) or unquote(parts.password or "")
    return Address(
        parts.hostname,
        port or (PORT_SECURE if secure else PORT),
        unquote(parts.username or "default"),
        password,
        unquote(parts.path.strip("/")) or DATABASE,
        secure,
    )


def _without_password(url: str) -> str:
    """The URL as it may be shown."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://', 1)[0]}://...@{tail}" if at else url
