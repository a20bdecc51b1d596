"""What the tests of the whole share: a place of its own for each test, `tasktrail run` as a process, questions to its store."""

import contextlib
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from producers.bpf import pins
from schemas.errors import Unavailable
from store.connection import Connection
from store.server import stored_address
from tests.contract.conftest import await_end

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
TASKTRAIL = (sys.executable, "-m", "tasktrail")
START_S = 60.0
_numbers = itertools.count(1)


def wait_until(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """The first true value of ``condition``, for where a server or the kernel gives no event; fails loudly at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        select.select([], [], [], 0.01)
    return value


class Place:
    """Pins, locks, identity and store of one test; ``clear`` leaves nothing of them."""

    def __init__(self, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.pin_dir = Path(f"/sys/fs/bpf/tasktrail-e2e-{os.getpid()}-{next(_numbers)}")
        self.run_dir, self.state_dir, self.store = directory / "run", directory / "state", directory / "store"
        self.env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(directory),
            "TZ": "UTC",
            "LANG": "C.UTF-8",
            "TASKTRAIL_PIN_DIR": str(self.pin_dir),
            "TASKTRAIL_RUN_DIR": str(self.run_dir),
            "TASKTRAIL_STATE_DIR": str(self.state_dir),
            "TASKTRAIL_STORE": str(self.store),
            **settings,
        }
        self.prefix: tuple[str, ...] = ()
        """What all commands of this place are started by, such as setpriv with its options."""
        self.runs: list[Run] = []

    def start(self, *arguments: str, ready: bool = True) -> "Run":
        """`tasktrail run`, when it records (or at once)."""
        run = Run(self, ("run", *arguments))
        self.runs.append(run)
        if ready:
            run.wait_ready()
        return run

    def command(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """A command with this place's settings, its output a pipe."""
        command = [*self.prefix, *TASKTRAIL, *arguments]
        return subprocess.run(command, env=self.env, cwd="/", capture_output=True, text=True, timeout=timeout_s, check=False)

    def ask(self, *arguments: str) -> str:
        """What a command that must succeed says on stdout."""
        done = self.command(*arguments)
        assert done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        """JSON lines of a command that must succeed."""
        return [json.loads(line) for line in self.ask(*arguments).splitlines()]

    def record(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the group record, which takes its places as flags."""
        where = ["--pin-dir", str(self.pin_dir), "--run-dir", str(self.run_dir)]
        return self.command("record", *arguments, *where)

    def status(self) -> dict[str, Any]:
        """What `run` last said about itself; empty if it never did."""
        try:
            said: dict[str, Any] = json.loads((self.store / "status.json").read_bytes())
        except FileNotFoundError:
            return {}
        return said

    def query(self, sql: str, **params: object) -> list[tuple[Any, ...]]:
        """Rows that the running store gives its reader."""
        address = stored_address(self.store, "reader")
        assert address is not None
        with Connection(address, timeout_s=60) as connection:
            return connection.query(sql, params).rows

    def wait_stored(self, tgid: int, seconds: float = 30.0, where: str = "kind = 'exec'") -> None:
        """Waits until an image of the process is stored."""
        sql = f"SELECT 1 FROM current_images WHERE tgid = {tgid} AND {where}"

        def stored() -> bool:
            try:
                return bool(self.query(sql))
            except Unavailable:
                return False  # the server is being started again

        wait_until(stored, f"a row of process {tgid} with {where}", seconds)

    def caught_up(self) -> None:
        """Waits until everything that happened before this call is stored: a process made now comes after all of it."""
        # Marked by an argument, for after a storm its pid has been another's before.
        marker = f"e2e-{os.getpid()}-{next(_numbers)}"
        done = subprocess.Popen(["/bin/true", marker])
        done.wait()
        self.wait_stored(done.pid, 60, f"end_kind = 'exit' AND has(argv, '{marker}')")

    def clear(self) -> None:
        """Ends what runs and takes the recorder out of the kernel."""
        for run in self.runs:
            run.end()
        for name in pins.present(self.pin_dir):
            (self.pin_dir / name).unlink(missing_ok=True)
        if self.pin_dir.is_dir():
            self.pin_dir.rmdir()


class Run:
    """One `tasktrail run`, or another command that goes on. What it says goes to a file, so that it never waits for us."""

    def __init__(self, place: Place, arguments: tuple[str, ...]) -> None:
        self.place = place
        self.said_path = place.directory / f"run-{next(_numbers)}.stderr"
        with self.said_path.open("wb") as said:
            command = [*place.prefix, *TASKTRAIL, *arguments]
            self.process = subprocess.Popen(command, env=place.env, cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.pid = self.process.pid

    def said(self) -> str:
        """All that it has said."""
        return self.said_path.read_text()

    def wait_ready(self) -> None:
        """Returns when it steps: its status file names it."""

        def steps() -> bool:
            assert self.process.poll() is None, f"run ended with {self.process.returncode}: {self.said()}"
            return self.place.status().get("pid") == self.pid

        wait_until(steps, "recording", START_S)

    def wait_said(self, words: str, seconds: float = 30.0) -> None:
        """Returns when it has said this."""
        wait_until(lambda: words in self.said(), f"run saying {words!r}", seconds)

    def server(self) -> int:
        """Pid of the ClickHouse below it."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in map(int, children):
            with contextlib.suppress(OSError):
                if b"store.server_child" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
        return 0

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """Asks it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """kill -9; it is dead on return."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Makes sure that it is dead, and its ClickHouse too."""
        if self.process.poll() is None:
            server = self.server()
            self.kill()
            assert not server or await_end(server), "the ClickHouse child outlived run"


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A temporary directory that the store's unprivileged server can reach. Not pytest's: each session that begins closes their root."""
    with tempfile.TemporaryDirectory(prefix="tasktrail-e2e-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def tmpfs(directory: Path, size: str) -> Iterator[Path]:
    """A small file system of its own."""
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
