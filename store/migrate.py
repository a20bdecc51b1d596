"""Brings a database to the tables of schemas/sql/. Every statement there can be run again, from two places at once too."""

import hashlib
import re
from importlib import resources
from typing import NamedTuple

from schemas import limits
from schemas.errors import BadInput
from store.address import DATABASE, Address
from store.connection import Connection

RETENTION_DAYS = 90
_ENGINE = re.compile(r"\{engine:(\w+):(\w+)\}")
_NAME = re.compile(r"(\d{3})_(\w+)\.sql")


class Schema(NamedTuple):
    """What the statements are written for.

    database        name of the database
    retention_days  days for which a row is kept after it last held
    cluster         name of the cluster whose servers all get the tables, empty for one server
    """

    database: str = DATABASE
    retention_days: int = RETENTION_DAYS
    cluster: str = ""


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
    for name in (schema.database, schema.cluster or "none"):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            raise BadInput(f"{name!r} is no name for a database or cluster", "use letters, digits and _")
    found = []
    for file in resources.files("schemas").joinpath("sql").iterdir():
        match = _NAME.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], _statements(file.read_text("utf-8"), schema)))
    return sorted(found)


def apply(address: Address, retention_days: int = RETENTION_DAYS, cluster: str = "") -> list[str]:
    """Run what the address's database does not have yet; returns the names of the files that were run, empty when all was there.

    Raises BadInput when the database is from a newer version of the program, or the user may not make tables there.
    """
    schema = Schema(address.database, retention_days, cluster)
    wanted = migrations(schema)
    # A connection into a database that is not there yet would be refused.
    with Connection(address._replace(database="system")) as connection:
        return _apply(connection, schema, wanted)


def _apply(connection: Connection, schema: Schema, wanted: list[Migration]) -> list[str]:
    """Run those of the wanted files that are not there as this text."""
    have = _applied(connection, schema)
    newest = wanted[-1].version
    if have and max(have) > newest:
        raise BadInput(
            f"database {schema.database} on {connection.address.host} has tables of version {max(have)}, this program has {newest}",
            "update Tasktrail here",
        )
    run = [migration for migration in wanted if have.get(migration.version) != migration.sha256]
    for migration in run:
        for statement in migration.statements:
            connection.execute(statement)
        columns = ("version", "name", "text_sha256")
        row = (migration.version, migration.name.encode(), migration.sha256.encode())
        connection.insert(f"{schema.database}.schema_versions", columns, [row], "")
    return [migration.name for migration in run]


def _applied(connection: Connection, schema: Schema) -> dict[int, str]:
    """Version → hash of the text that was run, empty for a database that is not there."""
    exists = connection.query(
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_versions'", {"database": schema.database}
    )
    if not exists.rows[0][0]:
        return {}
    rows = connection.query(f"SELECT version, text_sha256 FROM {schema.database}.schema_versions FINAL").rows
    return {version: text.decode() for version, text in rows}


def _statements(text: str, schema: Schema) -> tuple[str, ...]:
    """The file's statements with settings filled in and comments left out."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    replicated = bool(schema.cluster)

    def engine(match: re.Match[str]) -> str:
        if not replicated:
            return f"{match[1]}({match[2]})"
        return f"Replicated{match[1]}('/clickhouse/tables/{{shard}}/{{database}}/{{table}}', '{{replica}}', {match[2]})"

    filled = (
        _ENGINE.sub(engine, bare)
        .replace("{on_cluster}", f"ON CLUSTER {schema.cluster}" if replicated else "")
        .replace("{retention_days}", str(schema.retention_days))
    )
    # The engine's own macros ({database} among them) belong to the server.
    parts = re.split(r"('/clickhouse/tables/[^']*')", filled)
    filled = "".join(part if at % 2 else part.replace("{database}", schema.database) for at, part in enumerate(parts))
    return tuple(statement for part in filled.split(";\n") if (statement := part.strip().rstrip(";")))
