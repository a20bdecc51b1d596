"""The reading user: what it can ask, and that nothing it asks changes anything or reaches anything else."""

import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from schemas.errors import BadInput
from store.connection import Connection
from tests.contract.conftest import Store
from tests.contract.named_store import needs_its_own_clickhouse
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
    "SELECT * FROM remoteSecure('127.0.0.1', 'system.one')",
    "SELECT * FROM cluster('default', system.one)",
    "SELECT * FROM clusterAllReplicas('default', system.users)",
    "SELECT * FROM urlCluster('default', 'http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM s3Cluster('default', 'http://127.0.0.1:1/bucket/x', 'CSV', 'a String')",
    "SELECT * FROM fileCluster('default', 'x', 'CSV', 'a String')",
    "SELECT * FROM gcs('http://127.0.0.1:1/bucket/x', 'CSV', 'a String')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:1/', 'c', 'x', 'a', 'b', 'CSV')",
    "SELECT * FROM odbc('x', 'y', 'z')",
    "SELECT * FROM iceberg('http://127.0.0.1:1/bucket/x')",
    "SELECT * FROM icebergAzure('x')",
    "SELECT * FROM deltaLake('http://127.0.0.1:1/bucket/x')",
    "SELECT * FROM hudi('http://127.0.0.1:1/bucket/x')",
    "SELECT * FROM paimonLocal('/etc')",
    "SELECT * FROM ytsaurus('http://127.0.0.1:1', '//x', 't', 'a String')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM loop('system', 'users') LIMIT 1",
    "SELECT * FROM view(SELECT * FROM system.users)",
    "SELECT * FROM input('a String')",
    "SELECT dictGet('x', 'y', 1)",
    "SELECT joinGet('x', 'y', 1)",
    "SELECT addressToSymbol(1)",
    "SELECT addressToLine(1)",
    "SELECT getServerSetting('path')",
    "SELECT getMacro('x')",
    "SELECT aiGenerate('x', map('credentials', 'x'))",
    "SELECT sleepEachRow(1) FROM numbers(100)",
    "SELECT * FROM system.processes",
    "SELECT * FROM system.users",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.query_log",
    "SELECT * FROM system.text_log",
    "SELECT * FROM system.session_log",
    "SELECT * FROM system.errors",
    "SELECT * FROM system.warnings",
    "SELECT * FROM system.grants",
    "SELECT * FROM system.settings_profile_elements",
    "SELECT * FROM system.user_directories",
    "SELECT * FROM system.named_collections",
    "SELECT * FROM system.clusters",
    "SELECT * FROM system.macros",
    "SELECT * FROM system.build_options",
    "SELECT * FROM system.stack_trace",
    "SELECT * FROM system.symbols",
    "SELECT * FROM system.disks",
    "SELECT * FROM system.remote_data_paths",
    "SELECT * FROM system.detached_parts",
    "SELECT * FROM system.mutations",
    "SELECT * FROM system.query_cache",
    "SELECT * FROM system.certificates",
    "SELECT * FROM system.backups",
    "SELECT * FROM system.dictionaries",
    "SELECT * FROM information_schema.tables",
    "SHOW USERS",
    "SHOW ACCESS",
    "SHOW PROCESSLIST",
    "SHOW CREATE USER tasktrail_writer",
    "SHOW GRANTS FOR tasktrail_writer",
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
    "UPDATE images SET comm = 'x' WHERE 1",
    "ALTER TABLE images UPDATE comm = 'x' WHERE 1",
    "ALTER TABLE images ADD COLUMN other Int8",
    "ALTER TABLE images DROP PARTITION ID 'x'",
    "ALTER TABLE images FREEZE",
    "CHECK TABLE images",
    "ATTACH TABLE other UUID '00000000-0000-0000-0000-000000000001' (a Int8) ENGINE = Memory",
    "UNDROP TABLE images",
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
    "CREATE DICTIONARY other (a UInt64) PRIMARY KEY a SOURCE(FILE(PATH '/etc/passwd' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE DICTIONARY other (a UInt64) PRIMARY KEY a SOURCE(HTTP(URL 'http://127.0.0.1:1/' FORMAT 'CSV')) LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE NAMED COLLECTION other AS a = 1",
    "CREATE QUOTA other",
    "CREATE ROW POLICY other ON images USING 1",
    "CREATE MATERIALIZED VIEW other ENGINE = Memory AS SELECT 1",
    "ALTER USER tasktrail_reader SETTINGS readonly = 0",
    "SET DEFAULT ROLE NONE TO tasktrail_reader",
    "GRANT SELECT ON *.* TO tasktrail_reader",
    "BACKUP TABLE images TO File('x')",
    "RESTORE TABLE images FROM File('x')",
    "SYSTEM SHUTDOWN",
    "SYSTEM STOP MERGES images",
    "SYSTEM STOP LISTEN TCP",
    "SYSTEM FLUSH LOGS",
    "SYSTEM DROP MARK CACHE",
    "SYSTEM KILL",
    "SYSTEM SUSPEND FOR 1 SECOND",
    "SYSTEM RELOAD CONFIG",
    "SYSTEM RELOAD USERS",
    "SYSTEM ENABLE FAILPOINT x",
    "SYSTEM DROP FILESYSTEM CACHE",
    "SYSTEM UNFREEZE WITH NAME 'x'",
    "SYSTEM UNLOAD PRIMARY KEY",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "SET readonly = 0",
    "SET readonly = 2",
    "SET max_execution_time = 0",
    "SET max_memory_usage = 0",
    "SET max_result_rows = 0",
    "SET allow_introspection_functions = 1",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 100000",
    "SELECT 1 SETTINGS max_memory_usage = 100000000000",
    "SELECT 1 SETTINGS max_memory_usage_for_user = 0",
    "SELECT 1 SETTINGS max_bytes_ratio_before_external_join = 0.5",
    "SELECT 1 SETTINGS max_concurrent_queries_for_user = 0",
    "SELECT 1 SETTINGS timeout_overflow_mode = 'break'",
    "SELECT 1 SETTINGS max_threads = 100000",
    "SELECT 1 SETTINGS send_logs_level = 'trace'",
    "SELECT 1 SETTINGS priority = 1",
    "SELECT 1 SETTINGS max_bytes_before_external_sort = 1",
    "SELECT 1 SETTINGS query_profiler_real_time_period_ns = 1000",
    "SELECT 1 FORMAT Protobuf SETTINGS format_schema = '/etc/passwd:x'",
    "SET profile = 'starter'",
    "SELECT repeat('a', 1000000000)",
    "SELECT length(range(500000000))",
    "SELECT length(groupArray(number)) FROM numbers(1000000000)",
    "SELECT arrayFold(acc, x -> arrayConcat(acc, acc), range(40), [1])",
    "SELECT randomPrintableASCII(10000000) FROM numbers(1000)",
    "SELECT editDistance(repeat('a', 100000), repeat('b', 100000))",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT count() FROM r",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT a.n FROM r AS a CROSS JOIN numbers(10) AS b) SELECT count() FROM r",
    "SELECT " + "(" * 20_000 + "1" + ")" * 20_000,
    "SELECT " + "NOT " * 50_000 + "1",
    "SELECT " + "[" * 5_000 + "1" + "]" * 5_000,
    "SELECT " + "+".join(["1"] * 60_000),
    "SELECT * FROM (" * 500 + "SELECT 1" + ")" * 500,
    "SELECT '" + "a" * (1 << 20) + "'",
    "SELECT number FROM numbers(100000000) SETTINGS max_result_rows = 1000",
    "EXECUTE AS tasktrail_writer SELECT 1",
]


