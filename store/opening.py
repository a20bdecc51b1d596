"""Opens a store by its name, a directory or clickhouse://..., for reading or writing."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import BadInput, TasktrailError, Unavailable
from store import address as addresses
from store import clusters, migrate
from store.address import Address
from store.connection import Connection
from store.server import Server, holder, stored_address

ROLES = ("reader", "writer")


@contextmanager
def open_for_reading(store: str, environment: Mapping[str, str] = os.environ, any_sql: bool = False) -> Iterator[Connection]:
    """A connection that can read: to the server that ``store`` names, to the one that runs on the directory, else to one started
    on it for as long as this lasts. ``any_sql``: for queries that are not ours, which may compare hosts.

    Raises BadInput (no such store, no right to it) or Unavailable (the server does not answer).
    """
    if addresses.is_address(store):
        address = addresses.parse(store, environment)
        with Connection(address, _settings(address, any_sql)) as connection:
            yield connection
        return
    directory = Path(store)
    if holder(directory):
        with Connection(_credentials(directory, "reader")) as connection:
            yield connection
        return
    if not (directory / "clickhouse").is_dir():
        raise BadInput(f"there is no store in {directory}", "record with tasktrail run, or name another store with --store")
    with Server(directory).start() as server:
        # Tables of an older version of the program, or none at all yet.
        migrate_if_missing(server.address("writer"))
        with Connection(server.address("reader")) as connection:
            yield connection


@contextmanager
def open_for_writing(
    store: str, retention_days: int = migrate.RETENTION_DAYS, environment: Mapping[str, str] = os.environ, cluster: str = ""
) -> Iterator[Address]:
    """The writer's address of a store whose tables are there; its server is started and ended with this if it is a directory.

    ``cluster`` names the cluster that the tables of another server shall be spread over.
    ``tasktrail run`` keeps the Server in its own hands instead. Raises BadInput or Unavailable.
    """
    if addresses.is_address(store):
        address = addresses.parse(store, environment)
        migrate.apply(address, retention_days, cluster)
        yield address
        return
    if cluster:
        raise BadInput(f"{store} is a directory, which has no cluster", "give --store clickhouse://user@host/database")
    directory = Path(store)
    if holder(directory):
        address = _credentials(directory, "writer")
        migrate.apply(address, retention_days)
        yield address
        return
    with Server(directory).start() as server:
        migrate.apply(server.address("writer"), retention_days)
        yield server.address("writer")


def _settings(address: Address, any_sql: bool) -> Mapping[str, str | int]:
    """What reading needs beyond the defaults there. Raises BadInput where there are no tables of ours."""
    with Connection(address) as connection:
        found = clusters.find(connection, address.database)
    if not (found.plain or found.cluster):
        raise BadInput(f"store {address} has no tables of ours", "make them with tasktrail store init")
    if not found.cluster:
        return {}
    return clusters.ANY if any_sql else clusters.READING


def migrate_if_missing(address: Address) -> None:
    """Make the tables where there are none; leave a store with tables as it is, its retention included."""
    with Connection(address._replace(database="system")) as connection:
        found = connection.query("SELECT count() FROM system.tables WHERE database = {name:String}", {"name": address.database})
    if not found.rows[0][0]:
        migrate.apply(address)


def _credentials(directory: Path, role: str) -> Address:
    """How the role gets into the server that runs on the directory."""
    found = stored_address(directory, role)
    if found is None:
        raise Unavailable(f"the server of store {directory} is just starting", "try again")
    return found


def check(store: str, environment: Mapping[str, str] = os.environ) -> TasktrailError | None:
    """What keeps us from reading the store, None if nothing does."""
    try:
        with open_for_reading(store, environment) as connection:
            connection.query("SELECT version FROM schema_versions LIMIT 1")
    except TasktrailError as problem:
        return problem
    return None
