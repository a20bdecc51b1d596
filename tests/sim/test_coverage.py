"""The simulation is worth something only if rare things happen in it, and the join must not grow with history."""

import random
from collections.abc import Callable

import pytest

from schemas.limits import FOLD_NS
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause, LossRow, Row
from streams.join import HostState, apply, dump
from tests.sim.channel import Log, batches, choose_refused, cut_randomly, lay
from tests.sim.host import Host
from tests.sim.scenario import exact_log, flat, joined, lossy_log


def image_with(**values: int) -> Callable[[Row], bool]:
    """Whether a row is of an image and has these values."""
    return lambda row: isinstance(row, ImageRow) and all(getattr(row, name) == value for name, value in values.items())


def of_cause(cause: LossCause) -> Callable[[Row], bool]:
    """Whether a row is of a loss with that cause."""
    return lambda row: isinstance(row, LossRow) and row.cause == cause


MARKS: dict[str, Callable[[Row], bool]] = {
    "superseded": image_with(end_kind=EndKind.SUPERSEDED),
    "gone": image_with(end_kind=EndKind.GONE),
    "reboot": image_with(end_kind=EndKind.REBOOT),
    "unknown image": image_with(kind=ImageKind.UNKNOWN),
    "seen image": image_with(kind=ImageKind.SEEN),
    "fork image of its own": image_with(kind=ImageKind.FORK, end_kind=EndKind.EXEC),
    "failed exec": image_with(exec_failed=1),
    "chain cut": image_with(chain_cut=1),
    "ancestors cut": image_with(ancestors_cut=1),
    "chain complete": image_with(chain_complete=1),
    "chain damaged": image_with(chain_lost=1),
    "chain from before": image_with(chain_before=1),
    "refreshed": lambda row: isinstance(row, ImageRow) and row.version & 3 == 1,
    "renamed": lambda row: isinstance(row, ImageRow) and bool(row.renamed),
    "core dumped": image_with(core_dumped=1),
    "other kernel parent": lambda row: isinstance(row, ImageRow) and row.clone_flags & 0x8000 != 0 and row.creator_id != row.parent_id,
    **{
        f"loss: {cause.name}": of_cause(cause)
        for cause in (LossCause.RING_FULL, LossCause.NO_RECORDER, LossCause.LOG_HOLE, LossCause.UNDECODABLE)
    },
    "loss: RENAME_DROPPED": of_cause(LossCause.RENAME_DROPPED),
    "loss: ARGV_SHORTENED": of_cause(LossCause.ARGV_SHORTENED),
}


@pytest.fixture(scope="module")
def worlds() -> list[tuple[Log, list[Row]]]:
    """Rows of many worlds."""
    out = []
    for seed in range(1000, 1030):
        log, rng = exact_log(seed)
        out.append((log, joined(flat(batches(log, cut_randomly(log, rng), rng)))[0]))
        log, groups, _ = lossy_log(seed)
        out.append((log, joined(flat(groups))[0]))
    return out


@pytest.mark.parametrize("mark", MARKS)
def test_rare_rows_are_made(worlds: list[tuple[Log, list[Row]]], mark: str) -> None:
    assert any(MARKS[mark](row) for _, rows in worlds for row in rows)


def test_rare_things_happen(worlds: list[tuple[Log, list[Row]]]) -> None:
    happened = {"folded": 0, "not folded for a child": 0, "not folded for its age": 0, "seen before its fork": 0, "seen before its exec": 0}
    happened.update({"pid given again": 0, "fork by thread": 0, "exec by thread": 0, "orphan": 0, "zombie seen": 0, "time goes back": 0})
    for log, _ in worlds:
        for boot in log.host.boots:
            pids = [process.tgid for process in boot.processes]
            happened["pid given again"] += len(pids) != len(set(pids))
            for ring in boot.rings:
                times = [entry.record.time_ns for entry in ring.entries]
                happened["time goes back"] += times != sorted(times)
            for process in boot.processes:
                first = process.images[0]
                if first.how == "fork" and first.end_how == "exec":
                    soon = first.end_ns - first.time_ns < FOLD_NS
                    happened["folded"] += soon and not first.children
                    happened["not folded for a child"] += soon and bool(first.children)
                    happened["not folded for its age"] += not soon
                happened["seen before its fork"] += process.raced
                happened["seen before its exec"] += any(image.raced and image.how == "exec" for image in process.images)
                happened["fork by thread"] += process.fork is not None and process.fork.creator_tid != process.fork.creator_tgid
                programs = [image.program for image in process.images if image.how == "exec" and image.program]
                happened["exec by thread"] += any(program.tid != program.tgid for program in programs)
                happened["orphan"] += len(process.parents) > 1
                happened["zombie seen"] += any(seen.live_threads == 0 for seen, _ in process.seen_at)
    assert all(happened.values()), happened


def busy_host(processes: int, refuse: bool) -> tuple[Log, random.Random]:
    """A host with few living processes and a long history."""
    rng = random.Random(5)
    host = Host(rng, pid_max=50)
    reader, _ = host.fork(host.init)
    host.exec(reader, comm=b"tasktrail")
    host.start_recorder(reader)
    for number in range(processes):
        child, _ = host.fork(host.init)
        host.exec(child)
        host.advance(1_000_000)
        host.exit(child, 0)
        if number % 200 == 199:
            host.take_snapshot()
    host.clock()
    return lay(host, choose_refused(host, random.Random(6), 100) if refuse else ()), rng


@pytest.mark.parametrize("refuse", [False, True], ids=["whole", "with losses"])
def test_state_does_not_grow_with_history(refuse: bool) -> None:
    log, rng = busy_host(4000, refuse)
    state = HostState()
    sizes = []
    for batch in flat(batches(log, cut_randomly(log, rng, 40), rng)):
        apply(state, batch)
        sizes.append(len(dump(state)))
    half = len(sizes) // 2
    assert max(sizes[half:]) <= max(sizes[:half]) * 1.2 + 1000, (max(sizes[:half]), max(sizes[half:]))
