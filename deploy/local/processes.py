"""Programs that go on when whoever started them has ended: started, remembered in a file, and ended later.

A pid alone is not enough to end somebody by: it may be another's by then. So the start time is remembered with it, and a signal goes
to a pidfd that was opened before the start time was compared.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
KILL_S = 10.0
"""How long a killed process may take to be gone: the kernel only waits for what it cannot break off."""


class Process(NamedTuple):
    """A program that was started.

    name     what it is called here
    pid      its process id
    started  when, in clock ticks since boot: field 22 of /proc/PID/stat (proc(5))
    boot_id  in which boot
    """

    name: str
    pid: int
    started: int
    boot_id: str


class End(Enum):
    """How a process was ended."""

    STOPPED = "stopped"
    KILLED = "killed, since it did not stop in time"
    GONE = "had ended before"


def start_time(pid: int) -> int:
    """Clock ticks since boot at which the process started; 0 if there is none, or only what is left of it after its end."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def remember(name: str, pid: int) -> Process:
    """The process that has this pid now."""
    return Process(name, pid, start_time(pid), BOOT_ID.read_text().strip())


def start(name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path) -> Process:
    """Start a program that hears no Ctrl-C of ours; what it says goes behind what its log holds."""
    with log.open("ab") as said:
        started = subprocess.Popen(
            command, env=environment, cwd=directory, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    return remember(name, started.pid)


@contextlib.contextmanager
def _opened(process: Process) -> Iterator[int]:
    """A pidfd of that very process, -1 if it is not there any more."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield -1
        return
    try:
        same = process.started and start_time(process.pid) == process.started and BOOT_ID.read_text().strip() == process.boot_id
        yield handle if same else -1
    finally:
        os.close(handle)


def lives(process: Process) -> bool:
    """Whether that very process is there."""
    with _opened(process) as handle:
        return handle >= 0


def end(process: Process, patience_s: float) -> End:
    """Ask it to stop, and kill it when it has not within that time. Returns when it is gone."""
    with _opened(process) as handle:
        if handle < 0:
            return End.GONE
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        # A pidfd can be read from the moment of the end on, whoever the parent is.
        if select.select([handle], [], [], patience_s)[0]:
            return End.STOPPED
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], KILL_S)
        return End.KILLED


class Roll:
    """The file that remembers them, one JSON array each line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Process]:
        """All that were written down, in the order of their starts."""
        try:
            return [Process(*json.loads(line)) for line in self.path.read_text().splitlines()]
        except FileNotFoundError:
            return []

    def write(self, processes: Sequence[Process]) -> None:
        """Replace what is there, in one step."""
        unfinished = self.path.with_name(f".{self.path.name}")
        unfinished.write_text("".join(json.dumps(process) + "\n" for process in processes))
        unfinished.rename(self.path)

    def add(self, process: Process) -> None:
        """Write one down; an older one of that name is forgotten."""
        self.write([*(one for one in self.read() if one.name != process.name), process])
