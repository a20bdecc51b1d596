"""The reading user: what it can ask, and that nothing it asks changes anything or reaches anything else."""

from collections.abc import Iterator

import pytest

from schemas.errors import BadInput
from store.connection import Connection
from tests.contract.conftest import Store
from tests.contract.rows import image

REFUSED = [
    "SELECT file('/etc/passwd')",
    "SELECT file('/proc/self/root/etc/passwd')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM file('x.csv')",
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1:1/bucket/x', 'CSV', 'a String')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x', 'CSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1', 'system.one')",
    "SELECT * FROM mysql('127.0.0.1:1', 'b', 'c', 'd', 'e')",
    "SELECT * FROM postgresql('127.0.0.1:1', 'b', 'c', 'd', 'e')",
    "SELECT * FROM mongodb('127.0.0.1:1', 'b', 'c', 'd', 'e', 'f String')",
    "SELECT * FROM redis('127.0.0.1:1', 'k', 'k String')",
    "SELECT * FROM sqlite('/var/lib/x.db', 't')",
    "SELECT * FROM jdbc('x', 'y')",
    "SELECT * FROM icebergLocal('/etc')",
    "SELECT * FROM deltaLakeLocal('/etc')",
    "SELECT * FROM executable('sh', 'TSV', 'a String')",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.users",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM information_schema.tables",
    "SHOW USERS",
    "INSERT INTO images (tgid) VALUES (1)",
    "INSERT INTO images SELECT * FROM images",
    "INSERT INTO FUNCTION file('x.csv') SELECT 1",
    "INSERT INTO FUNCTION null('x UInt8') SELECT 1",
    "INSERT INTO FUNCTION url('http://127.0.0.1:1/') SELECT 1",
    "DROP TABLE images",
    "DROP VIEW current_images",
    "TRUNCATE TABLE images",
    "ALTER TABLE images DELETE WHERE 1",
    "ALTER TABLE images MODIFY TTL seen",
    "DELETE FROM images WHERE 1",
    "OPTIMIZE TABLE images FINAL",
    "DETACH TABLE images",
    "RENAME TABLE images TO other",
    "EXCHANGE TABLES images AND losses",
    "CREATE TABLE other (a Int8) ENGINE = Memory",
    "CREATE TABLE other (a String) ENGINE = File(CSV)",
    "CREATE TEMPORARY TABLE other (a Int8)",
    "CREATE VIEW other AS SELECT 1",
    "CREATE DATABASE other",
    "CREATE FUNCTION other AS x -> x",
    "CREATE USER other",
    "GRANT SELECT ON *.* TO tasktrail_reader",
    "BACKUP TABLE images TO File('x')",
    "RESTORE TABLE images FROM File('x')",
    "SYSTEM SHUTDOWN",
    "SYSTEM STOP MERGES images",
    "SYSTEM STOP LISTEN TCP",
    "SYSTEM FLUSH LOGS",
    "SYSTEM DROP MARK CACHE",
    "KILL QUERY WHERE 1",
    "SET readonly = 0",
    "SET readonly = 2",
    "SET max_execution_time = 0",
    "SET max_memory_usage = 0",
    "SET max_result_rows = 0",
    "SET allow_introspection_functions = 1",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 100000",
    "SELECT 1 SETTINGS max_memory_usage = 100000000000",
    "SELECT repeat('a', 1000000000)",
    "SELECT number FROM numbers(100000000) SETTINGS max_result_rows = 1000",
    "EXECUTE AS tasktrail_writer SELECT 1",
]


@pytest.fixture(scope="module")
def filled(store: Store) -> Iterator[Store]:
    """The store with rows that must stay what they are."""
    if store.server is None:
        pytest.skip("another server's reader is its administrator's business")
    store.write([image(n) for n in range(100)])
    yield store
    assert store.reader.query("SELECT count() FROM images").rows == [(100,)]
    tables = store.writer.query("SELECT name FROM system.tables WHERE database = 'tasktrail' ORDER BY name").rows
    assert tables == [(b"current_images",), (b"current_losses",), (b"hosts",), (b"images",), (b"losses",), (b"schema_versions",)]
    assert store.server.alive()


@pytest.mark.parametrize("sql", REFUSED)
def test_refused_in_one_sentence(filled: Store, sql: str) -> None:
    with Connection(filled.addresses["reader"]) as reader:
        with pytest.raises(BadInput) as refusal:
            reader.query(sql)
        message = str(refusal.value)
        assert message and "\n" not in message and "Stack trace" not in message and "DB::" not in message, message
        assert len(message) < 600
    assert filled.server is not None and filled.server.alive()


def test_a_query_that_takes_too_long_is_stopped(filled: Store) -> None:
    with Connection(filled.addresses["reader"]) as reader, pytest.raises(BadInput, match="takes longer than allowed"):
        reader.query("SELECT count() FROM numbers(100000000000000) WHERE NOT ignore(number)", settings={"max_execution_time": 1})


def test_into_outfile_writes_no_file_on_the_server(filled: Store) -> None:
    assert filled.server is not None
    before = {path for path in (filled.server.directory / "clickhouse").rglob("*") if path.name == "leak"}
    with Connection(filled.addresses["reader"]) as reader:
        reader.query("SELECT 1 INTO OUTFILE 'leak'")
    assert {path for path in (filled.server.directory / "clickhouse").rglob("*") if path.name == "leak"} == before == set()


def test_what_readers_need_is_allowed(filled: Store) -> None:
    with Connection(filled.addresses["reader"]) as reader:
        for sql in (
            "SELECT 1",
            "SELECT count() FROM images FINAL",
            "SELECT comm, cpid, ended FROM current_images LIMIT 1",
            "SELECT sum(bytes_on_disk), sum(rows) FROM system.parts WHERE database = 'tasktrail' AND active",
            "SELECT name, type FROM system.columns WHERE database = 'tasktrail'",
            "SHOW TABLES",
            "DESCRIBE TABLE images",
            "EXPLAIN SELECT * FROM images",
            "WITH RECURSIVE up AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM up WHERE n < 5) SELECT count() FROM up",
            "SELECT 1 SETTINGS max_execution_time = 5",
        ):
            assert reader.query(sql).rows, sql
