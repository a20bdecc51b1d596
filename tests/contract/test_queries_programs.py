"""Questions by name: the same answers with table programs as without, whatever a later row says, and few rows read for them."""

import threading
from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest

from queries import find, hostnames, programs
from queries.find import Condition
from queries.per_host import Runs, per_host
from queries.rows import Answer, Arriving, Brief, Params, Settings, make
from schemas.errors import TasktrailError
from schemas.rows import ImageRow
from store import filling, migrate
from store.connection import Connection
from tests.contract.conftest import Store
from tests.contract.image_rows import S, World
from tests.contract.rows import BEGIN, image

HOSTS = 40
ROWS_OF_HOST = 20_000
RARE_EVERY = 20_000
OFTEN_EVERY = 2_000


@pytest.fixture(scope="module")
def world(store: Store) -> Iterator[Store]:
    """Two hosts; what some rows said was taken back by later ones."""
    rows: list[ImageRow] = []
    for number, name in ((1, b"web1"), (2, b"web2")):
        host = World(name, UUID(int=number), UUID(int=number << 8))
        systemd = host.root()
        shell = systemd.spawn(10 * S, 20, b"sshd").spawn(20 * S, 30, b"bash", user=b"ann", uid=1000)
        for at in range(3):
            shell.spawn((30 + at) * S, 40 + at, b"nc", exe=b"/usr/bin/nc", user=b"ann", uid=1000).exit((31 + at) * S)
        shell.spawn(40 * S, 50, b"NC", exe=b"/opt/nc/NC")
        systemd.spawn(50 * S, 60, b"cron").spawn(51 * S, 61, b"nc", exe=b"/usr/bin/nc.openbsd")
        shell.spawn(60 * S, 70, b"\xff n", exe=b"/tmp/\xff/\xffx")
        renamed = shell.spawn(61 * S, 71, b"python3")
        renamed.put(renamed.now._replace(renamed=b"nc", version=renamed.now.version + 1))
        find_shell = shell.exec(70 * S, b"zsh")
        assert find_shell.comm == b"zsh"
        shell.spawn(71 * S, 72, b"nc")
        taken_back = systemd.spawn(80 * S, 80, b"nc")
        taken_back.put(taken_back.now._replace(comm=b"ncat", exe=b"/usr/bin/ncat", version=taken_back.now.version + 1))
        other_chain = systemd.spawn(81 * S, 81, b"nc")
        chain = {"chain_comm": (b"init", b"nc"), "chain_exe": (b"/sbin/init", b"/bin/nc")}
        other_chain.put(other_chain.now._replace(**chain, version=other_chain.now.version + 1))
        rows += host.log
    # Later versions of some come before their earlier ones, each in a part of its own.
    store.write(rows[::2][::-1])
    store.write(rows[1::2][::-1])
    assert programs.ready(store.reader)
    yield store


QUESTIONS: Sequence[Sequence[Condition]] = (
    [find.comm("nc")],
    [find.comm("NC")],
    [find.comm("n*")],
    [find.comm("*c")],
    [find.comm("[nN][cC]")],
    [find.comm("\udcff*")],
    [find.comm("nc"), find.under_name("bash")],
    [find.comm("nc"), find.under_name("ba?h")],
    [find.comm("nc"), find.under_name("*/bash")],
    [find.comm("nc"), find.under_name("/bin/bash")],
    [find.comm("nc"), find.under_name("/*/bash")],
    [find.comm("nc"), find.under_name("[/]bin/bash")],
    [find.comm("nc"), find.under_name("systemd"), find.user("ann")],
    [find.comm("nc"), find.under_name("init")],
    [find.comm("ncat")],
    [find.under_name("zsh")],
    [find.under_name("*")],
    [find.text("exe", "*/nc")],
    [find.text("exe", "/usr/bin/nc*")],
    [find.text("exe", "*nc")],
    [find.text("exe", "/usr/bin/nc")],
    [find.text("exe", "nc")],
    [find.text("exe", "*/NC")],
    [find.text("exe", "[/]usr/bin/nc")],
    [find.text("exe", "/tmp/?/\udcffx")],
    [find.text("exe", "*/\udcffx")],
    [find.comm("nc"), hostnames.named("web2")],
    [find.comm("nc"), find.comparison("end_kind=exit")],
    [find.comm("nc"), find.comparison("uid=1000"), find.comparison("comm!=python3")],
    [find.comm("nc"), find.living(), *find.began(BEGIN + 31 * S, BEGIN + 80 * S)],
    [find.comm("nc"), find.kinds(["exec"])],
)


