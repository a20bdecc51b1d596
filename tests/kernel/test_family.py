"""Who created whom: the fork records of every way to create a process, against what the processes themselves say."""

import os
import time
from pathlib import Path

import pytest
from kernel_tools import Live, key, output

from schemas import events

CLONE_PARENT = 0x00008000
CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000


def forks(live: Live) -> dict[int, events.Fork]:
    """Fork records by the new process's tgid."""
    return {record.tgid: record for record in live.records if isinstance(record, events.Fork)}


def run_family(live: Live, programs: Path, *arguments: str) -> tuple[dict[str, tuple[int, int]], dict[int, events.Fork]]:
    """What `family` said (name: pid, creator) and the forks that were recorded."""
    lines = output(programs / "family", *arguments)
    live.catch_up()
    return {line[0]: (int(line[1]), int(line[2])) for line in lines}, forks(live)


@pytest.mark.parametrize(
    ("way", "flags", "code"), [("fork", 0, 20), ("vfork", CLONE_VM | CLONE_VFORK, 23), ("clone-vm", CLONE_VM, 21), ("thread", 0, 22)]
)
def test_child_names_its_creator(live: Live, programs: Path, way: str, flags: int, code: int) -> None:
    said, found = run_family(live, programs, way)
    child, creator = said["child"]
    fork = found[child]
    assert (fork.creator_tgid, fork.creator_start_ns) == key(found[creator])
    assert (fork.real_parent_tgid, fork.real_parent_start_ns) == key(found[creator])
    assert fork.creator_exec_id == fork.parent_exec_id == fork.exec_id == found[creator].exec_id + 1
    assert fork.clone_flags & (CLONE_VM | CLONE_VFORK | CLONE_PARENT) == flags
    assert (fork.creator_tid == creator) == (way != "thread")
    assert fork.comm == b"family"
    ends = [record for record in live.of(child) if isinstance(record, events.Exit)]
    assert [(end.status >> 8, end.status & 255, end.exec_id) for end in ends] == [(code, 0, fork.exec_id)]


def test_fork_carries_the_childs_ids(live: Live, programs: Path) -> None:
    said, found = run_family(live, programs, "fork")
    fork = found[said["child"][0]]
    assert (fork.uid, fork.gid, fork.euid, fork.egid) == (os.getuid(), os.getgid(), os.geteuid(), os.getegid())
    assert fork.loginuid == int(Path("/proc/self/loginuid").read_text())
    assert fork.session == int(Path("/proc/self/sessionid").read_text())
    assert fork.pid_ns == os.stat("/proc/self/ns/pid").st_ino
    assert fork.mnt_ns == os.stat("/proc/self/ns/mnt").st_ino
    assert fork.ns_pid == fork.tgid
    assert 0 <= fork.time_ns - fork.start_ns < 50_000_000
    assert 0 <= time.clock_gettime_ns(time.CLOCK_BOOTTIME) - fork.time_ns < 60_000_000_000


def test_clone_parent_keeps_creator_and_kernel_parent_apart(live: Live, programs: Path) -> None:
    said, found = run_family(live, programs, "clone-parent")
    child, creator = said["child"]
    fork = found[child]
    assert (fork.creator_tgid, fork.creator_start_ns) == key(found[creator])
    assert fork.real_parent_tgid == os.getpid() != fork.creator_tgid
    assert fork.clone_flags & CLONE_PARENT
    assert fork.creator_exec_id == fork.exec_id == found[creator].exec_id + 2
    assert fork.parent_exec_id == found[creator].parent_exec_id


@pytest.mark.parametrize(("way", "code"), [("subreaper", 24), ("daemon", 25)])
def test_orphan_keeps_its_creator_and_shows_its_reaper(live: Live, programs: Path, way: str, code: int) -> None:
    said, found = run_family(live, programs, way)
    orphan, creator = said["orphan"]
    fork = found[orphan]
    assert (fork.creator_tgid, fork.creator_start_ns) == key(found[creator])
    assert fork.real_parent_tgid == creator
    (end,) = [record for record in live.of(orphan) if isinstance(record, events.Exit)]
    assert end.real_parent_tgid == said["reaper"][1] != creator
    assert end.status == code << 8


def test_forks_racing_an_exec_name_the_image_that_ran(live: Live, programs: Path) -> None:
    rounds = 20
    lines = output(programs / "family", "exec-race", str(rounds))
    live.catch_up()
    family = int(lines[0][2])
    assert len(lines) == rounds
    mine = [record for record in live.records if isinstance(record, events.Fork) and record.creator_tgid == family]
    image = {record.exec_id for record in live.of(family) if isinstance(record, events.Exec)}
    assert len(image) == rounds + 1
    running = 0
    order = 0
    for record in live.records:
        if isinstance(record, events.Exec) and record.tgid == family:
            assert record.exec_id > running
            running = record.exec_id
        if isinstance(record, events.Fork) and record.creator_tgid == family:
            # The count goes up a moment before the exec's record; de_thread() has ended all other threads by then.
            assert record.creator_exec_id == running
            order += 1
    assert order == len(mine) > rounds
    assert [forks(live)[int(line[1])].creator_tgid for line in lines] == [family] * rounds


def test_renames_are_those_of_the_main_thread_outside_of_exec(live: Live, programs: Path) -> None:
    said, _ = run_family(live, programs, "names")
    renames = [record for record in live.of(said["names"][0]) if isinstance(record, events.Rename)]
    assert [(record.old_comm, record.comm) for record in renames] == [
        (b"family", b"first"),
        (b"first", b"second"),
        (b"second", b"third, and too "),
    ]
    last = [record for record in live.of(said["names"][0]) if isinstance(record, events.Exec)][-1]
    assert last.comm == b"true"


def test_threads_give_no_record(live: Live, programs: Path) -> None:
    output(programs / "ending", "hundred-threads", "1")
    live.catch_up()
    assert len([record for record in live.records if isinstance(record, events.Fork) and record.comm == b"ending"]) == 1
    assert len([record for record in live.records if isinstance(record, events.Exit) and record.comm == b"ending"]) == 2
