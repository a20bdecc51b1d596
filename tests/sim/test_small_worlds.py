"""Short stories, every subset of whose records is dropped: by a full ring, and as holes in the log."""

import random
from collections.abc import Callable
from itertools import combinations

import pytest

from schemas.events import Mark, MarkRecord
from schemas.rows import ImageKind, LossCause
from streams.join import dump
from tests.sim.channel import Log, batches, cut_everywhere, cut_nowhere, drop_batches, lay
from tests.sim.host import CLONE_PARENT, SIGCHLD, Host
from tests.sim.oracle import check_exact, store_of
from tests.sim.oracle_loss import check_loss
from tests.sim.scenario import flat, joined


def host_with(story: Callable[[Host], None]) -> Host:
    """A host whose recorder runs, on which the story happens; a quiet second and a snapshot end it."""
    host = Host(random.Random(7), pid_max=12)
    reader, _ = host.fork(host.init)
    host.exec(reader, comm=b"tasktrail")
    host.start_recorder(reader)
    host.advance(1_000_000)
    story(host)
    host.advance(1_000_000_000)
    host.clock()
    host.take_snapshot()
    host.take_snapshot()
    host.advance(1_000_000_000)
    host.clock()
    return host


def shell_runs_a_command(host: Host) -> None:
    shell, _ = host.fork(host.init)
    host.exec(shell)
    command, _ = host.fork(shell)
    host.exec(command)
    child, _ = host.fork(command)
    host.exit(command, 0)
    host.exit(child, 1 << 8)
    host.exit(shell, 0)


def programs_replace_each_other(host: Host) -> None:
    process, _ = host.fork(host.init)
    host.exec(process)
    host.fork(process)
    host.advance(300_000_000)
    host.exec(process)
    host.exec(process)
    second, _ = host.fork(process)
    host.exec(second)
    host.exit(process, 9)


def a_pid_is_given_again(host: Host) -> None:
    first, _ = host.fork(host.init)
    host.exec(first)
    host.exit(first, 0)
    second, _ = host.fork(host.init, reuse=first.tgid)
    child, _ = host.fork(second)
    host.exit(second, 0)
    third, _ = host.fork(child, reuse=first.tgid)
    host.exec(third)


def daemons_and_failures(host: Host) -> None:
    middle, _ = host.fork(host.init)
    daemon, _ = host.fork(middle)
    host.exit(middle, 0)
    host.exec(daemon)
    sibling, _ = host.fork(daemon, CLONE_PARENT | SIGCHLD)
    host.rename(sibling, b"worker")
    host.exit(sibling, 11, failed_exec=True)
    host.exit(daemon, 0)


STORIES = (shell_runs_a_command, programs_replace_each_other, a_pid_is_given_again, daemons_and_failures)


def droppable(host: Host) -> list[int]:
    """Where the story's records lie in the ring."""
    entries = host.boot.rings[0].entries
    return [entry.index for entry in entries if not isinstance(entry.record, MarkRecord)]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_whole_story_is_told_right(story: Callable[[Host], None]) -> None:
    log = lay(host_with(story))
    rows, _ = joined(flat(batches(log, cut_everywhere(log), random.Random(1))))
    check_exact(log, store_of(rows))


@pytest.mark.parametrize("how", ["refused", "holes"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_whatever_is_dropped_nothing_is_wrong(story: Callable[[Host], None], how: str) -> None:
    host = host_with(story)
    places = droppable(host)
    for count in range(1, len(places) + 1):
        for dropped in combinations(places, count):
            log, rows = tell(host, how, dropped)
            try:
                check_loss(log, store_of(rows))
            except AssertionError as error:
                raise AssertionError(f"dropped ({how}): {[host.boot.rings[0].entries[i].record for i in dropped]}\n{error}") from None


def tell(host: Host, how: str, dropped: tuple[int, ...]) -> tuple[Log, list]:  # type: ignore[type-arg]
    """The rows when these entries are dropped."""
    entries = host.boot.rings[0].entries
    if how == "refused":
        log = lay(host, [entries[index] for index in dropped])
        groups = batches(log, cut_everywhere(log), random.Random(1))
    else:
        log = lay(host)
        groups = drop_batches(log, batches(log, cut_everywhere(log), random.Random(1)), set(dropped))
    rows, state = joined(flat(groups))
    assert len(dump(state)) < 100_000
    return log, rows


def busy(host: Host) -> Callable[[], None]:
    """What happens on a host while the programs are being attached."""

    def meanwhile() -> None:
        child, _ = host.fork(host.init)
        host.exec(child)
        host.exit(child, 0)
        host.advance(1_000_000)

    return meanwhile


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
def test_what_comes_before_the_mark_of_attachment_neither_makes_a_loss_nor_shortens_one(again: bool) -> None:
    host = Host(random.Random(7), pid_max=12)
    reader, _ = host.fork(host.init)
    host.exec(reader, comm=b"tasktrail")
    host.start_recorder(reader, meanwhile=busy(host))
    shell, _ = host.fork(host.init)
    host.exec(shell)
    stopped_ns = host.t
    if again:
        host.stop_recording()
        host.advance(3600 * 10**9)
        host.start_recorder(reader, meanwhile=busy(host))
    host.advance(1_000_000_000)
    host.clock()
    log = lay(host)
    for cut in (cut_everywhere(log), cut_nowhere(log)):
        rows, _ = joined(flat(batches(log, cut, random.Random(1))))
        store = store_of(rows)
        told = sorted((row.begin_boottime, row.end_boottime) for row in store.losses.values() if row.cause == LossCause.NO_RECORDER)
        attached = [
            entry.record.time_ns
            for ring in host.boot.rings
            for entry in ring.entries
            if isinstance(entry.record, MarkRecord) and entry.record.mark == Mark.ATTACHED
        ]
        assert len(told) == len(attached) == 1 + again and told[0] == (0, attached[0])
        assert not again or (told[1][0] <= stopped_ns and stopped_ns - told[1][0] < 1_000_000 and told[1][1] == attached[1])
        lost = {row.tgid for row in store.images.values() if row.chain_lost}
        assert again or not lost, "nothing was lost"


@pytest.mark.parametrize("status", [0, 3 << 8])
def test_an_exec_that_the_kernel_skipped_is_not_told_as_one_that_failed(status: int) -> None:
    host = Host(random.Random(3), pid_max=12)
    reader, _ = host.fork(host.init)
    host.exec(reader, comm=b"tasktrail")
    host.start_recorder(reader)
    child, _ = host.fork(host.init)
    host.exec(child)
    entries = host.boot.rings[-1].entries
    del entries[-1]  # nothing counts it before the next clock mark
    host.exit(child, status)
    host.advance(1_000_000_000)
    host.clock()
    log = lay(host)
    rows, _ = joined(flat(batches(log, cut_nowhere(log), random.Random(1))))
    mine = [row for row in store_of(rows).images.values() if row.tgid == child.tgid]
    assert [row.exec_failed for row in mine] == [0] * len(mine)
    assert max(mine, key=lambda row: row.exec_id).kind == ImageKind.UNKNOWN, "what it ran last is not known"