def without_programs(store: Store, conditions: Sequence[Condition], limit: int | None) -> list[Brief]:
    sql, params = find.statement(Brief, conditions, limit)
    assert "programs" not in sql
    rows = list(make(Brief, store.reader.query(sql, params).rows))
    return rows if limit is None else rows[::-1]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_answers_are_the_same_with_the_table_as_without(world: Store, number: int) -> None:
    conditions = QUESTIONS[number]
    assert "programs" in find.statement(Brief, conditions, None, find.candidates(world.reader, conditions))[0]
    for limit in (None, 2):
        assert list(find.find(world.reader, Brief, conditions, limit)) == without_programs(world, conditions, limit)


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_hosts_are_counted_as_their_images_are_found(world: Store, number: int) -> None:
    images = without_programs(world, QUESTIONS[number], None)
    expected = []
    for host_id, name in {row.host_id: row.host for row in images}.items():
        begins = [row.begin for row in images if row.host_id == host_id]
        expected.append(Runs(host_id, name, len(begins), min(begins), max(begins)))
    assert per_host(world.reader, QUESTIONS[number]) == sorted(expected, key=lambda one: (-one.images, one.host, one.host_id))


def test_what_a_later_row_takes_back_is_not_found(world: Store) -> None:
    """Both rows are in both tables, so an index alone would find the first."""
    raw = world.reader.query("SELECT DISTINCT tgid FROM programs WHERE comm = 'nc' ORDER BY tgid").rows
    assert (80,) in raw
    found = {row.tgid for row in find.find(world.reader, Brief, [find.comm("nc")])}
    assert found == {40, 41, 42, 61, 71, 72, 81}
    assert {row.tgid for row in find.find(world.reader, Brief, [find.comm("nc"), find.under_name("bash")])} == {40, 41, 42, 71, 72}
    assert [one.images for one in per_host(world.reader, [find.comm("nc")])] == [7, 7]


def test_the_newest_row_counts_after_a_merge_too(world: Store) -> None:
    before = [list(find.find(world.reader, Brief, conditions)) for conditions in QUESTIONS]
    for table in ("programs", "images"):
        world.writer.execute(f"OPTIMIZE TABLE {table} FINAL")
        assert [list(find.find(world.reader, Brief, conditions)) for conditions in QUESTIONS] == before


# -- a store of an older version --


@pytest.fixture
def older(store: Store) -> Iterator[Store]:
    """The store as a version without the table left it: rows in images alone."""
    for name in ("images", "programs"):
        store.writer.execute(f"TRUNCATE TABLE {name}")
    for name in ("programs_view", "programs", "schema_fills"):
        store.writer.execute(f"DROP TABLE {name}")
    store.writer.execute("ALTER TABLE schema_versions DELETE WHERE version = 6 SETTINGS mutations_sync = 1")
    weeks = [image(number, start=BEGIN + number * 86_400 * S, comm=b"nc") for number in range(0, 30, 3)]
    store.write(weeks)
    yield store
    migrate.apply(store.addresses["writer"])
    migrate.fill(store.addresses["writer"], pause=no_pause)


def no_pause(seconds: float) -> None:
    """Nobody inserts meanwhile."""


def ncs(store: Store) -> int:
    return len(list(find.find(store.reader, Brief, [find.comm("nc")])))


def test_old_rows_are_found_before_while_and_after_they_are_put_into_the_table(older: Store) -> None:
    writer = older.addresses["writer"]
    assert not programs.ready(older.reader) and ncs(older) == 10
    assert migrate.apply(writer) == ["programs"]
    assert not programs.ready(older.reader) and ncs(older) == 10
    older.write([image(100, comm=b"nc")])
    assert not programs.ready(older.reader) and ncs(older) == 11
    assert [one.images for one in per_host(older.reader, [find.comm("nc")])] == [11]
    assert migrate.fill(writer, pause=no_pause)
    assert programs.ready(older.reader) and ncs(older) == 11
    assert older.reader.query("SELECT count() FROM programs FINAL").rows == [(11,)]
    # Nothing is done again.
    older.writer.execute("TRUNCATE TABLE programs")
    assert migrate.fill(writer, pause=no_pause)
    assert older.reader.query("SELECT count() FROM programs").rows == [(0,)]


def test_a_fill_that_was_given_up_goes_on(older: Store) -> None:
    writer = older.addresses["writer"]
    migrate.apply(writer)
    pieces = older.reader.query("SELECT DISTINCT toString(toMonday(start)) AS week FROM images ORDER BY week").rows
    assert len(pieces) > 3
    # As if it had been ended after the first two weeks: what they left is not looked at again.
    for (piece,) in pieces[:2]:
        filling.record(older.writer, writer.database, piece)
    assert not programs.ready(older.reader)
    assert migrate.fill(writer, pause=no_pause)
    left_out = older.reader.query(
        "SELECT count() FROM images WHERE toString(toMonday(start)) IN {done:Array(String)}", {"done": [piece for (piece,) in pieces[:2]]}
    ).rows
    assert older.reader.query("SELECT 10 - count() FROM programs FINAL").rows == left_out


