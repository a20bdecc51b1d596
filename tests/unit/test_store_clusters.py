"""How a database on a cluster is laid out, told from what a server says; here from what is made up."""

from typing import Any, cast

import pytest

from schemas.errors import BadInput
from store import clusters
from store.address import Address
from store.clusters import Found, Member
from store.connection import Connection, Result

SPREAD = b"Distributed('fleet', 'tasktrail', 'images_local', cityHash64(host_id))"
REPLICATED = b"ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version) PARTITION BY x"


class Server:
    """Answers by the table that is asked."""

    address = Address("db", 9000, "admin", "")

    def __init__(self, **answers: list[tuple[Any, ...]]) -> None:
        self._answers = answers

    def query(self, sql: str, params: object = None) -> Result:
        """The rows made up for the system table in the statement."""
        return Result([], next(rows for name, rows in self._answers.items() if f"system.{name} " in sql.replace("\n", " ")))


def server(**answers: list[tuple[Any, ...]]) -> Connection:
    return cast(Connection, Server(**answers))


@pytest.mark.parametrize(
    ("tables", "found"),
    [
        ([], Found()),
        ([(b"images", b"ReplacingMergeTree(version) ORDER BY x"), (b"schema_versions", b"x")], Found(plain=True, versions=True)),
        ([(b"images", SPREAD), (b"images_local", REPLICATED)], Found("fleet", local=REPLICATED.decode())),
        ([(b"images_local", b"ReplacingMergeTree")], Found(local="ReplacingMergeTree")),
    ],
)
def test_what_is_there(tables: list[tuple[bytes, bytes]], found: Found) -> None:
    assert clusters.find(server(tables=tables), "tasktrail") == found


@pytest.mark.parametrize(
    ("found", "wanted", "says"),
    [
        (Found(plain=True), "fleet", "has tables of one server"),
        (Found("fleet", local="x"), "other", "is spread over cluster fleet, not other"),
        (Found(local="x"), "", "not complete"),
    ],
)
def test_layouts_that_do_not_agree(found: Found, wanted: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        clusters.agreed(server(), "tasktrail", found, wanted)


def test_layouts_that_agree() -> None:
    assert clusters.agreed(server(), "tasktrail", Found(), "") == ""
    assert clusters.agreed(server(), "tasktrail", Found(plain=True), "") == ""
    assert clusters.agreed(server(), "tasktrail", Found("fleet", local="x"), "") == "fleet"
    assert clusters.agreed(server(), "tasktrail", Found(), "fleet") == "fleet"
    assert clusters.agreed(server(), "tasktrail", Found(local="x"), "fleet") == "fleet"


def test_tables_are_replicated_where_the_servers_can_name_their_replicas() -> None:
    one, two = [Member("a", 9000, 1), Member("b", 9000, 1)], [Member("a", 9000, 1), Member("b", 9000, 2)]
    assert clusters.will_be_replicated(server(macros=[(2,)]), Found(), two)
    assert not clusters.will_be_replicated(server(macros=[(0,)]), Found(), one)
    with pytest.raises(BadInput, match="no macros shard and replica"):
        clusters.will_be_replicated(server(macros=[(1,)]), Found(), two)
    # Tables that are there decide, whatever macros came later.
    assert not clusters.will_be_replicated(server(macros=[(2,)]), Found("fleet", local="ReplacingMergeTree"), one)
    assert clusters.are_replicated(Found("fleet", local=REPLICATED.decode()))


def test_a_cluster_that_is_not_there() -> None:
    with pytest.raises(BadInput, match="has no cluster nowhere"):
        clusters.members(server(clusters=[]), "nowhere")
    assert clusters.members(server(clusters=[(b"a", 9440, 1)]), "fleet") == [Member("a", 9440, 1)]
