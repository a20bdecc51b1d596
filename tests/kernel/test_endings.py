"""How processes end: the exit records against what wait4(2) told the parent."""

import os
import signal
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_tools import Live, output

from schemas import events
from schemas.events import Flag

TICK_US = 10_000
"""One timer tick of the slowest kernels (HZ=100)."""


class Waited(NamedTuple):
    """What wait4(2) told of one child."""

    pid: int
    status: int
    utime_us: int
    stime_us: int
    max_rss_kib: int


def run(live: Live, programs: Path, way: str, times: int = 1, number: int = 0, env: dict[str, str] | None = None) -> list[Waited]:
    """Children of `ending` that ended in this way; the ring is read up to now."""
    lines = output(programs / "ending", way, str(times), str(number), env=env)
    live.catch_up()
    return [Waited(*map(int, line)) for line in lines]


def exits(live: Live, pid: int) -> list[events.Exit]:
    """Exit records of the processes with this tgid."""
    return [record for record in live.of(pid) if isinstance(record, events.Exit)]


@pytest.mark.parametrize(
    ("way", "number", "code", "sig"),
    [
        ("exit", 0, 0, 0),
        ("exit", 3, 3, 0),
        ("exit", 255, 255, 0),
        ("group", 0, 9, 0),
        ("kill", 0, 0, signal.SIGKILL),
        ("segv", 0, 0, signal.SIGSEGV),
        ("abort", 0, 0, signal.SIGABRT),
        ("term", 0, 0, signal.SIGTERM),
        ("exec", 0, 0, 0),
        ("exec-missing", 0, 78, 0),
        ("hundred-threads", 0, 0, 0),
    ],
)
def test_status_is_that_of_wait(live: Live, programs: Path, way: str, number: int, code: int, sig: int) -> None:
    (child,) = run(live, programs, way, number=number)
    (end,) = exits(live, child.pid)
    assert end.status == child.status
    assert (end.status >> 8, end.status & 127) == (code, sig)


@pytest.mark.parametrize("way", ["leader-first", "thread-fork", "spin-leader-first"])
def test_status_after_the_leader_ended_first_is_that_of_wait(live: Live, programs: Path, way: str) -> None:
    """Whose code it is depends on the kernel: the leader's before 5.17, the last thread's since."""
    (child,) = run(live, programs, way)
    (end,) = exits(live, child.pid)
    assert end.status == child.status


def test_threads_that_end_together_give_one_exit(live: Live, programs: Path) -> None:
    children = run(live, programs, "together", times=200, number=4)
    assert {child.pid: len(exits(live, child.pid)) for child in children} == {child.pid: 1 for child in children}
    assert all(exits(live, child.pid)[0].status == child.status for child in children)


def test_last_thread_reports_for_the_leader(live: Live, programs: Path) -> None:
    (child,) = run(live, programs, "leader-first")
    (end,) = exits(live, child.pid)
    (fork,) = [record for record in live.of(child.pid) if isinstance(record, events.Fork)]
    assert (end.tgid, end.start_ns, end.exec_id) == (fork.tgid, fork.start_ns, fork.exec_id)
    assert end.tid != end.tgid
    assert end.threads == 2


@pytest.mark.parametrize("way", ["spin", "system-time", "threads-joined", "threads-living", "spin-leader-first", "hundred-threads"])
def test_cpu_time_is_that_of_wait_within_ticks(live: Live, programs: Path, way: str) -> None:
    (child,) = run(live, programs, way)
    (end,) = exits(live, child.pid)
    assert not end.flags & Flag.CPU_TORN
    # The sum is exact but for what the last thread spent since the last tick and after the record; the ratio comes from ticks alone.
    total_us, waited_us = (end.utime_ns + end.stime_ns) / 1000, child.utime_us + child.stime_us
    assert waited_us > 20_000
    assert waited_us - 2 * TICK_US <= total_us <= waited_us + 100
    assert abs(end.utime_ns / 1000 - child.utime_us) <= 2 * TICK_US + waited_us * 0.05


def test_threads_beyond_the_limit_are_flagged(live: Live, programs: Path) -> None:
    (many,) = run(live, programs, "hundred-threads")
    (few,) = run(live, programs, "threads-living")
    # All threads but the last have usually been reaped before it gives the record, so a flag is only promised when more were left.
    assert bool(exits(live, many.pid)[0].flags & Flag.THREADS_CUT) == (exits(live, many.pid)[0].threads > 64)
    assert not exits(live, few.pid)[0].flags & Flag.THREADS_CUT


@pytest.mark.parametrize(("way", "mib"), [("memory", 100), ("memory-given-back", 100), ("memory", 1), ("memory-then-exec", 60)])
def test_max_rss_is_that_of_wait(live: Live, programs: Path, way: str, mib: int) -> None:
    (child,) = run(live, programs, way, number=mib)
    (end,) = exits(live, child.pid)
    assert end.max_rss_kib == child.max_rss_kib >= mib * 1024


def broken_program(path: Path) -> Path:
    """A 64-bit ELF file whose only segment lies where no program may be: its exec fails after the old image is gone."""
    machine = 62 if os.uname().machine == "x86_64" else 183
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0xFFFF800000000000, 0, 120, 120, 4096)
    path.write_bytes(header + segment + bytes(4096))
    path.chmod(0o755)
    return path


def test_exec_that_fails_too_late_shows_in_the_exec_id(live: Live, programs: Path, tmp_path: Path) -> None:
    (child,) = run(live, programs, "exec-broken", env={"BROKEN": str(broken_program(tmp_path / "broken"))})
    kinds = Counter(type(record).__name__ for record in live.of(child.pid))
    assert kinds["Exec"] == 0
    (end,) = exits(live, child.pid)
    (fork,) = [record for record in live.of(child.pid) if isinstance(record, events.Fork)]
    assert end.exec_id == fork.exec_id + 1
    assert end.status == child.status != 77 << 8


def test_kernel_parent_at_the_end_is_the_one_that_waits(live: Live, programs: Path) -> None:
    (child,) = run(live, programs, "exit")
    (fork,) = [record for record in live.of(child.pid) if isinstance(record, events.Fork)]
    (end,) = exits(live, child.pid)
    assert (end.real_parent_tgid, end.real_parent_start_ns) == (fork.creator_tgid, fork.creator_start_ns)
    assert end.comm == b"ending"
