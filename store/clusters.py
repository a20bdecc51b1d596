"""What a server says of its cluster, and how a database on it is laid out.

On one server the tables are ``images`` and so on. On a cluster each server has ``images_local``, and ``images`` is a Distributed table
over those of all servers: whoever reads or writes need not know the difference, but for the settings below.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from schemas.errors import BadInput
from store.connection import Connection

READING: Mapping[str, str | int] = {"distributed_product_mode": "local", "optimize_skip_unused_shards": 1}
"""Settings for our own queries of a cluster: all rows of a host are on one server, and their subqueries are for the host of the row that
is looked at, so they are that server's own business; and a query for one host need ask only one."""
ANY: Mapping[str, str | int] = {"distributed_product_mode": "global", "optimize_skip_unused_shards": 1}
"""Settings for queries of which nothing is known: a subquery may compare hosts, so it is answered by all servers first."""

_CLUSTER = re.compile(rb"Distributed\('((?:[^'\\]|\\.)*)'")
_TABLES = """
SELECT name, engine_full FROM system.tables
WHERE database = {database:String} AND name IN ('images', 'images_local', 'schema_versions')"""
_MEMBERS = "SELECT host_name, port, replica_num FROM system.clusters WHERE cluster = {cluster:String} ORDER BY shard_num, replica_num"
_MACROS = "SELECT uniqExact(macro) FROM system.macros WHERE macro IN ('shard', 'replica')"


class Found(NamedTuple):
    """What there is of our tables.

    cluster   name of the cluster that table images is spread over, empty if it is not
    plain     there is a table images with rows of its own
    local     engine of images_local, empty if it is not there
    versions  there is the table that says which version of the tables these are
    """

    cluster: str = ""
    plain: bool = False
    local: str = ""
    versions: bool = False


class Member(NamedTuple):
    """A server of the cluster, as its servers reach it."""

    host: str
    port: int
    replica: int


def find(connection: Connection, database: str) -> Found:
    """How the database is laid out."""
    tables: dict[bytes, bytes] = dict(connection.query(_TABLES, {"database": database}).rows)
    images = tables.get(b"images", b"")
    spread = _CLUSTER.match(images)
    return Found(
        spread[1].decode() if spread else "",
        bool(images) and not spread,
        tables.get(b"images_local", b"").decode("utf-8", "replace"),
        b"schema_versions" in tables,
    )


def agreed(connection: Connection, database: str, found: Found, wanted: str) -> str:
    """The cluster that the database is or shall be spread over, empty for none. Raises BadInput where the two differ."""
    where = f"database {database} on {connection.address.host}"
    if wanted and found.plain:
        raise BadInput(f"{where} has tables of one server", "name another database for the cluster")
    if wanted and found.cluster and wanted != found.cluster:
        raise BadInput(f"{where} is spread over cluster {found.cluster}, not {wanted}", "leave out --cluster")
    if found.local and not found.cluster and not wanted:
        raise BadInput(f"the tables of a cluster in {where} are not complete", "run tasktrail store init with --cluster again")
    return wanted or found.cluster


def members(connection: Connection, cluster: str) -> list[Member]:
    """The servers of the cluster. Raises BadInput where there is no such cluster."""
    found = [Member(host.decode(), port, replica) for host, port, replica in connection.query(_MEMBERS, {"cluster": cluster}).rows]
    if not found:
        raise BadInput(
            f"server {connection.address.host} has no cluster {cluster}", "name one that SELECT cluster FROM system.clusters lists"
        )
    return found


def are_replicated(found: Found) -> bool:
    """Whether the cluster's tables that are there are Replicated ones."""
    return found.local.startswith("Replicated")


def will_be_replicated(connection: Connection, found: Found, servers: list[Member]) -> bool:
    """Whether the cluster's tables are, or are to be, Replicated ones: those that are there decide, else the servers' macros.

    Raises BadInput for a cluster with replicas whose servers lack the macros: their tables would not be copies of each other.
    """
    if found.local:
        return are_replicated(found)
    macros = bool(connection.query(_MACROS).rows[0][0] == 2)
    if not macros and any(server.replica > 1 for server in servers):
        raise BadInput(
            f"server {connection.address.host} has no macros shard and replica, but its cluster has replicas",
            "set the macros in its configuration",
        )
    return macros