@pytest.fixture(scope="module")
def filled(store: Store) -> Iterator[Store]:
    """The store with rows that must stay what they are."""
    needs_its_own_clickhouse("attacks the embedded server")
    assert store.server is not None
    store.write([image(n) for n in range(100)])
    yield store
    assert store.reader.query("SELECT count() FROM images FINAL").rows == [(100,)]
    tables = store.writer.query("SELECT name FROM system.tables WHERE database = 'tasktrail' ORDER BY name").rows
    ours = "current_images current_losses hosts images losses programs programs_view schema_fills schema_versions"
    assert tables == [(name.encode(),) for name in ours.split()]
    assert store.server.alive()


def asked(store: Store, sql: str, more: str = "") -> str:
    """What the server answers to a statement over HTTP, with parameters beside it in the address."""
    reader = store.addresses["reader"]
    where = f"http://127.0.0.1:{reader.http_port}/?database=tasktrail&query={urllib.parse.quote(sql)}&{more}"
    headers = {"X-ClickHouse-User": reader.user, "X-ClickHouse-Key": reader.password}
    try:
        with urllib.request.urlopen(urllib.request.Request(where, headers=headers, data=b""), timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        return refusal.read().decode()


@pytest.mark.parametrize("sql", REFUSED, ids=lambda sql: str(sql)[:60])
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


def test_over_http_the_server_writes_no_file_either(filled: Store) -> None:
    assert "OUTFILE is not allowed" in asked(filled, "SELECT 1 INTO OUTFILE 'leak'")


@pytest.mark.parametrize("setting", ["readonly=0", "max_execution_time=0", "max_memory_usage_for_user=0", "format_schema=/etc/passwd:x"])
def test_a_setting_in_the_address_is_a_setting(filled: Store, setting: str) -> None:
    assert asked(filled, "SELECT 1", setting).startswith("Code: ")


@pytest.mark.parametrize(
    "statement", ["INSERT INTO images (tgid) VALUES (1)", "DROP TABLE images", "CREATE TABLE x (a Int8) ENGINE = Memory"]
)
def test_over_http_nothing_is_written_under_any_profile(filled: Store, statement: str) -> None:
    for more in ("", "profile=default", "profile=reader"):
        assert "Not enough privileges" in asked(filled, statement, more)


def test_another_profile_gives_no_more_rights(filled: Store) -> None:
    """A reader may name a profile; what it may not change stays what it was."""
    with Connection(filled.addresses["reader"]) as reader:
        limits = "SELECT name, value FROM system.settings WHERE name LIKE 'max%' OR name IN ('readonly', 'allow_ddl') ORDER BY name"
        before = reader.query(limits).rows
        reader.query("SET profile = 'default'")
        for sql in ("SET readonly = 0", "SET max_execution_time = 100000", "SET max_memory_usage = 0", "SET allow_ddl = 1"):
            with pytest.raises(BadInput):
                reader.query(sql)
        assert reader.query(limits).rows == before


def test_what_is_said_to_no_table_stops_nothing(filled: Store) -> None:
    """The server takes SYSTEM STOP without a name, and then passes over all tables that it is not allowed for."""
    with Connection(filled.addresses["reader"]) as reader:
        for what in ("MERGES", "TTL MERGES", "MOVES", "CLEANUP"):
            reader.query(f"SYSTEM STOP {what}")
    filled.write([image(1)])
    filled.writer.execute("OPTIMIZE TABLE images FINAL")
    parts = "SELECT count(), max(level) > 0 FROM system.parts WHERE database = 'tasktrail' AND table = 'images' AND active"
    assert filled.writer.query(parts).rows == [(1, 1)]


def test_a_crowd_of_readers_leaves_room_for_the_writer(filled: Store) -> None:
    """Each of them wants all the memory that one query may have."""
    sql = "SELECT length(groupArray(number)) FROM numbers(1000000000)"

    def want() -> str:
        with Connection(filled.addresses["reader"], timeout_s=60) as reader, pytest.raises(BadInput) as refusal:
            reader.query(sql)
        return str(refusal.value)

    with ThreadPoolExecutor(8) as crowd:
        asking = [crowd.submit(want) for _ in range(8)]
        stored = 0
        while not all(one.done() for one in asking):
            filled.write([image(stored % 100)])
            stored += 1
        assert stored and all("needs more memory than allowed" in one.result() for one in asking)


def test_what_does_not_fit_into_memory_is_not_put_on_the_disk(filled: Store) -> None:
    assert filled.server is not None
    temporary = filled.server.directory / "clickhouse" / "data" / "tmp"
    before, found = set(temporary.iterdir()), set[Path]()

    def want() -> str:
        with Connection(filled.addresses["reader"], timeout_s=60) as reader, pytest.raises(BadInput) as refusal:
            reader.query("SELECT count() FROM numbers(100000000) AS a JOIN numbers(100000000) AS b USING number")
        return str(refusal.value)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(want)
        while wait([asking], timeout=0.05).not_done:
            found |= set(temporary.iterdir())
        assert "needs more memory than allowed" in asking.result()
    assert found <= before


def test_only_this_machine_is_listened_to(filled: Store) -> None:
    reader = filled.addresses["reader"]
    found = {f"{port:04X}": set[str]() for port in (reader.port, reader.http_port)}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, port = line.split()[1].split(":")
            if line.split()[3] == "0A" and port in found:
                found[port].add(address)
    assert all(addresses == {"0100007F"} for addresses in found.values()), found


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
