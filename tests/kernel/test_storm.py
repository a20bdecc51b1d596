"""Many processes: each one exactly once, with its true creator and status; also while nobody reads, and while loaders take over."""

import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from kernel_tools import Live, key, load_live, output, unload_live, wait_until

from producers import loader
from producers.recorder import Counters
from schemas import events

COUNT = 20_000
WORKERS = 2


class Child(NamedTuple):
    """What the storm itself says of one child."""

    pid: int
    creator: int
    status: int


def children_of(lines: list[list[str]]) -> list[Child]:
    """The storm's output."""
    return [Child(*map(int, line)) for line in lines]


def check_exactly_once(records: list[events.Record], children: list[Child]) -> None:
    """Every child has one fork, one exec and one exit, in this order, naming the right creator and status.

    A child's pid may be used again, but no creator's: the storm knows its workers by pid alone, so there are fewer children than pids.
    """
    workers = {child.creator for child in children}
    forks = {key(record): record for record in records if isinstance(record, events.Fork) and record.creator_tgid in workers}
    doubled = Counter(
        (type(record).__name__, *key(record), record.exec_id if isinstance(record, events.Exec) else 0)
        for record in records
        if isinstance(record, events.Fork | events.Exec | events.Exit)
    )
    assert [what for what, times in doubled.items() if times > 1] == []
    assert len(forks) == len(children)
    stories: dict[tuple[int, int], list[events.Record]] = {}
    for record in records:
        if key(record) in forks:
            stories.setdefault(key(record), []).append(record)
    told = Counter()
    for story in stories.values():
        assert [type(record) for record in story] == [events.Fork, events.Exec, events.Exit]
        fork, image, end = story
        assert isinstance(fork, events.Fork) and isinstance(image, events.Exec) and isinstance(end, events.Exit)
        assert image.exec_id == end.exec_id == fork.exec_id + 1 == fork.creator_exec_id + 1
        assert len(image.argv) == image.argc == end.status >> 8
        told[Child(fork.tgid, fork.creator_tgid, end.status)] += 1
    assert told == Counter(children)
    assert records[-1].lost == 0


def test_every_process_of_a_storm_exactly_once(live: Live, programs: Path) -> None:
    storm = subprocess.Popen([programs / "storm", str(COUNT), str(WORKERS), programs / "tiny"], stdout=subprocess.PIPE, text=True)
    assert storm.stdout
    done = threading.Event()
    lines: list[str] = []

    def collect() -> None:
        assert storm.stdout
        lines.extend(storm.stdout)
        done.set()

    reader = threading.Thread(target=collect)
    reader.start()
    while not done.wait(0.01):
        live.read()
    reader.join()
    assert storm.wait() == 0
    storm.stdout.close()
    live.catch_up()
    children = children_of([line.split() for line in lines])
    assert len(children) == COUNT
    check_exactly_once(live.records, children)
    assert live.recorder.counters()[:6] == (0, 0, 0, 0, 0, 0)


def test_the_kernel_records_while_no_process_of_ours_lives(programs: Path, tmp_path: Path) -> None:
    live = load_live(tmp_path, ring_bytes=128 << 20)
    pin_dir, chosen = live.pin_dir, live.chosen
    live.forget()
    live.close()
    children: list[Child] = []
    while len(children) < COUNT:
        children += children_of(output(programs / "storm", "500", "2", programs / "tiny"))
    live = Live(pin_dir, chosen)
    try:
        live.catch_up()
        check_exactly_once(live.records, children)
        assert live.recorder.counters().lost == 0
    finally:
        unload_live(live)


def test_loaders_take_over_during_a_storm_without_loss_or_double(programs: Path, tmp_path: Path) -> None:
    live = load_live(tmp_path, ring_bytes=64 << 20)
    try:
        live.forget()
        storm = subprocess.Popen([programs / "storm", "30000", "2", programs / "tiny"], stdout=subprocess.PIPE, text=True)
        taken_over = 0
        argv_bytes = 4000
        lines: list[str] = []
        assert storm.stdout
        output_of_storm = storm.stdout
        collector = threading.Thread(target=lambda: lines.extend(output_of_storm))
        collector.start()
        while storm.poll() is None:
            argv_bytes -= 1
            chosen = live.chosen._replace(programs=live.chosen.programs._replace(argv_bytes=argv_bytes))
            assert loader.load(live.pin_dir, chosen).outcome is loader.Outcome.HANDOVER
            taken_over += 1
            assert live.recorder.refresh(), "the older programs stay attached until the reader lets go of them"
            live.read()
        collector.join()
        storm.stdout.close()
        live.catch_up()
        assert taken_over >= 2
        assert len({record.epoch for record in live.records if isinstance(record, events.Exec)}) >= 2
        marks = [record for record in live.records if isinstance(record, events.MarkRecord) and record.mark == events.Mark.ATTACHED]
        assert [mark.values[0] for mark in marks] == [1] * taken_over
        check_exactly_once(live.records, children_of([line.split() for line in lines]))
        assert not live.recorder.refresh()
        assert live.recorder.probe() and live.recorder.exec_probe()
    finally:
        unload_live(live)


