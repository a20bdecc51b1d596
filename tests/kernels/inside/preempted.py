"""Programs at tracepoints are preempted, as often as can be made to happen: what the kernel skips is saved by spare copies, or counted.

On one CPU a storm goes on while real-time processes wake, interrupt whatever runs, and start children of their own. Those of the higher
priority interrupt also the others, so that now and then a spare copy is skipped too.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from producers.bpf import pins, source, syscall
from producers.recorder import Recorder
from schemas import events
from schemas.batch import frames

PROGRAMS = Path(os.environ["TASKTRAIL_PROGRAMS"])
MODE = Path("/sys/kernel/debug/sched/preempt")
COMMANDS = (("storm", "1200", "2"), ("urgent", "1200", "300", "10"), ("urgent", "1200", "500", "20"))
KINDS = (events.Fork, events.Exec, events.Exit)


@pytest.fixture
def full_preemption() -> Iterator[None]:
    """The kernel preempts its own code at any moment, where it can be told to."""
    with suppress(OSError):
        subprocess.run(["mount", "-t", "debugfs", "debug", "/sys/kernel/debug"], check=False)
        MODE.write_text("full")
    yield
    with suppress(OSError):
        MODE.write_text("lazy")


def children() -> list[int]:
    """Pids of all that the storm and those that interrupt it started, in turn."""
    running = [
        subprocess.Popen(["taskset", "-c", "0", PROGRAMS / name, *words, PROGRAMS / "tiny"], stdout=subprocess.PIPE, text=True)
        for name, *words in COMMANDS
    ]
    said = [one.communicate()[0] for one in running]
    assert [one.returncode for one in running] == [0, 0, 0]
    return [int(line.split()[0]) for text in said for line in text.splitlines()]


def misses(recorder: Recorder) -> int:
    """How often the kernel skipped the first copies for forks, execs and exits, which is what was lost before there were others."""
    return sum(syscall.program_info(recorder._programs[short]).recursion_misses for short in ("fork", "exec", "exit"))


def test_what_the_kernel_skips_is_saved_by_a_spare_copy_or_counted(full_preemption: None) -> None:
    with Recorder(pins.DIRECTORY) as recorder:
        assert bool(recorder._spares) == source.may_be_preempted(os.uname().release)
        begin, counted_before, missed_before = recorder.ring.producer(), recorder.counters(), misses(recorder)
        pids = children()
        body = recorder.ring.finished_after(begin)
        counted, missed = recorder.counters(), misses(recorder) - missed_before
        skipped = counted.skipped - counted_before.skipped
        spared = bool(recorder._spares)
    records = [record for at, size in frames(body) if isinstance(record := events.decode_record(body, at, size), KINDS)]
    told = Counter((type(record), record.tgid, record.start_ns) for record in records if record.tgid in set(pids))
    lost = len(KINDS) * len(pids) - len(told)
    print(f"\nguest: {missed} skipped of {len(KINDS) * len(pids)}, {lost} lost, {skipped} counted")
    assert len(set(pids)) == len(pids) == 3600
    assert set(told.values()) == {1}
    assert counted.lost == 0
    assert lost <= skipped
    if spared:
        assert lost < missed
    else:
        assert (lost, missed) == (0, 0)
