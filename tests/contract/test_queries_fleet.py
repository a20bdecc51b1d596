"""The reading commands over a fleet: never a row of another host, whatever the hosts are called and however alike they are."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from queries import hostnames
from queries.hostnames import Host
from queries.jsonlines import exact
from queries.statements import STATEMENTS
from schemas.rows import ImageRow
from store import clusters, migrate
from store.connection import Connection, in_turn
from streams.sinks.clickhouse import Sink
from tests.contract import cluster
from tests.contract.conftest import Store, no_wait
from tests.contract.fleet_rows import COPIED_BOOT, HOSTILE, NAMES, PLAIN, fleet, host_id, mark, world
from tests.contract.image_rows import S
from tests.contract.rows import BEGIN
from tests.contract.shell import Shell

HOSTS = range(len(NAMES))
ASKED = (0, 1, 4, 7, 8, 9, 12, 15, 19)
"""Hosts that the slower tests ask about."""
PIDS = [1, 812, 899, 901, 4650, 4711]


@pytest.fixture(scope="module", params=["one server", "two servers"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What --store takes, for a store that holds the fleet: one server, and a cluster where half of the hosts are on either of two."""
    if request.param == "one server":
        store: Store = request.getfixturevalue("store")
        store.write(fleet())
        yield store.place
        return
    with cluster.started(tmp_path_factory.mktemp("two")) as servers:
        migrate.apply(servers.admin(), cluster=cluster.CLUSTER)
        sink = Sink(in_turn(servers.admin()), tmp_path_factory.mktemp("dead"), no_wait, lambda: 0.0)
        sink.write(fleet(), "fleet")
        reader = servers.servers[1].address("reader")
        yield f"clickhouse://{reader.user}:{reader.password}@{reader.host}:{reader.port}/{reader.database}"


