"""A recorder that was loaded first thing at boot: it has every process since, and has seen those before."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producers.bpf import pins, source, syscall
from producers.recorder import Recorder
from schemas import events
from schemas.batch import frames

BOOT = Path("/run/boot")


def numbers(name: str) -> list[int]:
    """What the boot wrote down."""
    return [int(word) for word in (BOOT / name).read_text().split()]


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    """The recorder of the boot, which goes on: the other tests read it after these."""
    with Recorder(pins.DIRECTORY) as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def form(recorder: Recorder, record_testsuite_property: Callable[[str, object], None]) -> None:
    """Notes for the page how the programs read."""
    kinds = {syscall.program_info(program).kind for program in recorder._programs.values()}
    record_testsuite_property("form", "direct" if kinds == {syscall.TRACING} else "raw")


@pytest.fixture(scope="module")
def recorded(recorder: Recorder) -> list[events.Record]:
    """All that lies in its ring."""
    body = recorder.ring.finished_after(recorder.ring.consumer())
    return [events.decode_record(body, at, size) for at, size in frames(body)]


@pytest.fixture(scope="module")
def seen(recorder: Recorder) -> dict[int, events.Seen]:
    """Living processes by a snapshot."""
    batch = recorder.snapshot()
    records = [events.decode_record(batch.body, at, size) for at, size in frames(batch.body)]
    return {record.tgid: record for record in records if isinstance(record, events.Seen)}


def test_the_loader_was_the_first_and_succeeded(recorder: Recorder) -> None:
    assert numbers("loader")[1] == 0
    skipped, *others = recorder.counters()
    assert others == [0] * 6
    assert skipped == 0 or source.may_be_preempted(os.uname().release)
    assert recorder.probe() and recorder.exec_probe()


def test_every_process_since_is_recorded(recorded: list[events.Record]) -> None:
    forks = [record.tgid for record in recorded if isinstance(record, events.Fork)]
    execs = {record.tgid for record in recorded if isinstance(record, events.Exec)}
    since = numbers("since")
    assert len(since) == 30
    assert set(since) <= set(forks) and len(forks) == len(set(forks))
    assert len(execs & set(since)) == 30


def test_no_pid_since_is_missing(recorder: Recorder, recorded: list[events.Record]) -> None:
    """Pids are given in turn, and nothing in this boot has a second thread: a hole would be a process that nobody recorded."""
    loader_pid = numbers("loader")[0]
    ended = next(index for index, one in enumerate(recorded) if isinstance(one, events.Exit) and one.tgid == loader_pid)
    last = max(numbers("since"))
    since = {record.tgid for record in recorded[ended:] if isinstance(record, events.Fork) and record.tgid <= last}
    assert len(set(range(min(since), last + 1)) - since) <= recorder.counters().skipped
    assert len(since) > 50


def test_those_before_are_seen(recorded: list[events.Record], seen: dict[int, events.Seen]) -> None:
    forks = {record.tgid for record in recorded if isinstance(record, events.Fork)}
    before = {1, 2, *numbers("before")}
    assert before <= set(seen) and not before & forks


def test_every_living_process_is_recorded_or_seen(recorded: list[events.Record], seen: dict[int, events.Seen]) -> None:
    living = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    forks = {(record.tgid, record.start_ns) for record in recorded if isinstance(record, events.Fork)}
    assert len(living & set(seen)) > 40
    first = min(record.start_ns for record in recorded if isinstance(record, events.Fork))
    assert [pid for pid in living & set(seen) if seen[pid].start_ns >= first and (pid, seen[pid].start_ns) not in forks] == []


def test_recorded_services_keep_their_creators(recorded: list[events.Record], seen: dict[int, events.Seen]) -> None:
    forks = {record.tgid: record for record in recorded if isinstance(record, events.Fork)}
    daemons = [pid for pid in numbers("since") if pid in seen and seen[pid].real_parent_tgid == 1 and forks[pid].creator_tgid != 1]
    assert len(daemons) == 10
    for pid in daemons:
        assert seen[pid].flags & events.Flag.CREATOR_KNOWN
        assert (seen[pid].creator_tgid, seen[pid].creator_start_ns) == (forks[pid].creator_tgid, forks[pid].creator_start_ns)
