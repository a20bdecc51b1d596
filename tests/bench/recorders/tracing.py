"""The two that read the scheduler's tracepoints: bpftrace and perf. Both need tracefs."""

import contextlib
import os
import re
import select
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench.recorders.facts import Said, Seen
from tests.bench.recorders.recorder import CannotRun, Recorder, opened, wait_until

TRACEFS = Path("/sys/kernel/tracing")
POINTS = ("sched_process_fork", "sched_process_exec", "sched_process_exit")
SCRIPT = """
tracepoint:sched:sched_process_fork { printf("fork %d %d\\n", args->child_pid, args->parent_pid); }
tracepoint:sched:sched_process_exec { printf("exec %d %s\\n", pid, str(args->filename)); }
tracepoint:sched:sched_process_exit { printf("exit %d %s\\n", args->pid, comm); }
"""
EVENT = re.compile(r"^(fork|exec|exit) (\d+) ")
LOST = re.compile(r"^Lost (\d+) events", re.MULTILINE)
SAMPLE = re.compile(r"sched_process_(fork|exec|exit):.*? (?:child_)?pid=(\d+)(?: |$)")
FORK_SAMPLE = re.compile(r"sched_process_fork:.* child_pid=(\d+)")
PERF_LOST = re.compile(r"PERF_RECORD_LOST(?:_SAMPLES)?:? +lost (\d+)")


@contextlib.contextmanager
def tracefs() -> Iterator[None]:
    """Mounted for as long as this lasts, if the kernel has it."""
    mounted = False
    if TRACEFS.is_dir() and not (TRACEFS / "events").is_dir():
        mounted = not subprocess.run(["mount", "-t", "tracefs", "tracefs", str(TRACEFS)], capture_output=True, check=False).returncode
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", str(TRACEFS)], check=False)


def read_bpftrace(lines: Iterable[str]) -> Seen:
    """Pids in what the script prints."""
    found: dict[str, set[int]] = {"fork": set(), "exec": set(), "exit": set()}
    for line in lines:
        if one := EVENT.match(line):
            found[one[1]].add(int(one[2]))
    return Seen(frozenset(found["fork"]), frozenset(found["exec"]), frozenset(found["exit"]))


def read_perf(lines: Iterable[str]) -> Seen:
    """Pids in what ``perf script`` prints; of a fork the child's."""
    found: dict[str, set[int]] = {"fork": set(), "exec": set(), "exit": set()}
    for line in lines:
        if one := FORK_SAMPLE.search(line) or SAMPLE.search(line):
            found[one[1] if one.re is SAMPLE else "fork"].add(int(one[one.re.groups]))
    return Seen(frozenset(found["fork"]), frozenset(found["exec"]), frozenset(found["exit"]))


class Bpftrace(Recorder):
    """bpftrace with a script of three probes, its output in a file."""

    name = "bpftrace"
    package = "bpftrace"

    def start(self) -> None:
        """Waits until each probe has its event and each CPU its buffer."""
        script = self.directory / "probes.bt"
        script.write_text(SCRIPT)
        process = self.spawn("bpftrace", script)
        wanted = len(POINTS) + (os.cpu_count() or 1)

        def attached() -> bool:
            self.alive(process)
            return opened(process.pid, "anon_inode:[perf_event]") >= wanted

        wait_until(attached, "bpftrace attaching its probes")
        select.select([], [], [], 0.1)

    def finish(self) -> tuple[Seen, Said]:
        """It says how many events found no room in its buffers."""
        self.end()
        text = self.text(".out")
        lost = sum(map(int, LOST.findall(text + self.text(".said"))))
        return read_bpftrace(text.splitlines()), Said(lost)

    def written(self) -> int:
        """Its output."""
        return sum(one.stat().st_size for one in self.directory.glob("*.out"))


class Perf(Recorder):
    """perf record of three tracepoints on all CPUs."""

    name = "perf record"
    package = "linux-perf"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._control: list[int] = []

    def start(self) -> None:
        """Events are off until perf is asked to enable them, and it answers when they are."""
        if not (TRACEFS / "events" / "sched").is_dir():
            raise CannotRun(f"{TRACEFS} has no events/sched")
        control_read, control = os.pipe()
        answer, answer_write = os.pipe()
        self._starts += 1
        data = self.path(".data")
        self._starts -= 1
        events = [word for point in POINTS for word in ("-e", f"sched:{point}")]
        fds = f"fd:{control_read},{answer_write}"
        try:
            process = self.spawn(
                "perf", "record", "-a", *events, "-D", "-1", "--control", fds, "-o", data, pass_fds=(control_read, answer_write)
            )
            os.write(control, b"enable\n")

            def answered() -> bool:
                self.alive(process)
                return bool(select.select([answer], [], [], 0)[0])

            wait_until(answered, "perf enabling its events")
        finally:
            # perf ends its recording when the other end of its control is closed, so that stays open until perf has ended.
            self._control.append(control)
            for fd in (control_read, answer, answer_write):
                os.close(fd)

    def finish(self) -> tuple[Seen, Said]:
        """perf notes in its data how many records were lost, of these events and of the others that it keeps to name processes."""
        self.end()
        text = ""
        for data in sorted(self.directory.glob("*.data")):
            command = ["perf", "script", "--force", "--show-lost-events", "-F", "comm,pid,event,trace", "-i", str(data)]
            text += subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=120, check=False).stdout
        return read_perf(text.splitlines()), Said(sum(map(int, PERF_LOST.findall(text))), "records")

    def close(self) -> None:
        """Lets go of what controlled it, too."""
        super().close()
        while self._control:
            os.close(self._control.pop())

    def written(self) -> int:
        """Its data."""
        return sum(one.stat().st_size for one in self.directory.glob("*.data"))
