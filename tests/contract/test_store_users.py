"""The users of deploy/clickhouse/users.sql, on one server and on a cluster: what they need they can, and nothing else."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from schemas.errors import BadInput
from store import migrate
from store.address import Address
from store.connection import Connection, in_turn
from streams.sinks.clickhouse import Sink
from tasktrail.cli import run_command
from tests.contract import cluster
from tests.contract.cluster import CLUSTER, Servers
from tests.contract.conftest import no_wait
from tests.contract.fleet_rows import NAMES, fleet, host_id, world
from tests.contract.rows import image
from tests.contract.test_store_reader import REFUSED

SQL = Path(__file__).parents[2] / "deploy" / "clickhouse" / "users.sql"
PASSWORDS = {"WRITER_PASSWORD": "pass of the writer", "READER_PASSWORD": "pass of the reader"}

REFUSED_TO_WRITERS = [
    "INSERT INTO schema_versions (version) VALUES (1000)",
    "INSERT INTO current_images SELECT * FROM current_images",
    "INSERT INTO FUNCTION file('x.csv') SELECT 1",
    "INSERT INTO FUNCTION url('http://127.0.0.1:1/') SELECT 1",
    "INSERT INTO FUNCTION remote('127.0.0.1', 'system.one') SELECT 1",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM system.users",
    "SELECT * FROM system.processes",
    "SHOW USERS",
    "DROP TABLE images",
    "DROP DATABASE tasktrail",
    "TRUNCATE TABLE images",
    "ALTER TABLE images DELETE WHERE 1",
    "ALTER TABLE images UPDATE comm = '' WHERE 1",
    "ALTER TABLE images ADD COLUMN x UInt8",
    "ALTER TABLE images MODIFY TTL seen",
    "ALTER TABLE images DROP PARTITION ALL",
    "DELETE FROM images WHERE 1",
    "OPTIMIZE TABLE images FINAL",
    "RENAME TABLE images TO other",
    "CREATE TABLE other (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE other (a Int8)",
    "CREATE VIEW other AS SELECT 1",
    "CREATE DATABASE other",
    "CREATE FUNCTION other AS x -> x",
    "CREATE USER other",
    "GRANT SELECT ON *.* TO the_writer",
    "ALTER USER the_writer SETTINGS readonly = 0",
    "SYSTEM SHUTDOWN",
    "SYSTEM STOP MERGES images",
    "BACKUP TABLE images TO File('x')",
    "SET allow_ddl = 1, allow_introspection_functions = 1; SELECT 1",
    "EXECUTE AS administrator SELECT 1",
]


class Users(NamedTuple):
    """A store with the two users."""

    servers: Servers
    writer: Address
    reader: Address


def statements() -> list[str]:
    """Those of the file, with other names than the embedded server's own users, and with passwords."""
    text = "\n".join(line for line in SQL.read_text().splitlines() if not line.startswith("--"))
    for name, password in PASSWORDS.items():
        text = text.replace(name, password)
    text = text.replace("tasktrail_writer", "the_writer").replace("tasktrail_reader", "the_reader")
    return [" ".join(statement.split()) for statement in text.split(";\n") if statement.strip()]


def as_xml(statements: list[str]) -> str:
    """The same users as a server's users.xml says it: the embedded server has no place for users that SQL makes."""
    profiles, users = [], []
    for statement in statements:
        if made := re.fullmatch(r"CREATE SETTINGS PROFILE OR REPLACE (\w+) SETTINGS (.*)", statement):
            settings = [_SETTING.fullmatch(one.strip()) for one in made[2].split(",")]
            assert all(settings), statement
            values = "".join(f"<{one['name']}>{one['value']}</{one['name']}>" for one in settings if one)
            profiles.append(f"<{made[1]}>{values}<constraints>{''.join(_bounds(one) for one in settings if one)}</constraints></{made[1]}>")
        if made := re.fullmatch(r"CREATE USER IF NOT EXISTS (\w+) IDENTIFIED WITH sha256_password BY '([^']*)'", statement):
            name, password = made.groups()
            assert f"ALTER USER {name} DEFAULT DATABASE tasktrail SETTINGS PROFILE {name}" in statements
            given = [one for one in statements if one.startswith("GRANT") and name in one.split(" TO ")[1].split(", ")]
            grants = "".join(f"<query>{one.split(' TO ')[0]}</query>" for one in given)
            rest = f"<profile>{name}</profile><quota>default</quota><networks><ip>127.0.0.1</ip></networks><grants>{grants}</grants>"
            users.append(f"<{name}><password>{password}</password>{rest}</{name}>")
    assert len(profiles) == len(users) == 2
    return f"<clickhouse><profiles>{''.join(profiles)}</profiles><users>{''.join(users)}</users></clickhouse>"


_SETTING = re.compile(r"(?P<name>\w+) = '?(?P<value>\w+)'?(?: MIN (?P<min>\d+) MAX (?P<max>\d+))?(?P<free> CHANGEABLE_IN_READONLY)?")


def _bounds(setting: re.Match[str]) -> str:
    bounds = f"<min>{setting['min']}</min><max>{setting['max']}</max>" if setting["min"] else ""
    return f"<{setting['name']}>{bounds}<changeable_in_readonly/></{setting['name']}>" if setting["free"] else ""


