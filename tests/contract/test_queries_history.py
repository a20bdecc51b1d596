"""Histories, trees and lists of living processes, asked of a real server."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from queries import history, hostnames, living, patch, targets, tree
from queries.history import Origin, readable
from queries.patch_chain import elements_of
from queries.times import Moment
from schemas.errors import BadInput
from schemas.rows import EndKind
from tests.contract.conftest import Store
from tests.contract.image_rows import S, World
from tests.contract.rows import BEGIN, loss


@pytest.fixture(scope="module")
def world(store: Store) -> Iterator[Store]:
    """systemd(1) > sshd(812) > sshd(899) > bash(901) > make(4650) > sh(4700) > cc1(4711), and some others."""
    host = World()
    systemd = host.root()
    sshd = systemd.spawn(10 * S, 812, b"sshd", b"-D")
    session = sshd.fork(20 * S, 899)
    bash = session.spawn(21 * S, 901, b"bash")
    early = bash.spawn(22 * S, 4711, b"ls")
    early.exit(23 * S)
    make = bash.spawn(30 * S, 4650, b"make", b"-j2", b"all")
    sh = make.spawn(40 * S, 4700, b"sh", b"-c", b"cc1 a.c")
    cc1 = sh.spawn(41 * S, 4711, b"cc1", b"a.c")
    bash.exec(50 * S, b"python3")
    sh.exit(60 * S, 1)
    orphan = make.spawn(61 * S, 4800, b"sleep", b"1000")
    make.exit(62 * S, signal=9)
    twice = systemd.spawn(70 * S, 5000, b"run")
    twice.exec(71 * S, b"env")
    twice.exec(72 * S, b"perl", b"x y", b"\x1b[2J")
    evil = systemd.spawn(80 * S, 6000, b"a(1) > b", b"=>name=x;pid=1")
    store.write([*host.log, loss(0, cause=3, begin=BEGIN, end=BEGIN + 5 * S)])
    assert cc1 and orphan and evil
    yield store


def look(store: Store, what: str, at_s: float | None = None) -> "history.History[targets.ImageRow]":
    at = None if at_s is None else Moment(BEGIN + int(at_s * S), BEGIN + int(at_s * S) + 1)
    return history.history_of(store.reader, targets.find_image(store.reader, targets.parse_target(what), at))


def test_every_process_on_the_way_is_shown_also_those_that_only_forked(world: Store) -> None:
    found = look(world, "4711")
    assert readable(found.steps) == "systemd(1) > sshd(812) > sshd(899) > bash(901) > make(4650) > sh(4700) > cc1(4711)"
    assert found.whole and not found.fallback and all(step.origin is Origin.ROW for step in found.steps)


def test_a_pid_means_who_had_it_at_the_moment(world: Store) -> None:
    assert readable(look(world, "4711", 22.5).steps) == "systemd(1) > sshd(812) > sshd(899) > bash(901) > ls(4711)"
    assert readable(look(world, "web1:4711", 45).steps).endswith("sh(4700) > cc1(4711)")
    assert look(world, "901", 25).image.comm == b"bash"
    assert look(world, "901", 55).image.comm == b"python3"
    with pytest.raises(BadInput, match="no process had pid 4711 at"):
        look(world, "4711", 30)


def test_a_pid_that_never_was_says_so_and_since_when_is_recorded(world: Store) -> None:
    with pytest.raises(BadInput) as raised:
        look(world, "77")
    assert "no process had pid 77" in str(raised.value) and "recording began at" in str(raised.value)
    with pytest.raises(BadInput, match="recording began later"):
        look(world, "77", 3)
    with pytest.raises(BadInput, match="on web2"):
        look(world, "web2:4711")


def test_a_name_means_the_living_process_and_several_are_listed(world: Store) -> None:
    assert look(world, "cc1").image.tgid == 4711
    assert look(world, "*/bin/cc1").image.tgid == 4711
    assert look(world, "make").image.tgid == 4650
    assert look(world, "perl").image.tgid == 5000
    with pytest.raises(BadInput) as raised:
        look(world, "sshd")
    assert "sshd(812)" in str(raised.value) and "sshd(899)" in str(raised.value)
    found = look(world, "cc1")
    assert look(world, str(found.image.task_id)).image == found.image


def test_long_form_has_every_program_of_every_process_on_the_way(world: Store) -> None:
    names = [(image.tgid, image.comm) for image in look(world, "perl").images]
    assert names == [(1, b"systemd"), (5000, b"run"), (5000, b"env"), (5000, b"perl")]


def test_patch_string_is_the_patch_s(world: Store) -> None:
    text = patch.history_string(*elements_of(look(world, "6000")))
    first, second, third = text.split("=>")
    assert first == f"name=swapper/0;pid=1;start={patch.stamp(BEGIN + S)}"
    assert second == f"name=systemd;pid=1;start={patch.stamp(BEGIN + 2 * S)}"
    assert third == f"name=a\\0501\\051\\040\\076\\040b;pid=6000;start={patch.stamp(BEGIN + 80 * S)}"


def test_tree_shows_all_descendants_orphans_too_and_the_living_by_default(world: Store) -> None:
    image = targets.find_image(world.reader, targets.parse_target("812"))
    found = tree.fetch_descendants(world.reader, image)
    everything = [(node.tgid, depth) for node, depth in tree.walk(tree.build(image.task_id, found))]
    assert everything == [(812, 0), (899, 1), (901, 2), (4711, 3), (4650, 3), (4700, 4), (4711, 5), (4800, 4)]
    some = [(node.tgid, depth) for node, depth in tree.walk(tree.living_only(tree.build(image.task_id, found)))]
    assert some == [(812, 0), (899, 1), (901, 2), (4650, 3), (4700, 4), (4711, 5), (4800, 4)]
    fewer = tree.fetch_descendants(world.reader, image, dead=False)
    assert [(node.tgid, depth) for node, depth in tree.walk(tree.living_only(tree.build(image.task_id, fewer)))] == some
    assert {one.task_id for one in fewer} < {one.task_id for one in found} | {image.task_id}
    late = tree.fetch_descendants(world.reader, image, since_ns=BEGIN + 41 * S)
    assert [node.tgid for node, _ in tree.walk(tree.build(image.task_id, late))] == [812, 899, 901, 4650, 4700, 4711, 4800]


def test_a_tree_that_is_too_large_is_refused_and_never_cut(world: Store) -> None:
    image = targets.find_image(world.reader, targets.parse_target("812"))
    amount = len(tree.fetch_descendants(world.reader, image))
    assert len(tree.fetch_descendants(world.reader, image, at_most=amount)) == amount
    with pytest.raises(BadInput, match=f"more than {amount - 1} images.*too much for a tree"):
        tree.fetch_descendants(world.reader, image, at_most=amount - 1)
    assert len(tree.fetch_descendants(world.reader, image)) == amount, "the connection can be used again"


def test_ps_lists_the_living_with_their_chains(world: Store) -> None:
    found = {one.image.tgid: readable(one.steps) for one in living.fetch_living(world.reader)}
    assert set(found) == {1, 812, 899, 901, 4711, 4800, 5000, 6000}
    assert found[4800] == "systemd(1) > sshd(812) > sshd(899) > bash(901) > make(4650) > sleep(4800)"
    assert found[901] == "systemd(1) > sshd(812) > sshd(899) > python3(901)"
    assert found[6000] == "systemd(1) > 'a(1) > b'(6000)"
    assert not list(living.fetch_living(world.reader, [hostnames.named("web2")]))


def test_where_rows_are_gone_the_kept_chain_goes_on_and_says_so(store: Store) -> None:
    host = World(b"old", host_id=targets.UUID(int=77), boot_id=targets.UUID(int=78))
    bash = host.root().spawn(10 * S, 300, b"sshd").fork(20 * S, 301).spawn(30 * S, 302, b"bash")
    last = bash.spawn(40 * S, 303, b"vi")
    store.write([*bash.rows.values(), *last.rows.values()])
    found = look(store, "old:303")
    assert readable(found.steps) == "systemd(1) > sshd(300) > ?(301) > bash(302) > vi(303)"
    assert [step.origin for step in found.steps] == [Origin.CHAIN, Origin.CHAIN, Origin.UNKNOWN, Origin.ROW, Origin.ROW]
    assert found.fallback == 2


def test_a_process_whose_creator_became_known_stands_below_that_one_alone(world: Store) -> None:
    shell, root = (targets.find_image(world.reader, targets.parse_target(name)) for name in ("901", "1"))
    ended = shell._replace(task_id=UUID(int=77), tgid=7777, start_boottime=shell.start_boottime + 5, end_kind=int(EndKind.EXIT), duration=S)
    before = ended._replace(creator_id=shell.task_id, creator_tgid=901, ancestor_ids=(shell.task_id, *shell.ancestor_ids))
    mended = before._replace(creator_id=root.task_id, creator_tgid=1, ancestor_ids=(root.task_id,), version=before.version + 4)
    for row in (before, mended):
        world.write([row])
    assert 7777 not in [one.tgid for one in tree.fetch_descendants(world.reader, shell)]
    assert [one.creator_tgid for one in tree.fetch_descendants(world.reader, root) if one.tgid == 7777] == [1]
