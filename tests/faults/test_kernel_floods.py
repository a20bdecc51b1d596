"""Somebody without rights makes as many records as he can: what others do is there, or counted to the last record."""

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from kernel_tools import load_live, output, unload_live

from schemas.rows import EndKind, ImageKind, LossCause
from tests.faults.cgroups import cgroup
from tests.faults.kernel_host import Joined

QUIET = 60


def quiet_work() -> list[int]:
    """What somebody else does meanwhile: pids of processes that ran and ended."""
    pids = []
    for number in range(QUIET):
        process = subprocess.Popen(["/bin/true", f"quiet-{number}"])
        assert process.wait() == 0
        pids.append(process.pid)
    return pids


def stored(host: Joined, pids: list[int]) -> int:
    """How many of them are there in full."""
    full = 0
    for number, tgid in enumerate(pids):
        rows = [row for row in host.images if row.tgid == tgid and row.argv == (b"/bin/true", b"quiet-%d" % number)]
        full += len(rows) == 1 and (rows[0].kind, rows[0].end_kind) == (ImageKind.EXEC, EndKind.EXIT)
    return full


def amount(host: Joined, cause: LossCause) -> int:
    """What is told to be missing for that reason."""
    return sum(loss.amount for loss in host.losses if loss.cause == cause)


class Reading(threading.Thread):
    """A reader that is alive."""

    def __init__(self, host: Joined) -> None:
        super().__init__()
        self.host = host
        self.stopping = threading.Event()

    def run(self) -> None:
        """Every 10 ms."""
        while not self.stopping.wait(0.01):
            self.host.read()


@pytest.mark.parametrize("kind", ["renames", "arguments"])
@pytest.mark.parametrize("reader", ["alive", "dead"])
def test_a_flood_by_somebody_without_rights(tmp_path: Path, programs: Path, kind: str, reader: str) -> None:
    live = load_live(tmp_path, ring_bytes=1 << 22)
    host = Joined(live)
    reading = Reading(host)
    try:
        host.read()
        flood = subprocess.Popen([programs / "flood", kind, "1.5"])
        if reader == "alive":
            reading.start()
        pids = quiet_work()
        assert flood.wait() == 0
        if reader == "alive":
            reading.stopping.set()
            reading.join()
        counters = live.recorder.counters()
        host.read()
        assert live.recorder.clock()
        host.read()
        full = stored(host, pids)
        lost = counters.lost_fork + counters.lost_exec + counters.lost_exit
        assert amount(host, LossCause.RING_FULL) == lost
        # A missing record leaves at most one process incomplete.
        assert full + lost >= QUIET
        if kind == "renames":
            assert (full, lost) == (QUIET, 0), "renames take no room from what makes histories"
            if reader == "dead":
                assert counters.dropped_rename > 1_000
        assert amount(host, LossCause.RENAME_DROPPED) == counters.dropped_rename
        assert amount(host, LossCause.ARGV_SHORTENED) == counters.short_argv
    finally:
        reading.stopping.set()
        unload_live(live)


def bombs(programs: Path, members: Path) -> Callable[[], list[list[str]]]:
    """Four thousand forks in the group, as fast as they go; by whom each was made."""
    script = 'echo $$ > "$1"; exec "$2" 4000 4 "$3"'
    return lambda: output("/bin/sh", "-c", script, "sh", members, programs / "storm", programs / "tiny")


def test_a_fork_bomb_beside_a_quiet_group(host: Joined, programs: Path) -> None:
    with cgroup("pids", 64) as members:
        made: list[list[str]] = []
        bomb = threading.Thread(target=lambda: made.extend(bombs(programs, members)()))
        bomb.start()
        pids = quiet_work()
        bomb.join()
    host.read()
    assert len(made) == 4_000
    assert stored(host, pids) == QUIET
    assert host.live.recorder.counters().lost == 0
    ended = {
        (row.tgid, row.creator_tgid) for row in host.images if row.exe == str(programs / "tiny").encode() and row.end_kind == EndKind.EXIT
    }
    assert ended == {(int(pid), int(creator)) for pid, creator, _ in made}
