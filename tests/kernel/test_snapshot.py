"""Snapshots: all living processes, no image mixed up with the next one, and never an end mark without the file."""

import ctypes
import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_tools import Live, output, wait_until

from producers import host, snapshot
from schemas import events
from schemas.batch import Batch, BatchKind, decode_batch, frames
from schemas.errors import Unavailable
from schemas.events import Flag, Mark

PR_SET_CHILD_SUBREAPER = 36


def seen_in(batch: Batch) -> dict[int, events.Seen]:
    """SEEN records by tgid."""
    records = [events.decode_record(batch.body, at, size) for at, size in frames(batch.body)]
    return {record.tgid: record for record in records if isinstance(record, events.Seen)}


def readable(pid: int) -> bool:
    """Whether this process may look into that one: one with more capabilities than ours may be kept from us everywhere."""
    try:
        os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return False
    return True


def test_it_lists_every_process_of_proc(live: Live) -> None:
    before = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    seen = seen_in(live.recorder.snapshot())
    after = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    assert {pid for pid in before & after if readable(pid)} <= set(seen)
    assert len(seen) > 20
    assert seen[2].flags & Flag.KTHREAD and seen[2].comm == b"kthreadd" and seen[2].argv == ()
    assert seen[2].real_parent_tgid == 0
    me = seen[os.getpid()]
    assert bool(me.flags & Flag.CREATOR_KNOWN) == (me.start_ns > live.recorder.ring_id), "only of those that began after the load"
    assert me.argc == len(me.argv) == Path("/proc/self/cmdline").read_bytes().count(b"\0")
    assert me.real_parent_tgid == os.getppid() and me.real_parent_start_ns == seen[os.getppid()].start_ns


def test_reapers_are_flagged(live: Live, programs: Path) -> None:
    libc = ctypes.CDLL(None)
    namespace = subprocess.Popen(["unshare", "-pf", "--kill-child", programs / "sleeper"])
    try:
        live.catch_up()
        wait_until(lambda: live.catch_up() and [r for r in live.records if isinstance(r, events.Exec) and r.comm == b"sleeper"], "the exec")
        assert not libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        seen = seen_in(live.recorder.snapshot())
        assert not libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        init = next(record for record in seen.values() if record.comm == b"sleeper" and record.real_parent_tgid == namespace.pid)
        assert init.ns_pid == 1 and init.flags & Flag.SUBREAPER
        assert seen[os.getpid()].flags & Flag.SUBREAPER
        assert not seen[namespace.pid].flags & Flag.SUBREAPER
    finally:
        namespace.kill()
        namespace.wait()


def test_it_lists_the_users(live: Live) -> None:
    batch = live.recorder.snapshot()
    records = [events.decode_record(batch.body, at, size) for at, size in frames(batch.body)]
    users = {record.uid: record.name for record in records if isinstance(record, events.User)}
    assert users == {entry.pw_uid: os.fsencode(entry.pw_name) for entry in reversed(pwd.getpwall())}


def test_it_stands_between_its_marks_and_waits_in_the_spool(live: Live) -> None:
    batch = live.recorder.snapshot()
    live.catch_up()
    marks = [record for record in live.records if isinstance(record, events.MarkRecord) and record.mark != Mark.CLOCK]
    assert [(mark.mark, mark.values[0]) for mark in marks] == [(Mark.SNAPSHOT_BEGIN, batch.lost), (Mark.SNAPSHOT_END, batch.lost)]
    assert batch.kind is BatchKind.SNAPSHOT
    assert batch.start == batch.end
    assert (batch.ring_id, batch.host_id) == (live.recorder.ring_id, host.host_id(live.chosen.state_dir))
    assert [decode_batch(data) for data in live.recorder.pending_snapshots()][-1] == batch
    later = live.recorder.snapshot()
    assert [decode_batch(data).lost for data in live.recorder.pending_snapshots(batch.lost)] == [later.lost]
    live.recorder.discard_snapshots(batch.lost)
    assert [decode_batch(data).lost for data in live.recorder.pending_snapshots()] == [later.lost]
    live.recorder.discard_snapshots(later.lost)
    assert live.recorder.pending_snapshots() == []


