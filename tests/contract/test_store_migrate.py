"""Making tables: again and again, from two places at once, with other settings; and rows that expire."""

import re
import threading
import time
from collections.abc import Iterator

import pytest

from queries import find, programs
from queries.per_host import per_host
from schemas.errors import BadInput, TasktrailError
from store import migrate
from store.connection import Connection
from store.migrate import Schema
from store.server import Server
from tests.contract.conftest import open_path
from tests.contract.named_store import needs_its_own_clickhouse
from tests.contract.rows import image

DAY = 86_400


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An empty server."""
    needs_its_own_clickhouse("looks at a server that is empty")
    path = tmp_path_factory.mktemp("empty")
    open_path(path)
    with Server(path / "store").start() as started:
        yield started


def _ttl(server: Server) -> list[bytes]:
    with Connection(server.address("writer")) as writer:
        sql = "SELECT engine_full FROM system.tables WHERE database = 'tasktrail' AND name IN ('images', 'losses', 'programs')"
        rows = writer.query(sql).rows
        return [row[0].split(b"TTL ")[1].split(b" SETTINGS")[0] for row in rows]


def test_a_second_time_does_nothing_and_another_retention_changes_it(server: Server) -> None:
    address = server.address("writer")
    assert migrate.apply(address) == ["versions", "images", "losses", "current", "hosts", "programs"]
    assert migrate.apply(address) == []
    assert _ttl(server) == [b"seen + toIntervalDay(90)"] * 3
    assert migrate.apply(address, retention_days=7) == ["images", "losses", "current", "hosts", "programs"]
    assert _ttl(server) == [b"seen + toIntervalDay(7)"] * 3
    assert migrate.apply(address, retention_days=7) == []


def test_the_store_of_one_host_does_without_a_table_until_it_is_asked_for(server: Server) -> None:
    address = server.address("writer")
    others = ["versions", "images", "losses", "current", "hosts"]
    assert migrate.apply(address, without=migrate.ONE_HOST) == others
    with Connection(address) as writer, Connection(server.address("reader")) as reader:
        assert migrate.apply(address, without=migrate.ONE_HOST) == [] and not programs.ready(reader)
        writer.insert("images", image(0)._fields, [image(1, comm=b"nc")], "")
        assert [one.images for one in per_host(reader, [find.comm("nc")])] == [1]
        assert migrate.apply(address) == ["programs"]
        assert migrate.fill(address) and programs.ready(reader)
        assert [one.images for one in per_host(reader, [find.comm("nc")])] == [1]
    # What is there is kept up to date by whoever would not make it.
    assert migrate.apply(address, 7, without=migrate.ONE_HOST) == ["images", "losses", "current", "hosts", "programs"]


def test_from_many_places_at_once(server: Server) -> None:
    problems: list[TasktrailError] = []

    def apply() -> None:
        try:
            migrate.apply(server.address("writer"))
        except TasktrailError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=apply) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert migrate.apply(server.address("writer")) == []
    with Connection(server.address("reader")) as reader:
        assert reader.query("SELECT version FROM schema_versions FINAL ORDER BY version").rows == [(0,), (1,), (2,), (3,), (5,), (6,)]


def test_rows_expire_by_when_they_last_held(server: Server) -> None:
    migrate.apply(server.address("writer"), retention_days=10)
    now = int(time.time())
    old, kept, refreshed = image(1, seen=now - 11 * DAY), image(2, seen=now - 9 * DAY), image(3, seen=now - 30 * DAY)
    with Connection(server.address("writer")) as writer, Connection(server.address("reader")) as reader:
        for rows in ([old, kept, refreshed], [refreshed._replace(seen=now, version=refreshed.version + 1)]):
            writer.insert("images", image(0)._fields, rows, "")
        assert reader.query("SELECT tgid FROM current_images ORDER BY tgid").rows == [(1002,), (1003,)]
        writer.execute("OPTIMIZE TABLE images FINAL")
        assert reader.query("SELECT tgid, seen FROM images ORDER BY tgid").rows == [(1002, now - 9 * DAY), (1003, now)]


def test_an_ended_row_never_expires_before_the_row_of_its_life(server: Server) -> None:
    """Or else what has ended would live again."""
    migrate.apply(server.address("writer"), retention_days=10)
    now = int(time.time())
    begun = image(1, seen=now - 20 * DAY)
    ended = begun._replace(end_kind=1, seen=now - 11 * DAY, version=begun.version + 1)
    with Connection(server.address("writer")) as writer:
        for row in (begun, ended):
            writer.insert("images", image(0)._fields, [row], "")
        writer.execute("OPTIMIZE TABLE images FINAL")
        assert writer.query("SELECT count() FROM images").rows == [(0,)]


@pytest.mark.parametrize(
    "schema", [Schema(retention_days=0), Schema(database="a b"), Schema(database="x; DROP"), Schema(cluster="c'"), Schema(cluster="a b")]
)
def test_settings_that_cannot_be(schema: Schema) -> None:
    with pytest.raises(BadInput):
        migrate.migrations(schema)


EVERY_SCHEMA = [Schema(), Schema(cluster="the-fleet"), Schema(cluster="fleet", replicated=False)]


def _all_statements(schema: Schema) -> list[str]:
    return [statement for migration in migrate.migrations(schema) for statement in migration.statements]


def test_a_cluster_gets_replicated_tables_and_distributed_ones_over_them() -> None:
    statements = _all_statements(Schema(cluster="the-fleet"))
    path = "/clickhouse/tables/{shard}/{database}/{table}"
    for name in ("images", "losses", "hosts", "programs"):
        (local,) = (
            one for one in statements if one.startswith(f"CREATE TABLE IF NOT EXISTS tasktrail.{name}_local ON CLUSTER 'the-fleet'")
        )
        assert f"ENGINE = ReplicatedReplacingMergeTree('{path}', '{{replica}}', version)" in local
    for name in ("images", "losses", "hosts", "programs", "current_images", "current_losses"):
        over = f"CREATE TABLE IF NOT EXISTS tasktrail.{name} ON CLUSTER 'the-fleet' AS tasktrail.{name}_local ENGINE = "
        assert f"{over}Distributed('the-fleet', 'tasktrail', '{name}_local', cityHash64(host_id))" in statements
    for name, version in (("schema_versions", "applied_at"), ("schema_fills", "filled_at")):
        (of_all,) = (one for one in statements if f"tasktrail.{name}" in one)
        assert f"('/clickhouse/tables/all/{{database}}/{{table}}', '{{shard}}-{{replica}}', {version})" in of_all
    assert all(" ON CLUSTER 'the-fleet'" in statement for statement in statements)


def test_without_replication_each_server_gets_plain_tables_and_the_distributed_ones() -> None:
    text = "\n".join(_all_statements(Schema(cluster="fleet", replicated=False)))
    assert "ON CLUSTER" not in text and "Replicated" not in text
    assert text.count("Distributed('fleet', 'tasktrail', ") == 6 and "CREATE TABLE IF NOT EXISTS tasktrail.images_local" in text


def test_one_server_gets_none_of_that() -> None:
    text = "\n".join(_all_statements(Schema()))
    assert "_local" not in text and "Distributed" not in text and "Replicated" not in text and "ON CLUSTER" not in text


@pytest.mark.parametrize("schema", EVERY_SCHEMA, ids=lambda one: f"{one.cluster} {one.replicated}")
def test_migrations_only_add(schema: Schema) -> None:
    for statement in _all_statements(schema):
        first = " ".join(statement.split()[:6])
        made = ("DATABASE IF NOT EXISTS", "TABLE IF NOT EXISTS", "MATERIALIZED VIEW IF NOT EXISTS", "OR REPLACE VIEW")
        assert first.startswith(("ALTER TABLE", *(f"CREATE {one}" for one in made))), first
        if first.startswith("ALTER TABLE"):
            assert " MODIFY TTL " in statement or " MODIFY COLUMN" in statement or " IF NOT EXISTS " in statement, statement
        # What is left in braces is the server's own.
        assert set(re.findall(r"\{(\w+)", statement)) <= {"shard", "replica", "database", "table"}
