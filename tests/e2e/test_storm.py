"""Whatever is killed while a storm of processes goes on: afterwards each process is stored exactly once, with its true story."""

import os
import random
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.contract.conftest import await_end
from tests.e2e.running import Place, Run, wait_until

PART = 250
"""Processes of one storm; storms follow each other until the killing is over."""
RUN_KILLS = 20
SERVER_KILLS = 4
ALIVE_MAX_S = 2.5


class Child(NamedTuple):
    """What a storm itself says of one child; ``storm`` is its own pid."""

    pid: int
    creator: int
    status: int
    storm: int


class Storms(threading.Thread):
    """Storm after storm until told to stop."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self.programs = programs
        self.stopping = threading.Event()
        self.children: list[Child] = []
        self.failures: list[int] = []

    def run(self) -> None:
        """The loop."""
        while not self.stopping.is_set():
            command = [self.programs / "storm", str(PART), "1", self.programs / "tiny"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as storm:
                assert storm.stdout
                lines = storm.stdout.readlines()
            self.failures += [storm.returncode] * bool(storm.returncode)
            self.children += [Child(*map(int, line.split()), storm.pid) for line in lines]
            # Some six hundred processes a second: what waits in the ring is stored within the time of a test.
            self.stopping.wait(0.35)

    def __enter__(self) -> "Storms":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.join()


STORED = """
SELECT tgid, creator_tgid, exit_code, exit_signal, end_kind, kind, chain_lost, chain_tgid, chain_comm, task_id
FROM current_images WHERE exe = {exe:String}"""
"""By path, for others on this host may have storms of their own."""


def check_exactly_once(place: Place, programs: Path, children: list[Child]) -> None:
    """The store has each child as one image of one process, made by its creator, below its storm, with its exit code."""
    rows = place.query(STORED, exe=str(programs / "tiny"))
    told = Counter((child.pid, child.creator, child.status >> 8, child.storm) for child in children)
    stored: Counter[tuple[int, int, int, int]] = Counter()
    for tgid, creator, code, number, end_kind, kind, lost, chain_tgid, chain_comm, _ in rows:
        assert (number, end_kind, kind, lost) == (0, "exit", "exec", False)
        assert tuple(chain_comm[-2:]) == (b"storm", b"tiny") and chain_tgid[-1] == tgid
        stored[tgid, creator, code, chain_tgid[-2]] += 1
    assert stored == told
    assert len({row[-1] for row in rows}) == len(children)
    doubled = place.query("SELECT task_id, exec_id, count() AS n FROM current_images GROUP BY ALL HAVING n > 1")
    assert doubled == []
    # From the boot until the recorder was loaded is a loss as well, and is said; it touches none of these.
    losses = place.query(
        "SELECT cause, amount, detail FROM current_losses WHERE begin_boottime > 0 AND cause NOT IN ('rename_dropped', 'argv_shortened')"
    )
    assert losses == []


def test_run_is_killed_again_and_again(place: Place, programs: Path) -> None:
    chance = random.Random(20)
    place.start()
    with Storms(programs) as storms:
        for turn in range(RUN_KILLS):
            run = place.runs[-1]
            if turn % 2:
                # Every other one at a moment while it works, the others at any moment of its start.
                run.wait_ready()
            try:
                run.process.wait(chance.uniform(0, ALIVE_MAX_S))
            except subprocess.TimeoutExpired:
                run.kill()
            assert run.process.returncode == -signal.SIGKILL, run.said()
            place.start(ready=False)
        place.runs[-1].wait_ready()
    assert not storms.failures and len(storms.children) > 10_000
    place.caught_up()
    check_exactly_once(place, programs, storms.children)


def kill_server(run: Run) -> None:
    """kill -9 of the ClickHouse child, and waits for the next one."""
    old = wait_until(run.server, "a ClickHouse")
    os.kill(old, signal.SIGKILL)
    assert await_end(old)
    wait_until(lambda: run.server() not in (0, old), "another ClickHouse")


def test_the_server_is_killed_again_and_again(place: Place, programs: Path) -> None:
    chance = random.Random(4)
    run = place.start()
    with Storms(programs) as storms:
        for _ in range(SERVER_KILLS):
            storms.stopping.wait(chance.uniform(0.2, 1.5))
            kill_server(run)
    run.wait_said("was started again")
    assert not storms.failures and len(storms.children) > 1_000
    place.caught_up()
    assert run.process.poll() is None
    check_exactly_once(place, programs, storms.children)