@pytest.fixture(scope="module", params=["one server", "two servers"])
def users(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Users]:
    """The file's users; the rows of a fleet are there."""
    number = 1 if request.param == "one server" else 2
    with cluster.started(tmp_path_factory.mktemp("users"), number, as_xml(statements())) as servers:
        migrate.apply(servers.admin(), cluster=CLUSTER if number > 1 else "")
        writer = servers.admin()._replace(user="the_writer", password=PASSWORDS["WRITER_PASSWORD"])
        reader = servers.admin()._replace(user="the_reader", password=PASSWORDS["READER_PASSWORD"])
        made = Users(servers, writer, reader)
        sink(made, tmp_path_factory.mktemp("dead")).write(fleet(), "fleet")
        before = counts(made)
        yield made
        assert counts(made) == before


@pytest.mark.parametrize("statement", statements(), ids=lambda one: one[:60])
def test_the_file_is_what_a_server_understands(users: Users, statement: str) -> None:
    """A server that has no place for them reads and checks every statement before it says so."""
    with Connection(users.servers.admin()) as connection, pytest.raises(BadInput) as refusal:
        connection.query(statement)
    assert re.search("no writeable access storage|is readonly|read-only|users_xml", str(refusal.value)), refusal.value


def sink(users: Users, path: Path) -> Sink:
    return Sink(in_turn(users.writer), path, no_wait, lambda: 0.0)


def counts(users: Users) -> list[tuple[object, ...]]:
    """How many rows there are, and which tables."""
    with Connection(users.servers.admin()) as connection:
        tables = connection.query("SELECT name FROM system.tables WHERE database = 'tasktrail' ORDER BY name").rows
        return [*connection.query("SELECT count(), uniqExact(host_id) FROM images FINAL WHERE host != 'again'").rows, *tables]


def test_a_writer_can_do_what_a_worker_does(users: Users, tmp_path: Path) -> None:
    writing = sink(users, tmp_path)
    row = image(1, host=b"again")
    writing.write([row], "again")
    assert writing.newest_version(row.host_id, row.boot_id) == row.version and writing.retries == writing.dead == 0
    # Tables that are there are not made again, so that this needs no right to make them.
    assert migrate.apply(users.writer) == []
    with Connection(users.writer) as connection:
        assert connection.query("SELECT uniqExact(host_id) FROM images FINAL WHERE host != 'again'").rows == [(len(NAMES),)]
        # The view writes into it, whatever the rights of who inserts.
        count = "SELECT count() FROM {} FINAL"
        assert connection.query(count.format("programs")).rows == connection.query(count.format("images")).rows


@pytest.mark.parametrize("sql", REFUSED_TO_WRITERS)
def test_a_writer_can_do_nothing_else(users: Users, sql: str) -> None:
    with Connection(users.writer) as connection, pytest.raises(BadInput) as refusal:
        connection.query(sql)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "sql", [sql.replace("tasktrail_reader", "the_reader").replace("tasktrail_writer", "the_writer") for sql in REFUSED]
)
def test_a_reader_can_change_nothing_and_reach_nothing(users: Users, sql: str) -> None:
    with Connection(users.reader) as connection, pytest.raises(BadInput) as refusal:
        connection.query(sql)
    assert "\n" not in str(refusal.value)
    assert all(server.alive() for server in users.servers.servers)


def test_a_reader_has_limits_that_it_can_only_lower(users: Users) -> None:
    with Connection(users.reader) as connection:
        assert connection.query("SELECT getSetting('readonly'), getSetting('max_execution_time')").rows == [(1, 60)]
        assert connection.query("SELECT 1 SETTINGS max_execution_time = 5, max_memory_usage = 100000000").rows == [(1,)]
        with pytest.raises(BadInput, match="takes longer than allowed"):
            connection.query("SELECT count() FROM numbers(100000000000000) WHERE NOT ignore(number)", settings={"max_execution_time": 1})


@pytest.mark.parametrize(
    "arguments", [["history", "KEY:4711"], ["tree", "KEY:812", "--dead"], ["ps", "--host", "KEY"], ["find", "--under", "KEY:901"]]
)
def test_a_reader_can_give_every_reading_command(users: Users, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = [argument.replace("KEY", str(host_id(4))) for argument in arguments]
    url = f"clickhouse://the_reader@{users.reader.host}:{users.reader.port}/tasktrail".replace("@", ":pass%20of%20the%20reader@")
    assert run_command([*given, "--store", url]) == 0
    found = capsys.readouterr()
    assert found.err == "" and "4711" in found.out
    assert run_command(["sql", "SELECT count() FROM images FINAL WHERE host = 'web-5'", "--store", url]) == 0
    newest = {(row.tgid, row.start_boottime, row.exec_id) for row in world(4).log}
    assert json.loads(capsys.readouterr().out) == {"count()": len(newest)}


def test_a_wrong_password_is_refused(users: Users) -> None:
    with Connection(users.writer._replace(password="guess")) as connection, pytest.raises(BadInput, match="refuses the user or password"):
        connection.query("SELECT 1")
