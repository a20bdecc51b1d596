"""find, watch, losses and the statements to copy, asked of a real server."""

import fnmatch
import time
from collections.abc import Iterator
from uuid import UUID

import pytest

from queries import find, hostnames, losses
from queries.find import Condition
from queries.globs import fits
from queries.history import readable
from queries.rows import Brief
from queries.statements import STATEMENTS, Statement
from queries.watch import Watcher
from schemas.rows import ImageRow, LossCause
from tests.contract.conftest import Store
from tests.contract.image_rows import Process, S, World
from tests.contract.rows import BEGIN, loss


@pytest.fixture(scope="module")
def world(store: Store) -> Iterator[Store]:
    """One host with a login that ran curl, a crash and hostile names."""
    host = World()
    systemd = host.root()
    sshd = systemd.spawn(10 * S, 812, b"sshd", b"-D")
    shell = sshd.fork(20 * S, 899).spawn(21 * S, 901, b"bash", user=b"ann", uid=1000, tty=b"pts/0", cwd=b"/home/ann")
    curl = shell.spawn(30 * S, 950, b"curl", b"https://www.example.com/x", b"-o", b"a b", user=b"ann", uid=1000)
    curl.exit(31 * S, code=6)
    cron = systemd.spawn(40 * S, 960, b"cron")
    cron.spawn(41 * S, 961, b"curl", b"https://other.example.org")
    bad = cron.spawn(50 * S, 970, b"bad", b"\xff\xfe'; --", b"%", exe=b"/tmp/\xff x")
    bad.exit(51 * S, signal=11)
    Process.exec(shell, 60 * S, b"zsh", user=b"ann", uid=1000)
    store.write(
        [
            *host.log,
            loss(0, cause=int(LossCause.NO_RECORDER), begin=BEGIN, end=BEGIN + 5 * S),
            loss(33, amount=12, begin=BEGIN + 33 * S, end=BEGIN + 34 * S),
        ]
    )
    yield store


def found(store: Store, *conditions: Condition, limit: int | None = None) -> list[tuple[int, bytes]]:
    return [(row.tgid, row.comm) for row in find.find(store.reader, Brief, conditions, limit)]


def test_any_column_finds_in_the_order_of_creation(world: Store) -> None:
    assert found(world, find.text("exe", "*/curl")) == [(950, b"curl"), (961, b"curl")]
    assert found(world, find.text("argv", "*.example.com/*")) == [(950, b"curl")]
    assert found(world, find.text("argv", "a b")) == [(950, b"curl")]
    assert found(world, find.user("ann"), find.kinds(["exec"])) == [(901, b"bash"), (901, b"zsh"), (950, b"curl")]
    assert found(world, find.user("1000"), find.text("tty", "pts/*")) == [(901, b"bash")]
    assert found(world, find.text("cwd", "/home/*")) == [(901, b"bash")]
    assert found(world, find.comm("[bc]a*")) == [(901, b"bash"), (970, b"bad")]
    assert found(world, find.text("host", "web2")) == []


def test_bytes_that_are_no_text_are_found_exactly(world: Store) -> None:
    assert found(world, find.text("exe", "/tmp/\udcff x")) == [(970, b"bad")]
    assert found(world, find.text("exe", "/tmp/? x")) == [(970, b"bad")]
    assert found(world, find.text("argv", "\udcff\udcfe'; --")) == [(970, b"bad")]
    assert found(world, find.text("argv", "[\udc80-\udcff]*")) == [(970, b"bad")]
    assert found(world, find.text("argv", "%")) == [(970, b"bad")]


def test_how_it_ended_is_asked_of_the_newest_row_only(world: Store) -> None:
    assert found(world, find.text("exe", "*/curl"), find.living()) == [(961, b"curl")]
    assert found(world, find.comparison("exit_signal=11")) == [(970, b"bad")]
    assert found(world, find.comparison("exit_code>0"), find.comparison("end_kind=exit")) == [(950, b"curl")]
    assert found(world, find.comparison("tgid<=812"), find.comparison("comm!=systemd")) == [(812, b"sshd")]
    assert found(world, find.comparison("kind=fork")) == [(899, b"sshd")]
    assert found(world, find.comparison("core_dumped=1")) == []
    assert (970, b"bad") not in found(world, find.living())


def test_under_means_all_that_descends(world: Store) -> None:
    assert found(world, find.under_name("sshd"), find.text("exe", "*/curl")) == [(950, b"curl")]
    assert found(world, find.under_name("*/cron")) == [(961, b"curl"), (970, b"bad")]
    assert found(world, find.under_name("bash")) == [(950, b"curl")]  # zsh is bash's own process
    sshd = next(find.find(world.reader, ImageRow, [find.text("comm", "sshd"), find.kinds(["exec"])]))
    assert found(world, find.under(sshd)) == [(899, b"sshd"), (901, b"bash"), (901, b"zsh"), (950, b"curl")]


def test_interval_and_limit(world: Store) -> None:
    assert found(world, *find.began(BEGIN + 30 * S, BEGIN + 41 * S)) == [(950, b"curl"), (960, b"cron")]
    assert found(world, find.kinds(["exec"]), limit=2) == [(970, b"bad"), (901, b"zsh")]
    assert found(world, limit=0) == []


