"""A store that is spread over two servers: making it, and that each host's rows lie on one of them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from queries import find, programs
from queries.per_host import per_host
from schemas.errors import BadInput, TasktrailError, Unavailable
from store import clusters, migrate
from store.connection import Connection, in_turn
from streams.sinks.clickhouse import Sink
from tests.contract import cluster
from tests.contract.cluster import CLUSTER, Servers
from tests.contract.conftest import kill, no_wait
from tests.contract.fleet_rows import NAMES, fleet
from tests.contract.rows import image

TABLES = ["current_images", "current_losses", "hosts", "images", "losses", "programs"]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Two servers, which may be killed."""
    with cluster.started(tmp_path_factory.mktemp("cluster")) as started:
        yield started


def tables(servers: Servers, at: int) -> dict[str, str]:
    """Name and engine of all our tables on one server."""
    with Connection(servers.admin(at)._replace(database="system")) as connection:
        rows = connection.query("SELECT name, engine FROM system.tables WHERE database = 'tasktrail'").rows
        return {name.decode(): engine.decode() for name, engine in rows}


def test_two_places_at_once_make_the_same_tables_on_every_server(servers: Servers) -> None:
    problems: list[TasktrailError] = []

    def apply(at: int) -> None:
        try:
            migrate.apply(servers.admin(at), cluster=CLUSTER)
        except TasktrailError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=apply, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    for at in (0, 1):
        found = tables(servers, at)
        assert {name for name, engine in found.items() if engine == "Distributed"} == set(TABLES)
        local = {f"{name}_local" for name in (*TABLES, "programs_view")}
        assert set(found) == {*TABLES, *local, "schema_versions", "schema_fills"}
    assert migrate.apply(servers.admin(1), cluster=CLUSTER) == []
    # What a database is already need not be said again.
    assert migrate.apply(servers.admin(0)) == []
    assert "images" in migrate.apply(servers.admin(0), retention_days=30)
    for at in (0, 1):
        with Connection(servers.admin(at)) as connection:
            (engine,) = connection.query("SELECT engine_full FROM system.tables WHERE name = 'images_local'").rows[0]
            assert b"toIntervalDay(30)" in engine
    assert "images" in migrate.apply(servers.admin(1), retention_days=90)


def test_layouts_are_not_mixed(servers: Servers) -> None:
    with pytest.raises(BadInput, match="is spread over cluster fleet, not other"):
        migrate.apply(servers.admin(), cluster="other")
    with pytest.raises(BadInput, match="has no cluster nowhere"):
        migrate.apply(servers.admin()._replace(database="another"), cluster="nowhere")
    plain = servers.admin()._replace(database="plain")
    migrate.apply(plain)
    with pytest.raises(BadInput, match="has tables of one server"):
        migrate.apply(plain, cluster=CLUSTER)
    with Connection(servers.admin()) as connection:
        connection.execute("CREATE DATABASE half")
        connection.execute("CREATE TABLE half.images_local (host_id UUID) ENGINE = MergeTree ORDER BY host_id")
    with pytest.raises(BadInput, match="not complete"):
        migrate.apply(servers.admin()._replace(database="half"))


def test_every_row_of_a_host_lies_on_one_server(servers: Servers, tmp_path: Path) -> None:
    sink = Sink(in_turn(servers.admin()), tmp_path, no_wait, lambda: 0.0)
    rows = fleet()
    sink.write(rows, "fleet")
    sink.write(rows, "fleet")
    held = []
    for at in (0, 1):
        with Connection(servers.admin(at)) as connection:
            held.append({row[0] for row in connection.query("SELECT DISTINCT host_id FROM images_local").rows})
            assert connection.query("SELECT uniqExact(host_id) FROM images").rows == [(len(NAMES),)]
    assert held[0] and held[1] and not held[0] & held[1]


def test_rows_of_an_older_version_are_put_into_new_tables_on_every_server(servers: Servers) -> None:
    for at in (0, 1):
        with Connection(servers.admin(at)) as connection:
            for name in ("programs_view_local", "programs", "programs_local", "schema_fills"):
                connection.execute(f"DROP TABLE {name} SYNC")
            connection.execute("ALTER TABLE schema_versions DELETE WHERE version = 6 SETTINGS mutations_sync = 1")
    wanted = [find.comm("n*")]
    with Connection(servers.admin(0), clusters.READING) as first, Connection(servers.admin(1), clusters.READING) as second:
        before = [per_host(reader, wanted) for reader in (first, second)]
        assert before[0] == before[1]
        assert migrate.apply(servers.admin(1)) == ["programs"]
        assert not programs.ready(first) and not programs.ready(second)
        assert migrate.fill(servers.admin(1), pause=no_wait)
        for reader in (first, second):
            assert programs.ready(reader) and per_host(reader, wanted) == before[0]
            counted = "SELECT host_id, count() FROM {}_local FINAL GROUP BY host_id ORDER BY host_id"
            assert reader.query(counted.format("programs")).rows == reader.query(counted.format("images")).rows


def test_a_server_that_is_away_is_told_and_nothing_is_half_an_answer(servers: Servers, tmp_path: Path) -> None:
    with Connection(servers.admin(0)) as connection:
        before = connection.query("SELECT count() FROM images FINAL").rows
        kill(servers.servers[1])
        with pytest.raises(Unavailable):
            connection.query("SELECT count() FROM images FINAL")
        sink = Sink(in_turn(servers.admin(0)), tmp_path, no_wait, lambda: 0.0, budget_s=0.01)
        rows = [image(number, host_id=row.host_id, host=b"later") for number, row in enumerate(fleet()[:200:7])]
        with pytest.raises(Unavailable, match="did not take rows"):
            sink.write(rows, "later")
        assert servers.servers[1].revive()
        sink.write(rows, "later")
        ((number,),) = connection.query("SELECT count() FROM images FINAL WHERE host = 'later'").rows
        assert number == len(rows) and connection.query("SELECT count() FROM images FINAL").rows == [(before[0][0] + len(rows),)]
