"""Walks, trees, targets and conditions on rows made by hand; no store."""

from typing import Any
from uuid import UUID

import pytest

from queries import find, tree
from queries.completeness import is_complete, state
from queries.endings import ending, short_ending
from queries.history import IDS_AT_ONCE, Origin, known_of, portions_of, readable, walk
from queries.patch import history_string
from queries.patch_chain import elements_of
from queries.records import history_object
from queries.rows import Brief
from queries.targets import Candidate, Target, choose, parse_target
from queries.times import Moment
from schemas.errors import BadInput
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, ImageRow
from tests.contract.image_rows import Process, S, World
from tests.contract.rows import BEGIN


def known(world: World) -> dict[UUID, dict[int, ImageRow]]:
    return known_of(world.log)


def chain_of(world: World, image: ImageRow) -> str:
    return readable(walk(image, known(world)).steps)


def test_a_process_is_named_by_what_it_ran_when_it_forked() -> None:
    world = World()
    shell = world.root().spawn(10 * S, 50, b"bash")
    child = shell.spawn(20 * S, 60, b"sleep")
    shell.exec(30 * S, b"python3")
    late = shell.spawn(40 * S, 70, b"ls")
    assert chain_of(world, child.now) == "systemd(1) > bash(50) > sleep(60)"
    assert chain_of(world, late.now) == "systemd(1) > python3(50) > ls(70)"


def test_execs_within_one_process_are_one_step_and_several_images() -> None:
    world = World()
    process = world.root().fork(10 * S, 50)
    process.exec(11 * S, b"env")
    process.exec(12 * S, b"perl")
    history = walk(process.now, known(world))
    assert readable(history.steps) == "systemd(1) > perl(50)"
    assert [(image.comm, image.kind) for image in history.images] == [
        (b"systemd", ImageKind.EXEC),
        (b"systemd", ImageKind.FORK),
        (b"env", ImageKind.EXEC),
        (b"perl", ImageKind.EXEC),
    ]


def test_an_image_of_the_past_shows_its_own_past() -> None:
    world = World()
    process = world.root().spawn(10 * S, 50, b"sh")
    first = process.now
    process.exec(20 * S, b"vi")
    history = walk(first, known(world))
    assert readable(history.steps) == "systemd(1) > sh(50)"
    assert [image.comm for image in history.images] == [b"systemd", b"sh"]


def test_an_unknown_creator_is_a_question_mark_and_the_root_is_not_reached() -> None:
    world = World()
    orphan = Process(world, 90, 5 * S, None, unknown_creator=True)
    chain = {"chain_kind": (4, 3), "chain_tgid": (0, 90), "chain_exec_id": (6, 7), "chain_start": (0, BEGIN)}
    names = {"chain_comm": (b"", b"cron"), "chain_exe": (b"", b"/cron"), "chain_before": 1, "creator_exec_id": 6}
    orphan.put(orphan.row(7, 6 * S, kind=int(ImageKind.SEEN), comm=b"cron", **chain, **names))
    history = walk(orphan.now, known(world))
    assert readable(history.steps) == "? > cron(90)"
    assert not history.whole and not is_complete(orphan.now, history)
    assert history_string(*elements_of(history)) == f"=>name=?;pid=?;start=?=>name=cron;pid=90;start={_stamp(BEGIN)}"
    assert "1 step is not known" in state(orphan.now, history) and "older than the recorder" in state(orphan.now, history)


def _stamp(time_ns: int) -> str:
    from queries.patch import stamp

    return stamp(time_ns)


def test_a_lost_image_of_the_creator_is_unknown_with_its_pid() -> None:
    world = World()
    shell = world.root().spawn(10 * S, 50, b"bash")
    shell.exec(15 * S, b"lost")
    child = shell.spawn(20 * S, 60, b"ls")
    rows = known(world)
    del rows[shell.task_id][shell.now.exec_id]
    history = walk(child.now, rows)
    assert readable(history.steps) == "systemd(1) > ?(50) > ls(60)"
    assert history.steps[1].origin is Origin.UNKNOWN and history.whole


def test_rows_that_are_gone_are_told_from_the_kept_chain() -> None:
    world = World()
    make = world.root().spawn(10 * S, 50, b"sshd").fork(11 * S, 51).spawn(12 * S, 52, b"make")
    last = make.spawn(13 * S, 53, b"cc1")
    rows = known(world)
    only_last = {last.task_id: rows[last.task_id]}
    history = walk(last.now, only_last)
    # The forked 51 is not on the chain of programs; that is why the answer has to say where it comes from.
    assert readable(history.steps) == "systemd(1) > sshd(50) > make(52) > cc1(53)"
    assert history.fallback == 3 and "only known from the kept chain" in state(last.now, history)
    found = history_object(history)
    assert found["completeness"] == {
        "complete": False,
        "before_recorder": False,
        "cut": False,
        "lost": False,
        "lost_from": None,
        "lost_to": None,
        "steps_from_chain": 3,
        "steps_unknown": 0,
        "says": state(last.now, history),
    }


