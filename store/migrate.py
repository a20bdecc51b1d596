"""Brings a database to the tables of schemas/sql/. Every statement there can be run again, from two places at once too."""

import hashlib
import re
import time
from collections.abc import Callable
from importlib import resources
from typing import NamedTuple

from schemas import limits
from schemas.errors import BadInput
from store import clusters, filling
from store.address import DATABASE, Address
from store.clusters import Found
from store.connection import Connection

RETENTION_DAYS = 90
_ENGINE = re.compile(r"\{(engine|engine_of_all):(\w+):(\w+)\}")
_DISTRIBUTED = re.compile(r"\{distributed:(\w+)\}")
_NAME = re.compile(r"(\d{3})_(\w+)\.sql")
_PATHS = {
    "engine": ("/clickhouse/tables/{shard}/{database}/{table}", "{replica}"),
    "engine_of_all": ("/clickhouse/tables/all/{database}/{table}", "{shard}-{replica}"),
}
"""Where a table's replicas meet, and what each is called there: one set for each shard, or one of all servers."""


class Schema(NamedTuple):
    """What the statements are written for.

    database        name of the database
    retention_days  days for which a row is kept after it last held
    cluster         name of the cluster whose servers share the rows, empty for one server
    replicated      the cluster's tables are Replicated ones and are made ON CLUSTER; else each server makes its own
    without         names of files that are left out where they were not run before
    """

    database: str = DATABASE
    retention_days: int = RETENTION_DAYS
    cluster: str = ""
    replicated: bool = True
    without: frozenset[str] = frozenset()


ONE_HOST = frozenset({"programs"})
"""What the store of one host does without: its images are few enough to be looked through by name, and a row costs a third less."""