def test_an_orphan_keeps_its_creator_though_its_events_were_lost(small_live: Live, programs: Path) -> None:
    small_live.forget()
    output(programs / "storm", "500", "1", programs / "tiny")
    assert not small_live.recorder.clock(), "the ring is full"
    shell = subprocess.Popen(["/bin/sh", "-c", f"{programs}/sleeper & echo $! $$"], stdout=subprocess.PIPE, text=True)
    assert shell.stdout
    pid, creator = map(int, shell.stdout.readline().split())
    try:
        shell.wait()
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_bytes() == b"sleeper\n", "the exec of the sleeper")
        small_live.catch_up()
        assert not small_live.of(pid)
        seen = seen_in(small_live.recorder.snapshot())[pid]
        assert seen.flags & Flag.CREATOR_KNOWN
        assert (seen.creator_tgid, seen.creator_exec_id) == (creator, seen.exec_id - 1)
        assert seen.real_parent_tgid != creator
    finally:
        os.kill(pid, 9)
        shell.stdout.close()


def test_zombies_are_ended(live: Live) -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        seen = seen_in(live.recorder.snapshot())[child]
        assert seen.flags & Flag.ENDED
        assert (seen.live_threads, seen.status, seen.exe, seen.cwd, seen.argv) == (0, 0, b"", b"", ())
    finally:
        os.waitpid(child, 0)


def test_a_process_whose_leader_ended_is_seen_through_another_thread(live: Live, programs: Path) -> None:
    environment = {**os.environ, "SLEEPER": str(programs / "sleeper")}
    process = subprocess.Popen([programs / "leaderless"], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"leader gone\n"
        seen = seen_in(live.recorder.snapshot())[process.pid]
        assert not seen.flags & Flag.ENDED
        assert (seen.live_threads, seen.exe) == (1, os.fsencode(programs / "leaderless"))
        assert seen.cwd == os.fsencode(os.getcwd())
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_no_image_gets_the_facts_of_the_next_one(live: Live, programs: Path, tmp_path: Path) -> None:
    names = [tmp_path / "flip-a", tmp_path / "flip-b"]
    for name in names:
        shutil.copy(programs / "flip", name)
    process = subprocess.Popen([names[0], "4000", names[1]])
    whole = blank = 0
    pages = []
    try:
        while process.poll() is None:
            pages.append(seen_in(live.recorder.snapshot()))
            live.read()
            live.recorder.discard_snapshots(1 << 62)
    finally:
        process.wait()
    live.catch_up()
    truth = {record.exec_id: record for record in live.of(process.pid) if isinstance(record, events.Exec)}
    assert process.returncode == 0 and len(truth) == 4001
    for page in pages:
        seen = page.get(process.pid)
        if seen is None or seen.exec_id not in truth:
            continue
        image = truth[seen.exec_id]
        assert seen.exe in (b"", image.exe)
        assert seen.comm in (b"", image.comm)
        assert seen.argv in ((), image.argv), Flag(seen.flags)
        whole += bool(seen.exe and seen.argv)
        blank += not seen.exe
    assert whole > 10, (whole, blank, len(pages))


def test_no_end_mark_without_a_file(live: Live, tmp_path: Path) -> None:
    not_a_directory = tmp_path / "spool"
    not_a_directory.write_text("")
    live.recorder.spool, spool = not_a_directory, live.recorder.spool
    try:
        with pytest.raises(FileExistsError):
            live.recorder.snapshot()
    finally:
        live.recorder.spool = spool
    live.catch_up()
    assert Mark.SNAPSHOT_END not in [record.mark for record in live.records if isinstance(record, events.MarkRecord)]


def test_a_full_ring_gives_no_snapshot(small_live: Live, programs: Path) -> None:
    output(programs / "storm", "500", "1", programs / "tiny")
    with pytest.raises(Unavailable, match="ring is full"):
        small_live.recorder.snapshot()


def test_files_of_other_rings_and_unfinished_ones_are_not_pending(tmp_path: Path) -> None:
    for name in ("5-1.batch", "5-20.batch", "5-3.batch", "55-2.batch", "5-x.batch", ".5-4.batch", "5-6.batch.tmp"):
        (tmp_path / name).write_text(name)
    assert snapshot.pending(tmp_path, 5) == [b"5-1.batch", b"5-3.batch", b"5-20.batch"]
    snapshot.discard(tmp_path, 5, 3)
    assert snapshot.pending(tmp_path, 5) == [b"5-20.batch"]
    assert (tmp_path / "55-2.batch").exists()