@pytest.fixture
def shell(place: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(place, capsys)


def ways(number: int) -> list[str]:
    """How the host can be named without naming another: by its id, the id's digits, and its name if it is the only one."""
    if number not in (0, 7, 9):
        return [str(host_id(number))]
    ids = [str(host_id(number)), str(host_id(number))[:8]]
    return [NAMES[number].decode(), *ids] if NAMES[number] in PLAIN else ids


def moment(seconds: float) -> str:
    """So many seconds after the hosts' boot, as a person writes it."""
    return datetime.fromtimestamp(BEGIN / 1e9 + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def images_in(value: object) -> Iterator[dict[str, object]]:
    """Every image of an answer."""
    if isinstance(value, dict):
        if "exec_id" in value and "host_id" in value:
            yield value
        for inner in value.values():
            yield from images_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner)


def check(number: int, lines: list[dict[str, object]]) -> list[dict[str, object]]:
    """All images of the answer, each of that host and no other."""
    found = list(images_in(lines))
    assert found
    for image in found:
        assert image["host_id"] == str(host_id(number)) and exact(image, "host") == NAMES[number]
        argv = exact(image, "argv")
        assert isinstance(argv, list) and mark(number) in argv, image
    return found


@pytest.mark.parametrize("number", ASKED)
def test_history_is_of_the_host_that_is_named(shell: Shell, number: int) -> None:
    for way in ways(number):
        (found,) = shell.lines("history", f"{way}:4711", "--json")
        check(number, [found])
        assert [step["tgid"] for step in found["steps"]] == PIDS  # type: ignore[attr-defined]
        assert shell.lines("history", "4711", "--host", way, "--json") == [found]
    key = str(host_id(number))
    (past,) = shell.lines("history", f"{key}:4711", "--at", moment(22.5), "--json")
    assert check(number, [past])[-1]["comm"] == "ls"
    (named,) = shell.lines("history", f"{key}:make", "--json")
    check(number, [named])
    (same,) = shell.lines("history", str(named["image"]["task_id"]), "--json")  # type: ignore[index]
    assert same == named
    lines = shell.pipe("history", f"{key}:4711", "--long")[1].splitlines()[1:-1]
    assert len(lines) == 6 and all(mark(number).decode() in line for line in lines)


@pytest.mark.parametrize("number", ASKED)
def test_tree_ps_and_find_are_of_the_host_that_is_named(shell: Shell, number: int) -> None:
    written = world(number).log
    for way in ways(number):
        below = check(number, shell.lines("tree", f"{way}:812", "--dead"))
        wanted = {(row.tgid, row.exec_id) for row in written if 800 < row.tgid < 7000}
        assert {(image["tgid"], image["exec_id"]) for image in below} == wanted and len(below) == len(wanted)
        living = check(number, shell.lines("ps", "--host", way))
        newest: dict[tuple[int, int, int], ImageRow] = {}
        for row in written:
            newest[row.tgid, row.start_boottime, row.exec_id] = row
        assert sorted(image["tgid"] for image in living) == sorted(row.tgid for row in newest.values() if not row.end_kind)  # type: ignore[type-var]
        everything = check(number, shell.lines("find", "--host", way, "--kind", "any"))
        assert len(everything) == len(newest)
        check(number, shell.lines("find", "--host", way, "--limit", "3"))
        under = check(number, shell.lines("find", "--under", f"{way}:901"))
        assert under == check(number, shell.lines("find", "--host", way, "--under", "901"))
        assert {4650, 4711} <= {image["tgid"] for image in under}


@pytest.mark.parametrize("number", [0, 1, 2, 7, 8, 9, 12])
def test_watch_and_since_are_of_the_host_that_is_named(shell: Shell, number: int) -> None:
    way = str(host_id(number))
    wanted = {(row.tgid, row.exec_id) for row in world(number).log if row.kind == 1 and row.begin >= BEGIN + 41 * S}
    seen = check(number, shell.lines("watch", "--host", way, "--since", moment(41), "--count", str(len(wanted)), "--json"))
    assert {(image["tgid"], image["exec_id"]) for image in seen} == wanted
    found = check(number, shell.lines("find", "--host", way, "--since", moment(41), "--kind", "exec"))
    assert {(image["tgid"], image["exec_id"]) for image in found} == wanted
    late = check(number, shell.lines("tree", f"{way}:1", "--dead", "--since", moment(89)))
    assert {image["tgid"] for image in late} == {1, 7000 + number}
    assert {image["tgid"] for image in check(number, shell.lines("ps", "--host", way, "--since", moment(30)))} <= {4650, 4711}
    code, _, err = shell.pipe("history", f"{way}:812", "--since", moment(11))
    assert code == 2 and "no process had pid 812" in err
    assert check(number, shell.lines("history", f"{way}:4711", "--since", moment(30), "--json"))[0]["comm"] == "cc1"


def test_a_pid_that_several_hosts_had_is_refused_with_their_names(shell: Shell) -> None:
    for arguments in (["history", "4711"], ["tree", "901"], ["find", "--under", "901"], ["history", "4711", "--at", moment(22.5)]):
        code, out, err = shell.pipe(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert " could be on " in err and " and more; write HOST:" in err
    code, _, err = shell.pipe("history", "web-[12]:4711")
    assert code == 2 and set(re.findall(r"web-\d", err)) == {"web-1", "web-2"}


def test_two_hosts_of_one_name_are_told_apart_by_their_ids(shell: Shell) -> None:
    code, _, err = shell.pipe("history", "twin:4711")
    assert code == 2
    keys = re.findall(r"([0-9a-f]{8}) \(twin\)", err)
    assert sorted(keys) == sorted(str(host_id(number))[:8] for number in HOSTS if NAMES[number] == b"twin")
    for key in keys:
        assert len(shell.lines("history", f"{key}:4711", "--json")) == 1
    code, _, err = shell.pipe("history", "twin:make")
    assert code == 2 and all(f"{key}:make(4650)" in err for key in keys)
    shown = shell.terminal("ps", "--host", "twin", columns=120)
    assert all(f"{key}:901" in shown for key in keys) and "twin:901" not in shown


def test_only_one_host_had_it_and_stderr_says_which(shell: Shell) -> None:
    code, out, err = shell.pipe("history", "7003")
    assert (code, out.splitlines()[0], err) == (
        0,
        "systemd(1) > only-3(7003)",
        f"tasktrail: 7003 is on host web-4 (host_id {host_id(3)})\n",
    )
    code, out, err = shell.pipe("history", "only-11", "--json")
    check(11, [json.loads(out)])
    assert code == 0 and err.count("\n") == 1 and str(host_id(11)) in err


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_hostile_names_of_hosts_deceive_nobody(shell: Shell, name: bytes) -> None:
    number = NAMES.index(name)
    for arguments in (["history", "4711"], ["history", f"{str(host_id(number))[:8]}:nothing"], ["history", "make"]):
        err = shell.pipe(*arguments)[2]
        assert err.count("\n") == 1 and err[:-1].isprintable(), err
    shown = shell.terminal("find", "--comm", "cc1", columns=200)
    assert "\x1b" not in shown and f"{str(host_id(number))[:8]}:cc1(4711)" in shown
    # A name is taken as it is where it is given as a value, unless it is a pattern.
    if b"*" not in name and b"[" not in name and name:
        check(number, shell.lines("ps", "--host", name.decode("utf-8", "surrogateescape")))


def test_what_looks_like_a_pattern_is_one_and_its_hosts_are_listed(shell: Shell) -> None:
    found = {image["host"] for image in images_in(shell.lines("ps", "--host", "web-[0-9]"))}
    assert found == {name.decode() for name in PLAIN}
    assert {image["host_id"] for image in images_in(shell.lines("ps", "--host", "*"))} == {str(host_id(number)) for number in HOSTS}
    assert {image["host_id"] for image in images_in(shell.lines("ps"))} == {str(host_id(number)) for number in HOSTS}
    assert shell.lines("ps", "--host", "nobody") == []
    code, _, err = shell.pipe("history", "nobody:4711")
    assert code == 2 and "no process had pid 4711 on nobody" in err
    code, _, err = shell.pipe("history", "web-1:4711", "--host", "web-2")
    assert code == 2 and "two hosts are named" in err


def test_a_loss_of_another_host_explains_nothing(shell: Shell) -> None:
    """Host 0 lost records at 33 s, host 1 did not."""
    assert "the ring was full (1 records)" in shell.pipe("history", "web-1:77", "--at", moment(33))[2]
    assert "the ring was full" not in shell.pipe("history", "web-2:77", "--at", moment(33))[2]


def test_a_copied_boot_mixes_nothing(shell: Shell) -> None:
    """Hosts 0 and 1 have one boot_id, and everything on them has the same pid and start."""
    both = [world(number).log[0] for number in (0, 1)]
    assert {row.boot_id for row in both} == {COPIED_BOOT} and both[0].task_id != both[1].task_id
    for number in (0, 1):
        seen = shell.lines("watch", "--host", f"web-{number + 1}", "--since", moment(0), "--count", "5", "--json")
        assert len(check(number, seen)) == 5


def test_keys_of_hosts_are_as_long_as_needed_and_never_a_pattern() -> None:
    one, two = UUID(int=0xAB << 120), UUID(int=0xAB << 120 | 1 << 64)
    keys = hostnames.keys([Host(one, b"a"), Host(two, b"a"), Host(UUID(int=7 << 120), b"b"), Host(UUID(int=9 << 120), b"w*")])
    assert keys[one] != keys[two] and str(one).startswith(keys[one]) and str(two).startswith(keys[two])
    assert keys[UUID(int=7 << 120)] == "b" and keys[UUID(int=9 << 120)].startswith("09000000")


def test_a_cluster_answers_what_one_server_does(store: Store, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every statement to copy, and every kind of SQL that a person may write over the tables."""
    values = {"task_id": world(3).log[3].task_id, "comm": "cc1", "under": "sshd", "tgid": 4711, "at": "2026-11-25 10:00:30"}
    more = [
        "SELECT count(), uniqExact(host_id), sum(duration) FROM images FINAL",
        "SELECT host, count() FROM current_images GROUP BY host ORDER BY host, 2",
        "SELECT count() FROM images FINAL WHERE host_id IN (SELECT host_id FROM losses FINAL WHERE amount > 0)",
        "SELECT count() FROM current_images AS a JOIN current_images AS b ON a.creator_id = b.task_id AND a.creator_exec_id = b.exec_id",
        "SELECT min(host_id) != max(host_id), max(begin) FROM images",
        "SELECT cpid, ended, host FROM images WHERE end_kind = 'exit' ORDER BY cpid, exec_id LIMIT 50",
        "SELECT count() FROM current_images WHERE comm IN (SELECT comm FROM current_images WHERE host = 'web-4')",
        "SELECT count() FROM images FINAL WHERE tgid NOT IN (SELECT tgid FROM images WHERE host = 'web-3')",
        "SELECT a.host, count() FROM current_images AS a JOIN current_images AS b USING comm WHERE b.host = 'web-2' GROUP BY a.host",
        "SELECT quantileExact(0.5)(duration), topK(3)(comm) FROM current_images WHERE kind = 'exec'",
    ]
    store.writer.execute("TRUNCATE TABLE images")
    store.writer.execute("TRUNCATE TABLE losses")
    store.write(fleet())
    with cluster.started(tmp_path_factory.mktemp("two")) as servers:
        migrate.apply(servers.admin(), cluster=cluster.CLUSTER)
        Sink(in_turn(servers.admin()), tmp_path_factory.mktemp("dead"), no_wait, lambda: 0.0).write(fleet(), "fleet")
        with Connection(servers.servers[0].address("reader"), clusters.ANY) as spread:
            for sql in [*more, *(statement.sql for statement in STATEMENTS)]:
                one, two = (sorted(map(repr, source.query(sql, values).rows)) for source in (store.reader, spread))
                assert one == two, sql