def test_two_places_at_once_fill_it_once(older: Store) -> None:
    problems: list[TasktrailError] = []

    def bring() -> None:
        try:
            migrate.apply(older.addresses["writer"])
            migrate.fill(older.addresses["writer"], pause=no_pause)
        except TasktrailError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert programs.ready(older.reader) and ncs(older) == 10
    assert older.reader.query("SELECT count() FROM programs FINAL").rows == [(10,)]


def test_a_fill_waits_for_inserts_that_began_before_the_view(older: Store) -> None:
    """An insert that began before the view was there does not go through it."""
    slow = """INSERT INTO images (host_id, start_boottime, tgid, start, seen, comm)
        SELECT toUUID('00000000-0000-0000-0000-000000000009'), number, number, now(), now(), 'nc'
        FROM numbers(30) WHERE sleepEachRow(0.02) = 0 SETTINGS max_block_size = 10"""
    with Connection(older.addresses["writer"]) as other:
        inserting = threading.Thread(target=other.execute, args=(slow,))
        inserting.start()
        while not older.writer.query("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO images%'").rows[0][0]:
            assert inserting.is_alive()
        waits: list[float] = []
        migrate.apply(older.addresses["writer"])
        tick = threading.Event()

        def pause(seconds: float) -> None:
            waits.append(seconds)
            tick.wait(seconds)

        migrate.fill(older.addresses["writer"], pause=pause)
        inserting.join()
    assert waits
    assert older.reader.query("SELECT count() FROM programs FINAL").rows == older.reader.query("SELECT count() FROM images FINAL").rows


# -- how much is read --


class Counting:
    """A source that knows how many rows the server has read for it."""

    def __init__(self, reader: Connection) -> None:
        self.read = 0
        self._reader = reader

    def query(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Answer:
        answer = self._reader.query(sql, params, {**(settings or {}), "use_query_condition_cache": 0})
        self.read += self._reader._client.last_query.progress.rows
        return answer

    def stream(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Arriving:
        raise NotImplementedError


@pytest.fixture(scope="module")
def many(store: Store) -> Iterator[Store]:
    """The images of many hosts, most of them bash below sshd; some are nc, more are curl."""
    store.writer.execute("TRUNCATE TABLE images")
    store.writer.execute("TRUNCATE TABLE programs")
    name = f"multiIf(number % {RARE_EVERY} = 7, 'nc', number % {OFTEN_EVERY} = 9, 'curl', 'bash')"
    store.writer.execute(
        f"""INSERT INTO images (host_id, host, start_boottime, tgid, exec_id, kind, start, begin, seen, version, creator_exec_id,
            comm, exe, chain_comm, chain_exe, chain_exec_id)
        SELECT reinterpretAsUUID(toUInt128(intDiv(number, {ROWS_OF_HOST}) + 1)), 'web', number * 50000000, number, 3, 'exec',
            now() - 1, now() - 1, now(), 1, 2,
            {name} AS name, concat('/usr/bin/', name) AS exe, ['systemd', 'sshd', name], ['/sbin/init', '/usr/sbin/sshd', exe], [1, 2, 3]
        FROM numbers({HOSTS * ROWS_OF_HOST})""",
        settings={"max_block_size": 16_384, "min_insert_block_size_rows": 16_384, "max_threads": 1},
    )
    yield store


@pytest.mark.parametrize(
    ("conditions", "images", "share"),
    [
        ([find.comm("nc"), find.under_name("sshd")], 1, 0.05),
        ([find.text("exe", "*/nc"), find.under_name("*/sshd")], 1, 0.05),
        ([find.comm("curl"), find.under_name("sshd")], 10, 0.3),
        ([find.comm("nc"), find.under_name("cron")], 0, 0.05),
        ([find.under_name("cron")], 0, 0.05),
    ],
    ids=lambda one: str(one) if isinstance(one, int) else "",
)
def test_who_ran_it_per_host_reads_few_rows(many: Store, conditions: Sequence[Condition], images: int, share: float) -> None:
    source = Counting(many.reader)
    found = per_host(source, conditions)
    assert [one.images for one in found] == [images] * (HOSTS if images else 0)
    assert source.read / (HOSTS * ROWS_OF_HOST) <= share


def test_candidates_of_a_rare_name_are_found_by_reading_few_rows(many: Store) -> None:
    source = Counting(many.reader)
    conditions = [find.comm("nc"), find.comparison("end_kind=living")]
    where = find.candidates(source, conditions)
    assert where and source.read / (HOSTS * ROWS_OF_HOST) <= 0.05


def test_a_name_that_is_everywhere_is_looked_for_in_one_way_only(many: Store) -> None:
    """A list of most of the table's keys would take more memory than it saves time."""
    assert find.candidates(many.reader, [find.comm("bash"), find.living()]) is None
    assert [one.images for one in per_host(many.reader, [find.comm("bash")])] == [ROWS_OF_HOST - 11] * HOSTS
