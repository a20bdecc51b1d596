"""`make fleet` and `make fleet-down`: all of a fleet on this machine comes up, is one fleet to whoever asks, and goes without a trace."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local import processes
from deploy.local.hosts import Identity, boot
from deploy.local.processes import End, Roll
from queries.recordings import batches
from schemas.batch import BatchKind
from schemas.rows import ImageRow, LossCause, LossRow, Row
from streams.join import HostState, apply
from tasktrail.demo import RECORDING, open_recording
from tests.contract.named_store import needs_its_own_clickhouse
from tests.e2e.running import ROOT, open_directory, wait_until
from tests.fleet.kafka_for_tests import needs_its_own_kafka

HOSTS = ("web-21", "web-22", "web-23")
UP_S = 300
NOW_NS = 2_000_000_000_000_000_000


class Local:
    """A fleet in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "fleet"
        self.roll = Roll(self.directory / "processes")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKTRAIL_") or name == "TASKTRAIL_KAFKA_JARS"}
        self.env = {**kept, "TASKTRAIL_FLEET_DIR": str(self.directory)}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m deploy.local` with these."""
        command = [sys.executable, "-m", "deploy.local", *arguments]
        return subprocess.run(command, env=self.env, cwd=ROOT, capture_output=True, text=True, timeout=UP_S, check=False)

    def pids(self) -> dict[str, int]:
        """What was written down."""
        return {process.name: process.pid for process in self.roll.read()}

    def running(self) -> list[str]:
        """Command lines of all processes that have this directory in them or in their settings."""
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (directory / "cmdline").read_bytes()
                if os.fsencode(self.directory) in words + (directory / "environ").read_bytes():
                    found.append(words.replace(b"\0", b" ").decode())
        return found


@pytest.fixture
def local() -> Iterator[Local]:
    """A fleet that is down at the end, whatever the test did."""
    needs_its_own_kafka("starts and ends all parts of a fleet")
    needs_its_own_clickhouse("starts and ends all parts of a fleet")
    with open_directory() as directory:
        fleet = Local(directory)
        try:
            yield fleet
        finally:
            fleet.command("down")


def test_it_comes_up_is_one_fleet_and_goes_without_a_trace(local: Local) -> None:
    up = local.command("up", "--hosts", str(len(HOSTS)))
    assert up.returncode == 0, up.stderr
    shown = set(re.findall(r"^(\S+) +[1-9]\d*  \d+ s ago$", up.stdout, re.M))
    assert shown == {*HOSTS, os.uname().nodename}
    setting = re.search(r"export TASKTRAIL_CONFIG=(\S+)", up.stdout)
    assert setting

    # Whoever asks sees one fleet: a program that every played host runs, and one that only this host ran.
    env = {**local.env, "TASKTRAIL_CONFIG": setting[1]}
    ask = [sys.executable, "-m", "tasktrail", "find", "--limit", "100000"]
    subprocess.run(["/bin/true", "only here"], check=True)

    def hosts_of(*question: str) -> set[str]:
        done = subprocess.run([*ask, *question], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return {json.loads(line)["host"] for line in done.stdout.splitlines()} if done.returncode == 0 else set()

    wait_until(lambda: hosts_of("--exe", "*/cc1", "--since", "1h") == set(HOSTS), "compilers of every played host", 240)
    wait_until(lambda: hosts_of("--arg", "only here") == {os.uname().nodename}, "this host's own program", 240)

    # All of them report, and of none it is said that its recorder is gone, though they have only just begun.
    told = subprocess.run([*ask[:3], "hosts"], env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    states = {row["host"]: (row["state"], row["remarks"]) for row in map(json.loads, told.splitlines())}
    assert states.keys() == {*HOSTS, os.uname().nodename}
    assert all(state in ("recording", "starting") and "its recorder is gone" not in remarks for state, remarks in states.values()), states

    # Twice does no harm.
    pids = local.pids()
    again = local.command("up", "--hosts", str(len(HOSTS)))
    assert again.returncode == 0 and "up already" in again.stderr and local.pids() == pids
    status = local.command("status")
    assert status.returncode == 0 and len(re.findall(r" runs$", status.stdout, re.M)) == len(pids) == 6

    # What has ended is started again, and nothing else is.
    os.kill(pids["worker-1"], signal.SIGKILL)
    wait_until(lambda: local.command("status").returncode == 1, "status telling of the worker's end", 30)
    assert local.command("up", "--hosts", str(len(HOSTS))).returncode == 0
    now = local.pids()
    assert {name for name in pids if now[name] != pids[name]} == {"worker-1"}

    down = local.command("down")
    assert down.returncode == 0 and len(re.findall(r" stopped$", down.stderr, re.M)) == 6, down.stderr
    assert "taken out of the kernel" in down.stderr
    assert local.running() == []
    assert not local.pids() and local.command("status").returncode == 1
    assert "no fleet was up" in local.command("down").stderr


def test_what_was_stored_is_there_when_it_comes_up_again(local: Local) -> None:
    assert local.command("up", "--hosts", "1", "--no-record").returncode == 0
    assert local.command("down").returncode == 0
    # Another host this time: rows of the first one can only be those of before.
    (local.directory / "kafka-port").write_text("1\n")  # root may have it, and Kafka must not be where it was
    up = local.command("up", "--hosts", "2", "--no-record")
    assert up.returncode == 0, up.stderr
    assert set(re.findall(r"^(\S+) +[1-9]\d*  \d+ s ago$", up.stdout, re.M)) == {"web-21", "web-22"}
    assert set(local.pids()) == {"kafka", "store", "worker-1", "worker-2", "hosts"}


def test_a_part_that_cannot_start_is_said_and_what_was_started_ends(local: Local) -> None:
    local.directory.mkdir()
    (local.directory / "store").write_text("not a directory")
    up = local.command("up", "--hosts", "1", "--no-record")
    assert up.returncode == 4 and "the store did not start" in up.stderr
    assert local.running() == [] and not local.pids()


def test_nobody_is_ended_who_has_the_pid_of_one_of_ours_by_now(tmp_path: Path) -> None:
    log = tmp_path / "log"
    roll = Roll(tmp_path / "processes")
    process = processes.start("cat", ["/usr/bin/tail", "-f", "/dev/null"], {}, tmp_path, log)
    try:
        roll.add(process)
        assert roll.read() == [process] and processes.lives(process)
        earlier, other_boot = process._replace(started=process.started - 1), process._replace(boot_id=str(uuid4()))
        for stranger in (earlier, other_boot):
            assert processes.end(stranger, 5) is End.GONE
            assert processes.lives(process)
        assert processes.end(process, 5) is End.STOPPED
        assert not processes.lives(process) and processes.end(process, 5) is End.GONE
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(process.pid, 0)


def test_a_played_host_tells_the_recorded_story_at_the_time_of_its_boot() -> None:
    with open_recording() as file:
        recording = list(batches(file, RECORDING))
    first, second = (Identity(uuid4(), uuid4(), name) for name in (b"web-1", b"web-2"))
    played = list(boot(recording, first, NOW_NS, 30.0))
    shipped = [batch for _, batch in played]
    assert {(batch.host_id, batch.boot_id, batch.hostname) for batch in shipped} == {tuple(first)}
    assert [after_ns for after_ns, _ in played] == sorted(after_ns for after_ns, _ in played)
    assert len(shipped) == len(recording) + 6 and all(batch.start == batch.end and batch.drained for batch in shipped[-6:])
    assert any(batch.body != old.body for batch, old in zip(shipped, recording, strict=False) if batch.kind == BatchKind.EVENTS)

    def rows_of(told: list) -> list[Row]:  # type: ignore[type-arg]
        state, rows = HostState(), list[Row]()
        for batch in told:
            rows += apply(state, batch)
        return rows

    def story(rows: list[Row]) -> list[tuple[object, ...]]:
        images = [row for row in rows if isinstance(row, ImageRow)]
        return [
            (row.tgid, row.start_boottime, row.exec_id, row.exe, row.argv, row.end_kind, row.chain_comm, row.duration) for row in images
        ]

    mine, recorded = rows_of(shipped), rows_of(recording)
    assert story(mine)[: len(story(recorded)) // 2] == story(recorded)[: len(story(recorded)) // 2]
    other = rows_of([batch for _, batch in boot(recording, second, NOW_NS, 30.0)])
    assert story(other) == story(mine)
    assert not {row.task_id for row in mine if isinstance(row, ImageRow)} & {row.task_id for row in other if isinstance(row, ImageRow)}
    # Every process that began after the recorder was loaded began, by the wall clock, after the boot that was played.
    moment_ns = recording[0].boottime_ns
    born = [row for row in mine if isinstance(row, ImageRow) and row.start_boottime > moment_ns]
    assert born and all(abs((row.start - NOW_NS) - (row.start_boottime - moment_ns)) < 1_000_000_000 for row in born)
    assert {row.cause for row in mine if isinstance(row, LossRow)} <= {LossCause.NO_RECORDER}