def test_processes_older_than_the_recorder_exec_and_end_exactly_once(programs: Path, tmp_path: Path) -> None:
    """They have no entry in the once map. Two copies are attached while they exec and end: the reader holds the older one."""
    waiting = [subprocess.Popen(["/bin/sh", "-c", "read go; exec /bin/sh -c 'read go; exit 7'"], stdin=subprocess.PIPE) for _ in range(50)]
    live = load_live(tmp_path)
    try:
        live.forget()
        chosen = live.chosen._replace(programs=live.chosen.programs._replace(argv_bytes=512))
        assert loader.load(live.pin_dir, chosen).outcome is loader.Outcome.HANDOVER
        for process in waiting:
            assert process.stdin
            process.stdin.write(b"go\ngo\n")
            process.stdin.close()
        assert [process.wait(timeout=20) for process in waiting] == [7] * len(waiting)
        live.catch_up()
        for process in waiting:
            kinds = [type(record) for record in live.of(process.pid)]
            assert kinds == [events.Exec, events.Exit]
    finally:
        for process in waiting:
            process.kill()
            process.wait()
        unload_live(live)


def by_kind(records: list[events.Record]) -> tuple[int, int, int]:
    """How many forks, execs and exits."""
    kinds = Counter(type(record) for record in records)
    return kinds[events.Fork], kinds[events.Exec], kinds[events.Exit]


def at_one_moment(witness: Live, small: Live) -> tuple[tuple[int, int, int], Counters]:
    """What the witness has recorded and what the other has lost, at a moment when nothing happened on the whole host."""

    def quiet() -> tuple[tuple[int, int, int], Counters] | None:
        before = by_kind(witness.catch_up())
        counters = small.recorder.counters()
        return (before, counters) if by_kind(witness.catch_up()) == before else None

    return wait_until(quiet, "a moment without any process starting or ending")


def test_what_a_full_ring_refuses_is_counted_exactly(live: Live, small_live: Live, programs: Path) -> None:
    """A second recorder with room enough is the witness: what it has, the full one has or has counted."""
    small_live.forget()
    skipped = live.recorder.counters().skipped
    first, before = at_one_moment(live, small_live)
    small_live.read()
    had = by_kind(small_live.records)
    output(programs / "storm", "1000", "2", programs / "tiny")
    assert not small_live.recorder.clock(), "not even a mark finds room"
    last, after = at_one_moment(live, small_live)
    small_live.read()
    lost = (after.lost_fork - before.lost_fork, after.lost_exec - before.lost_exec, after.lost_exit - before.lost_exit)
    assert min(lost) > 500
    # From Linux 7.0 on a program may be preempted, and meanwhile the kernel skips it on that CPU; it says how often it did.
    skipped = live.recorder.counters().skipped - skipped + after.skipped - before.skipped
    for begin, end, got_before, got, missing in zip(first, last, had, by_kind(small_live.records), lost, strict=True):
        assert abs(got - got_before + missing - (end - begin)) <= skipped
    strange = {key(record) for record in small_live.records[:-1]} - {key(record) for record in live.records}
    assert len(strange) <= skipped
    # From now on every record says how many are missing.
    small_live.records = []
    small_live.catch_up()
    assert small_live.records[0].lost == after.lost == small_live.recorder.counters().lost


def test_from_half_full_on_renames_go_first_and_argv_gets_short(programs: Path, tmp_path: Path) -> None:
    live = load_live(tmp_path, ring_bytes=1 << 17)
    try:
        live.forget()
        comm = Path("/proc/self/comm")
        own = comm.read_bytes()
        ring = live.recorder.ring
        turns = 0
        while ring.producer() - ring.consumer() < ring.size_bytes // 2:
            comm.write_bytes(b"renamed")
            turns += 1
        for _ in range(100):
            comm.write_bytes(b"again")
        comm.write_bytes(own.strip())
        subprocess.run(["/bin/true", "x" * 200, "y"], check=True)
        subprocess.run(["/bin/true", "short"], check=True)
        assert live.recorder.probe(), "a probe that was counted proves as much as one that came back"
        counters = live.recorder.counters()
        live.catch_up()
        assert counters.dropped_rename == 101 + 2
        assert counters.short_argv == 1
        assert counters.lost == 0
        long, short = [record for record in live.records if isinstance(record, events.Exec) and record.comm == b"true"]
        assert long.flags & events.Flag.ARGV_SHORT and not short.flags & events.Flag.ARGV_SHORT
        assert sum(len(argument) + 1 for argument in long.argv) == 128 + 1  # the last one is cut, so it lacks its NUL
        assert (long.argc, long.argv_bytes) == (3, 10 + 201 + 2)
        assert short.argv == (b"/bin/true", b"short")
        clock = next(record for record in reversed(live.records) if isinstance(record, events.MarkRecord))
        assert clock.mark == events.Mark.CLOCK
        wait_until(live.recorder.probe, "the probe after the ring was read")
    finally:
        unload_live(live)