class Migration(NamedTuple):
    """One file of schemas/sql/, ready to run."""

    version: int
    name: str
    statements: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Names the text, so that a changed setting is seen."""
        return hashlib.sha256("\n".join(self.statements).encode()).hexdigest()


def migrations(schema: Schema) -> list[Migration]:
    """All files in their order. Raises BadInput where a setting cannot be."""
    if not 1 <= schema.retention_days <= limits.RETENTION_DAYS_MAX:
        raise BadInput(f"retention of {schema.retention_days} days", f"choose 1 to {limits.RETENTION_DAYS_MAX} days")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", schema.database):
        raise BadInput(f"{schema.database!r} is no name for a database", "use letters, digits and _")
    if not re.fullmatch(r"[A-Za-z0-9_.-]{0,64}", schema.cluster):
        raise BadInput(f"{schema.cluster!r} is no name for a cluster", "use letters, digits, _, . and -")
    found = []
    for file in resources.files("schemas").joinpath("sql").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], _statements(file.read_text("utf-8"), schema)))
    return sorted(found)


def apply(address: Address, retention_days: int = RETENTION_DAYS, cluster: str = "", without: frozenset[str] = frozenset()) -> list[str]:
    """Run what the address's database does not have yet; returns the names of the files that were run, empty when all was there.

    cluster  name of the cluster whose servers shall share the rows; empty: what the database is already, else one server.
    without  files to leave out, unless they were run before; whoever asks has to do without what they make.

    Rows that are there already are put into new tables by ``fill``. Raises BadInput when the database is from a newer version of the
    program, is laid out otherwise, or the user may not make tables.
    """
    run = _brought(address, Schema(address.database, retention_days, cluster, without=without))
    if filling.TABLE in run:
        fill(address, only_empty=True)
    return run


def fill(address: Address, only_empty: bool = False, pause: Callable[[float], None] = time.sleep) -> bool:
    """Put the rows that were there before a table into it; returns whether that is done now. May be given up and gone on with.

    ``only_empty``: only where there are none. Raises BadInput or Unavailable, see store.filling.
    """
    with Connection(address._replace(database="system")) as connection:
        found = clusters.find(connection, address.database)
        members = clusters.members(connection, found.cluster) if found.cluster and not clusters.are_replicated(found) else []
    schema = Schema(address.database, cluster=found.cluster, replicated=not members)
    each = "_local" if members else ""
    places = [_at(address, member) for member in members] or [address]
    (view,) = (one for one in _statements_of(schema) if one.startswith("CREATE MATERIALIZED VIEW"))
    done = 0
    for place in places:
        with Connection(place._replace(database="system")) as connection:
            if filling.is_done(connection, address.database):
                done += 1
            elif only_empty and not filling.is_empty(connection, address.database, each):
                return False
            elif not only_empty:
                filling.await_inserts(connection, "" if members else found.cluster, pause)
                filling.fill(connection, address.database, view, each)
    # Whoever asks one server gets rows of all, so it is recorded when all have theirs.
    for place in places if done < len(places) else []:
        with Connection(place._replace(database="system")) as connection:
            filling.record(connection, address.database)
    return True


def _statements_of(schema: Schema) -> list[str]:
    return [statement for migration in migrations(schema) for statement in migration.statements]


def _at(address: Address, member: clusters.Member) -> Address:
    """The same for this server of the cluster."""
    return address._replace(host=member.host, port=member.port, alt_hosts="")


def _brought(address: Address, wanted: Schema) -> list[str]:
    """As apply, the rows left aside."""
    # A connection into a database that is not there yet would be refused.
    with Connection(address._replace(database="system")) as connection:
        found = clusters.find(connection, address.database)
        name = clusters.agreed(connection, address.database, found, wanted.cluster)
        if not name:
            return _apply(connection, wanted, found)
        # Who only adds rows may not ask about the cluster, and need not where nothing is missing here.
        if found.local and not wanted.cluster:
            here = wanted._replace(cluster=name, replicated=clusters.are_replicated(found))
            if not _missing(connection, here, found):
                return []
        members = clusters.members(connection, name)
        schema = wanted._replace(cluster=name, replicated=clusters.will_be_replicated(connection, found, members))
        if schema.replicated:
            return _apply(connection, schema, found)
    run: dict[str, None] = {}
    for member in members:
        with Connection(_at(address, member)._replace(database="system")) as connection:
            found = clusters.find(connection, address.database)
            clusters.agreed(connection, address.database, found, name)
            run |= dict.fromkeys(_apply(connection, schema, found))
    return list(run)


def _apply(connection: Connection, schema: Schema, found: Found) -> list[str]:
    """Run those of the files that are not there as this text."""
    run = _missing(connection, schema, found)
    for migration in run:
        for statement in migration.statements:
            connection.execute(statement)
        columns = ("version", "name", "text_sha256")
        row = (migration.version, migration.name.encode(), migration.sha256.encode())
        connection.insert(f"{schema.database}.schema_versions", columns, [row], "")
    return [migration.name for migration in run]


def _missing(connection: Connection, schema: Schema, found: Found) -> list[Migration]:
    """The files that are not there as this text."""
    wanted = migrations(schema)
    have = _applied(connection, schema) if found.versions else {}
    newest = wanted[-1].version
    if have and max(have) > newest:
        raise BadInput(
            f"database {schema.database} on {connection.address.host} has tables of version {max(have)}, this program has {newest}",
            "update Tasktrail here",
        )
    asked = [migration for migration in wanted if migration.version in have or migration.name not in schema.without]
    return [migration for migration in asked if have.get(migration.version) != migration.sha256]


def _applied(connection: Connection, schema: Schema) -> dict[int, str]:
    """Version → hash of the text that was run."""
    rows = connection.query(f"SELECT version, text_sha256 FROM {schema.database}.schema_versions FINAL").rows
    return {version: text.decode() for version, text in rows}


def _statements(text: str, schema: Schema) -> tuple[str, ...]:
    """The file's statements with settings filled in; comments, and what only a cluster has where there is none, are left out."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    replicated = bool(schema.cluster) and schema.replicated

    def engine(match: re.Match[str]) -> str:
        if not replicated:
            return f"{match[2]}({match[3]})"
        path, replica = _PATHS[match[1]]
        return f"Replicated{match[2]}('{path}', '{replica}', {match[3]})"

    def distributed(match: re.Match[str]) -> str:
        return f"Distributed('{schema.cluster}', '{schema.database}', '{match[1]}_local', cityHash64(host_id))"

    def filled(statement: str) -> str:
        # The engine's own macros ({database} among them) belong to the server, so they are filled in last.
        plain = (
            statement.replace("{on_cluster}", f"ON CLUSTER '{schema.cluster}'" if replicated else "")
            .replace("{local}", "_local" if schema.cluster else "")
            .replace("{retention_days}", str(schema.retention_days))
            .replace("{database}", schema.database)
        )
        return _ENGINE.sub(engine, _DISTRIBUTED.sub(distributed, plain))

    parts = (part.strip().rstrip(";") for part in bare.split(";\n"))
    return tuple(filled(part) for part in parts if part and (schema.cluster or not _DISTRIBUTED.search(part)))
