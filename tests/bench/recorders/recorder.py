"""What a recorder is to the comparison, and what most of them have in common: processes in a control group that write files."""

import contextlib
import os
import select
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.bench.recorders.cgroup import Cgroup
from tests.bench.recorders.facts import Said, Seen

T = TypeVar("T")
CAP_CORES = 0.1
SETTLED_S = 0.2
SETTLED_SHARE = 0.05
"""A recorder has caught up when it used less than this share of a core for so long."""
DRAIN_MAX_S = 10.0
"""On a host where others start processes all the time, a recorder is never quiet."""


class CannotRun(Exception):
    """The recorder cannot run on this machine; the text is what it, or the kernel, says."""


def wait_until(condition: Callable[[], T], what: str, seconds: float = 20.0) -> T:
    """The first true value of ``condition``, for where the kernel gives no event. Raises CannotRun at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise CannotRun(f"{what} did not happen within {seconds:.0f} s")
        select.select([], [], [], 0.01)
    return value


def run(*command: str | Path) -> str:
    """What a command that must succeed prints. Raises CannotRun with what it says otherwise."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise CannotRun(f"{command[0]} is not installed") from None
    if done.returncode:
        raise CannotRun(f"{command[0]}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def thread_cpu_s(names: tuple[str, ...]) -> float:
    """CPU seconds of the kernel's own threads with these names, by the scheduler's exact account."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if stat.read_text().strip() in names and not (stat.parent / "cmdline").read_bytes():
                total += int((stat.parent / "schedstat").read_text().split()[0])
    return total / 1e9


def opened(pid: int, name: str) -> int:
    """How many of a process's open files are of this kind, such as anon_inode:[perf_event]."""
    count = 0
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += os.readlink(one) == name
    return count


class Recorder(ABC):
    """One recorder. ``start`` returns when it records; ``finish`` ends it after all that it will write is written; ``close`` cleans up.

    directory  where it may write; empty before each start
    """

    name: str
    package: str
    kernel_threads: tuple[str, ...] = ()
    switch = ""
    """Its off switch, as people would throw it; empty if it has none."""
    has_process = True

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cgroup = Cgroup(f"tasktrail-bench-{os.getpid()}")
        self.processes: list[subprocess.Popen[bytes]] = []
        self._starts = 0

    @abstractmethod
    def start(self) -> None:
        """Begins to record."""

    @abstractmethod
    def finish(self) -> tuple[Seen, Said]:
        """Ends recording; what was seen, and what is said of what was not."""

    def off(self) -> None:
        """Throws its off switch."""
        raise AssertionError(f"{self.name} has no off switch")

    def restart(self) -> None:
        """Starts again after it was killed, into the same or a further file."""
        self.start()

    def written(self) -> int:
        """Bytes of what it wrote."""
        return sum(one.stat().st_size for one in self.directory.rglob("*") if one.is_file() and not one.name.endswith(".said"))

    def spawn(self, *command: str | Path, pass_fds: tuple[int, ...] = (), env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A process of it, in its group. stdout and stderr are files NAME.out and NAME.said, numbered, so that it never waits for us."""
        self._starts += 1
        words, entry = self.cgroup.inside([str(word) for word in command])
        with self.path(".out").open("wb") as out, self.path(".said").open("wb") as said:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=said, pass_fds=pass_fds, env={**(env or os.environ), **entry}
            )
        self.processes.append(process)
        return process

    def path(self, ending: str) -> Path:
        """A file of the present start."""
        return self.directory / f"{self._starts}{ending}"

    def text(self, ending: str) -> str:
        """What all starts wrote into files with this ending."""
        files = sorted(self.directory.glob(f"*{ending}"))
        return "".join(one.read_text(errors="replace") for one in files)

    def alive(self, process: subprocess.Popen[bytes]) -> None:
        """Raises CannotRun with its own words if it has ended."""
        if process.poll() is not None:
            said = (self.text(".said") + self.text(".out")).strip().splitlines()
            raise CannotRun("; ".join(said[-2:]) or f"it ended with {process.returncode}")

    def end(self, number: int = signal.SIGINT, seconds: float = 5.0) -> None:
        """Asks its processes to end and waits for them; one that does not is killed (extrace waits for ever now and then)."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(number)
        deadline = time.monotonic() + seconds
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def pause(self) -> None:
        """SIGSTOP."""
        self.cgroup.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.cgroup.signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 of all its processes; they are dead on return."""
        self.cgroup.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.processes.clear()
        wait_until(lambda: not self.cgroup.pids(), "the killed processes ending")

    def cpu_s(self) -> float:
        """CPU seconds of its processes and kernel threads until now."""
        return self.cgroup.cpu_s() + (thread_cpu_s(self.kernel_threads) if self.kernel_threads else 0)

    def drain(self) -> None:
        """Waits until it has caught up with what happened, which shows in that it does nothing any more; not for ever."""
        deadline = time.monotonic() + DRAIN_MAX_S
        before, since = self.cpu_s(), time.monotonic()
        while time.monotonic() < deadline:
            select.select([], [], [], SETTLED_S)
            now, at = self.cpu_s(), time.monotonic()
            if now - before < SETTLED_SHARE * (at - since):
                return
            before, since = now, at

    def close(self) -> None:
        """Leaves nothing of it, whatever state it is in."""
        self.resume()
        self.cgroup.close(lambda condition, what: wait_until(condition, what))
        for process in self.processes:
            process.wait()
        self.processes.clear()