def test_losses_say_when() -> None:
    world = World()
    root = world.root()
    image = root.put(root.now._replace(chain_complete=0, chain_lost=1, chain_cut=1, lost_from=BEGIN, lost_to=BEGIN + S))
    says = state(image, walk(image, known(world)))
    assert says.startswith("not complete: records were lost between 2026-") and "lacks its oldest programs" in says
    assert state(world.root().now, None) == "complete"


def test_a_kernel_thread_s_patch_string_begins_with_kthreadd() -> None:
    world = World()
    kthreadd = Process(world, 2, S, None)
    kthreadd.put(kthreadd.row(0, S, kind=int(ImageKind.SEEN), comm=b"kthreadd", chain_kind=(), chain_comm=()))
    worker = kthreadd.fork(5 * S, 33)
    history = walk(worker.now, known(world))
    assert readable(history.steps) == "kthreadd(2) > kthreadd(33)"
    assert history_string(*elements_of(history)) == f"name=kthreadd;pid=2;start={_stamp(BEGIN + S)}"


# -- trees --


def brief(row: ImageRow) -> Brief:
    return Brief(*(getattr(row, name) for name in Brief._fields))


def test_a_tree_is_thousands_deep_without_recursion() -> None:
    world = World()
    process = first = world.root()
    for number in range(3000):
        process = process.fork((10 + number) * S, 100 + number)
        process.put(process.now._replace(ancestor_ids=process.now.ancestor_ids[:64]))
    root = tree.build(first.task_id, [brief(rows[max(rows)]) for rows in known(world).values()])
    order = tree.walk(root)
    assert len(order) == 3001 and order[-1][1] == 3000
    assert len(tree.walk(tree.living_only(root))) == 3001


def test_a_missing_creator_in_a_tree_stands_there_without_a_name() -> None:
    world = World()
    root = world.root()
    lost = root.fork(10 * S, 50)
    child = lost.spawn(11 * S, 60, b"ls")
    built = tree.build(root.task_id, [brief(root.now), brief(child.now)])
    assert [(node.tgid, depth, bool(node.images)) for node, depth in tree.walk(built)] == [(1, 0, True), (50, 1, False), (60, 2, True)]


def test_the_dead_stay_only_where_they_lead_to_the_living() -> None:
    world = World()
    root = world.root()
    bridge = root.spawn(10 * S, 50, b"sh")
    bridge.spawn(11 * S, 51, b"daemon")
    bridge.exit(12 * S)
    gone = root.spawn(13 * S, 60, b"ls")
    gone.exit(14 * S)
    built = tree.build(root.task_id, [brief(rows[max(rows)]) for rows in known(world).values()])
    assert [node.tgid for node, _ in tree.walk(tree.living_only(built))] == [1, 50, 51]


# -- which process is meant --

ONE, TWO = UUID(int=1), UUID(int=2)


def candidate(
    tgid: int, start: int, end: int | None, comm: bytes = b"sh", host: UUID = ONE, exec_id: int = 5, begin: int | None = None
) -> Candidate:
    begin = start if begin is None else begin
    kind = EndKind.LIVING if end is None else EndKind.EXIT
    return Candidate(
        host,
        b"h%d" % host.int,
        ONE,
        start,
        UUID(int=host.int << 64 | tgid << 32 | start),
        tgid,
        exec_id,
        start,
        begin,
        0 if end is None else end - begin,
        int(kind),
        comm,
    )


def pick(what: str, images: list[Candidate], at: Moment | None = None) -> Candidate | None:
    return choose(parse_target(what), images, at)


def test_a_pid_means_the_living_process_else_the_last_one() -> None:
    old, living, dead = candidate(7, 10, 20), candidate(7, 30, None), candidate(7, 40, 50)
    assert pick("7", [old, living, dead]) == living
    assert pick("7", [old, dead]) == dead
    assert pick("7", []) is None


def test_a_moment_chooses_by_life_and_image() -> None:
    first = [candidate(7, 10, 20), candidate(7, 10, None, b"vi", exec_id=6, begin=20)]
    first[0] = first[0]._replace(end_kind=int(EndKind.EXEC))
    assert pick("7", first, Moment(15, 16)) == first[0]
    assert pick("7", first, Moment(25, 26)) == first[1]
    assert pick("7", first, Moment(5, 6)) is None
    reused = [candidate(7, 10, 20), candidate(7, 30, 40), candidate(7, 41, None)]
    assert pick("7", reused, Moment(35, 36)) == reused[1]
    assert pick("7", reused, Moment(25, 26)) is None
    assert pick("7", reused, Moment(15, 75)) == reused[0]