def test_every_row_is_given_once_in_its_newest_form(world: Store) -> None:
    rows = list(find.find(world.reader, ImageRow, []))
    assert len({(row.task_id, row.exec_id) for row in rows}) == len(rows) == 9


def test_a_stream_that_is_left_early_leaves_the_connection_fit(world: Store) -> None:
    stream = find.find(world.reader, Brief, [])
    next(stream)
    del stream
    assert found(world, find.text("comm", "cron")) == [(960, b"cron")]


def test_losses_that_touch_an_interval(world: Store) -> None:
    assert losses.recording_since(world.reader) == BEGIN + 5 * S
    assert losses.recording_since(world.reader, hostnames.named("web2")) == 0
    touched = losses.touching(world.reader, BEGIN + 33 * S, BEGIN + 40 * S)
    assert [row.amount for row in touched] == [12]
    assert losses.in_words(touched).startswith("the ring was full (12 records) between ")
    assert losses.touching(world.reader, BEGIN + 35 * S, BEGIN + 40 * S) == []


@pytest.mark.parametrize("pattern", ["*", "a*", "*z", "a*z", "*m*", "a?m*", "[a-b]*", "[!a]*", "?", "\udcff*", "*\udcff*", "", "*?*"])
def test_patterns_mean_the_same_in_the_store_as_in_python(store: Store, pattern: str) -> None:
    strings = [b"", b"a", b"z", b"az", b"amz", b"a\xffmz", b"\xff", b"m\xff\n", b"bcm", b"%", b"_", "é".encode(), b"\\", b"a.z", b"\0m"]
    test = fits("x", pattern)
    params = {name.replace("#", ""): value for name, value in test.params.items()}
    sql = f"SELECT arrayFilter(x -> {test.sql.replace('#', '')}, {{strings:Array(String)}}) AS found"
    answer = store.reader.query(sql, {**params, "strings": strings}).rows[0][0]
    as_text = pattern.encode("utf-8", "surrogateescape").decode("latin-1")
    assert list(answer) == [one for one in strings if fnmatch.fnmatchcase(one.decode("latin-1"), as_text)]


PARAMS = {"task_id": UUID(int=1), "comm": "curl", "under": "sshd", "tgid": 950, "at": "2026-11-25 12:00:00"}


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda one: one.name)
def test_statements_to_copy_run_as_the_reader(world: Store, statement: Statement) -> None:
    world.reader.query(statement.sql, PARAMS)


# -- watch --


def comms(watcher: Watcher) -> list[bytes]:
    return [history.image.comm for history in watcher.look()]


def test_watch_shows_what_comes_once_each_and_in_order(store: Store) -> None:
    host = World(b"w1", UUID(int=31), UUID(int=32))
    root = host.root()
    store.write(host.log)
    watcher = Watcher(store.reader, time.time_ns, [find.text("host", "w1")])
    watcher.start()
    assert comms(watcher) == []
    second = root.spawn(101 * S, 51, b"second")
    first = root.spawn(100 * S, 50, b"first")
    store.write([second.now, first.now])
    assert comms(watcher) == [b"first", b"second"]
    first.exit(102 * S)
    store.write([first.now])
    assert comms(watcher) == []
    # Rows come up to the join's 200 ms late, in event time.
    late = root.spawn(101 * S - S // 10, 52, b"late")
    store.write([late.now])
    assert comms(watcher) == [b"late"]
    assert comms(watcher) == []


def test_watch_waits_for_a_forked_ancestor_whose_row_comes_later(store: Store) -> None:
    host = World(b"w2", UUID(int=41), UUID(int=42))
    root = host.root()
    store.write(host.log)
    watcher = Watcher(store.reader, time.time_ns, [find.text("host", "w2")])
    watcher.start()
    subshell = root.fork(10 * S, 60)
    command = subshell.spawn(10 * S + 1, 61, b"ls")
    after = root.spawn(11 * S, 62, b"after")
    store.write([command.now, after.now])
    assert watcher.look() == []
    store.write([subshell.now])
    assert [readable(history.steps) for history in watcher.look()] == ["systemd(1) > systemd(60) > ls(61)", "systemd(1) > after(62)"]


def test_watch_does_not_wait_for_ever(store: Store) -> None:
    host = World(b"w3", UUID(int=51), UUID(int=52))
    root = host.root()
    store.write(host.log)
    watcher = Watcher(store.reader, time.time_ns, [find.text("host", "w3")])
    watcher.start()
    store.write([root.fork(10 * S, 60).spawn(10 * S + 1, 61, b"ls").now])
    looks = [[readable(history.steps) for history in watcher.look()] for _ in range(5)]
    assert [shown for look in looks for shown in look] == ["systemd(1) > ?(60) > ls(61)"]


def test_watch_sees_a_new_host_and_a_new_boot_from_their_beginning(store: Store) -> None:
    watcher = Watcher(store.reader, time.time_ns, [])
    watcher.start()
    host = World(b"w4", UUID(int=61), UUID(int=62))
    host.root().spawn(5 * S, 7, b"sh")
    store.write(host.log)
    assert comms(watcher) == [b"systemd", b"sh"]
