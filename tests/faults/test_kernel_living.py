"""What lives cannot be lost: whatever the ring refused, a snapshot gives every living process back with its true creator."""

import signal
import subprocess
import threading
from pathlib import Path

from kernel_tools import load_live, output, unload_live, wait_until

from producers import host as host_facts
from schemas.identity import NIL, task_id
from schemas.rows import EndKind, ImageKind, LossCause
from tests.faults.kernel_host import Joined

DAEMONS = 200
DOUBLE_FORK = "i=0; while [ $i -lt 200 ]; do sh -c 'sh -c \"exec sleep 60\" & echo $! $$'; i=$((i + 1)); done"
"""Each daemon's creator ends at once; prints the pids of both."""


def start_of(tgid: int) -> int:
    """Start of a living process in clock ticks, as /proc says."""
    return int(Path(f"/proc/{tgid}/stat").read_text().rpartition(")")[2].split()[19])


def test_daemons_that_began_in_an_overflow_have_their_true_creators(tmp_path: Path, programs: Path) -> None:
    live = load_live(tmp_path, ring_bytes=1 << 16)
    host = Joined(live)
    daemons: list[tuple[int, int]] = []
    try:
        host.read()
        output(programs / "storm", "1000", "2", programs / "tiny")
        script = subprocess.Popen(["/bin/sh", "-c", DOUBLE_FORK], stdout=subprocess.PIPE, text=True)
        assert script.stdout is not None
        daemons = [(int(daemon), int(creator)) for daemon, creator in (script.stdout.readline().split() for _ in range(DAEMONS))]
        assert script.wait() == 0
        comms = [Path(f"/proc/{daemon}/comm") for daemon, _ in daemons]
        wait_until(lambda: all(comm.read_text() == "sleep\n" for comm in comms), "every daemon's exec")
        counters = live.recorder.counters()
        assert counters.lost_fork > 1_000, "the ring was full, so nobody heard of them"
        host.snapshot()
        host.snapshot()
        host.settle()
        told = sum(loss.amount for loss in host.losses if loss.cause == LossCause.RING_FULL)
        assert told >= counters.lost
        here = host_facts.here(live.chosen.state_dir)
        known = {row.task_id: row for row in host.images}
        for daemon, creator in daemons:
            row = host.newest(daemon)
            assert (row.kind, row.end_kind, row.comm) == (ImageKind.SEEN, EndKind.LIVING, b"sleep")
            assert row.start_boottime // 10_000_000 == start_of(daemon)
            assert row.creator_tgid == creator and row.creator_id != NIL, "its creator, though it had ended before anybody looked"
            assert row.creator_id == row.ancestor_ids[0]
            assert row.chain_lost, "that its creator's own story is not known is said"
            if row.creator_id in known:
                assert known[row.creator_id].tgid == creator
            assert row.task_id == task_id(here.host_id, here.boot_id, daemon, row.start_boottime)
        # Whoever lived and died in the gap is not there: nothing is guessed about them.
        exe = str(programs / "tiny").encode()
        whole = [row for row in host.images if row.exe == exe]
        assert len(whole) + counters.lost_exec >= 1_000 and not [row for row in whole if row.creator_id == NIL and not row.chain_lost]
    finally:
        for daemon, _ in daemons:
            subprocess.run(["kill", "-9", str(daemon)], check=False)
        unload_live(live)


def test_a_start_with_three_hundred_living_processes(tmp_path: Path, programs: Path) -> None:
    older = [subprocess.Popen([programs / "sleeper", f"older-{number}"]) for number in range(300)]
    ending = older[200:]
    live = None
    try:
        loaded = threading.Event()

        def end_some() -> None:
            for process in ending:
                process.send_signal(signal.SIGKILL)
                process.wait()
                loaded.wait(0.002)

        endings = threading.Thread(target=end_some)
        endings.start()
        live = load_live(tmp_path)
        loaded.set()
        endings.join()
        host = Joined(live)
        host.settle()
        first = {process.pid: host.newest(process.pid) for process in older[:200]}
        exe = str(programs / "sleeper").encode()
        for process in older:
            rows = [row for row in host.images if row.tgid == process.pid]
            assert len(rows) <= 1 and {row.kind for row in rows} <= {ImageKind.SEEN, ImageKind.UNKNOWN}, "no exec is invented"
            living = process not in ending
            assert not living or [(row.end_kind, row.exe, row.chain_before) for row in rows] == [(EndKind.LIVING, exe, 1)]
            assert living or not [row for row in rows if row.end_kind == EndKind.LIVING], "who ended meanwhile does not live on"
        # What happens next begins where the snapshot ended.
        after = subprocess.Popen([programs / "sleeper", "after"])
        older.append(after)
        host.settle()
        row = host.newest(after.pid)
        assert (row.kind, row.chain_lost, row.argv[-1]) == (ImageKind.EXEC, 0, b"after")
        # With all that was known forgotten, a later snapshot gives the same names.
        again = Joined(live)
        again.snapshot()
        again.settle()
        for tgid, row in first.items():
            assert again.newest(tgid).task_id == row.task_id and again.newest(tgid).exec_id == row.exec_id
    finally:
        for process in older:
            process.kill()
            process.wait()
        if live is not None:
            unload_live(live)