def test_several_hosts_or_several_of_a_name_are_listed() -> None:
    with pytest.raises(
        BadInput, match=r"7 could be h1:sh\(7\) since .*, h2:sh\(7\) since|7 could be h2:sh\(7\) since .*, h1:sh\(7\) since"
    ):
        pick("7", [candidate(7, 10, None), candidate(7, 10, None, host=TWO)])
    with pytest.raises(BadInput, match="could be"):
        # That it lives on the one does not say that it is meant.
        pick("7", [candidate(7, 10, 20), candidate(7, 12, None, host=TWO)])
    with pytest.raises(BadInput, match="could be"):
        pick("sh", [candidate(7, 10, None), candidate(8, 10, None)])
    with pytest.raises(BadInput, match=r"and 12 more"):
        pick("sh", [candidate(number, 10, None) for number in range(1, 21)])
    assert pick("sh", [candidate(7, 10, 20), candidate(8, 12, None)]) == candidate(8, 12, None)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("4711", Target("4711", tgid=4711)),
        ("web1:4711", Target("web1:4711", "web1", tgid=4711)),
        ("web1.example:make", Target("web1.example:make", "web1.example", name="make")),
        ("make", Target("make", name="make")),
        ("web-*:4711", Target("web-*:4711", "web-*", tgid=4711)),
        ("0f3e51aa:make", Target("0f3e51aa:make", "0f3e51aa", name="make")),
        ("tmux: server", Target("tmux: server", name="tmux: server")),
        ("*/cc1:x", Target("*/cc1:x", name="*/cc1:x")),
        ("kworker/0:1", Target("kworker/0:1", name="kworker/0:1")),
        ("*/bin/make", Target("*/bin/make", name="*/bin/make")),
        (
            "122bad72-0463-823b-8fb9-b83e171cc6fb",
            Target("122bad72-0463-823b-8fb9-b83e171cc6fb", task_id=UUID("122bad72-0463-823b-8fb9-b83e171cc6fb")),
        ),
    ],
)
def test_targets_are_read_as_written(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["", "0", "99999999", "web1:0", "a\0b"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_target(text)


# -- conditions --


@pytest.mark.parametrize("text", ["uid", "uids=0", "=1", "comm>x", "uid<x", "uid=0; DROP", "argv>1"])
def test_conditions_that_mean_nothing_are_refused(text: str) -> None:
    if text == "uid=0; DROP":
        assert "DROP" not in find.comparison(text).sql
        return
    with pytest.raises(BadInput):
        find.comparison(text)


def test_what_a_person_writes_never_becomes_sql() -> None:
    evil = "x') OR 1=1 --"
    conditions = [
        find.text("exe", evil),
        find.text("argv", evil + "*"),
        find.comm(evil),
        find.user(evil),
        find.under_name(evil),
        find.comparison(f"cwd={evil}"),
        find.comparison(f"uid!={evil}"),
    ]
    sql, params = find.joined(conditions)
    # The base name of exe is a parameter of its own.
    assert "OR 1=1" not in sql + find.of_programs(conditions) and len(params) == len(conditions) + 1


# -- endings --


@pytest.mark.parametrize(
    ("changes", "long", "short"),
    [
        ({"end_kind": 0}, "living", "living"),
        ({"end_kind": 1, "exit_code": 3, "duration": S}, "exit 3 after 1.0 s", "exit 3"),
        ({"end_kind": 1, "exit_signal": 11, "core_dumped": 1, "duration": S}, "killed by SIGSEGV (core dumped) after 1.0 s", "SIGSEGV"),
        ({"end_kind": 1, "exit_signal": 35, "duration": S}, "killed by signal 35 after 1.0 s", "signal 35"),
        ({"end_kind": 2, "duration": S}, "exec after 1.0 s", "exec"),
        ({"end_kind": 3}, "ended unseen: its pid was given away", "superseded"),
        ({"end_kind": 4}, "ended unseen: two snapshots did not find it", "gone"),
        ({"end_kind": 5}, "ended by a reboot", "reboot"),
    ],
)
def test_endings_in_words(changes: dict[str, Any], long: str, short: str) -> None:
    row = World().root().now._replace(**changes)
    assert (ending(row), short_ending(row)) == (long, short)


def test_nil_is_no_ancestor() -> None:
    assert NIL not in walk(World().root().now, {}).image.ancestor_ids


@pytest.mark.parametrize("sizes", [[1], [2000], [2001], [4000], [4001], [1, 2000, 1], [1999, 1, 1], [700] * 5, [5000, 3, 4001]])
def test_ancestors_of_several_hosts_are_asked_for_together_but_not_too_many(sizes: list[int]) -> None:
    ids = iter(range(1, 100_000))
    wanted = {UUID(int=next(ids)): {UUID(int=next(ids)) for _ in range(size)} for size in sizes}
    asked: dict[UUID, list[UUID]] = {}
    portions = list(portions_of(wanted))
    for portion in portions:
        assert 0 < sum(map(len, portion.values())) <= IDS_AT_ONCE
        for host_id, some in portion.items():
            asked.setdefault(host_id, []).extend(some)
    assert {host_id: sorted(some) for host_id, some in asked.items()} == {host_id: sorted(some) for host_id, some in wanted.items()}
    assert len(portions) <= sum(sizes) // IDS_AT_ONCE * 2 + 1
