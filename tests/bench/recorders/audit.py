"""auditd with rules for fork, exec and exit, as Debian sets it up, and once without waiting for room in the kernel's queue."""

import contextlib
import os
import re
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.bench.recorders.facts import Said, Seen
from tests.bench.recorders.recorder import CannotRun, Recorder, run, wait_until

CONFIGURATION = Path("/etc/audit/auditd.conf")
RULES = Path("/etc/audit/rules.d/audit.rules")
FORKS = ("clone", "clone3", "fork", "vfork")
EXECS = ("execve", "execveat")
EXITS = ("exit", "exit_group")
OFTEN_MISSING = ("fork", "vfork")
"""Newer architectures have no such system calls."""
CALL = re.compile(r"^type=SYSCALL .*?(?: success=(\w+) exit=(-?\d+))? a0=.* ppid=\d+ pid=(\d+) .*\x1d.*?SYSCALL=(\w+)")
ROTATIONS = "999"
"""Debian keeps five logs of 8 MB, which a storm would fill and the rotation remove: kept until they are counted."""


def status() -> dict[str, str]:
    """What ``auditctl -s`` says."""
    lines = [line.split(None, 1) for line in run("auditctl", "-s").splitlines()]
    return {line[0]: line[1] for line in lines if len(line) > 1}


@contextlib.contextmanager
def calm() -> Iterator[None]:
    """For as long as this lasts no process is audited unless a recorder wants it; afterwards the kernel's settings are as before.

    Once audit was on, the kernel prepares every later process for it, rules or not, until the next boot. A rule of type task, never, takes
    this off, so that bare storms are bare.
    """
    try:
        before = status()
        if before["pid"] != "0" or run("auditctl", "-l").strip() != "No rules":
            before = {}
    except CannotRun:
        before = {}
    if not before:
        yield
        return
    run("auditctl", "-a", "never,task")
    try:
        yield
    finally:
        for words in (("-D",), ("-e", before["enabled"]), ("-f", before["failure"]), ("-b", before["backlog_limit"])):
            run("auditctl", *words)
        run("auditctl", "--backlog_wait_time", before["backlog_wait_time"])


def configuration(text: str, directory: Path) -> str:
    """Debian's file but for where the logs lie and how many are kept."""
    changed = {"log_file": str(directory / "log" / "audit.log"), "num_logs": ROTATIONS, "plugin_dir": str(directory / "plugins")}
    lines = []
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        lines.append(f"{key} = {changed[key]}" if key in changed else line)
    return "\n".join(lines) + "\n"


def read_log(lines: Iterable[str]) -> Seen:
    """Pids in SYSCALL records of the enriched format: a fork's child is what its creator's call returned."""
    forks, execs, exits = set(), set(), set()
    for line in lines:
        if not (found := CALL.match(line)):
            continue
        success, returned, pid, call = found.groups()
        if call in FORKS and success == "yes":
            forks.add(int(returned))
        elif call in EXECS and success == "yes":
            execs.add(int(pid))
        elif call in EXITS:
            exits.add(int(pid))
    return Seen(frozenset(forks), frozenset(execs), frozenset(exits))


class Auditd(Recorder):
    """auditd and the kernel's thread that feeds it."""

    name = "auditd"
    package = "auditd"
    kernel_threads = ("kauditd",)
    switch = "auditctl -D"
    waits = True

    def start(self) -> None:
        """Debian's settings, then rules, then the daemon, so that nothing is without it."""
        if (running := status()["pid"]) != "0":
            raise CannotRun(f"an audit daemon runs already (pid {running}); stop it first")
        for name in ("log", "plugins"):
            (self.directory / name).mkdir(exist_ok=True)
        (self.directory / "auditd.conf").write_text(configuration(CONFIGURATION.read_text(), self.directory))
        self.restart()
        for line in RULES.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                run("auditctl", *line.split())
        if not self.waits:
            run("auditctl", "--backlog_wait_time", "0")
        run("auditctl", "--reset-lost")
        for calls in (FORKS, EXECS, EXITS):
            known = [name for name in calls if name not in OFTEN_MISSING or os.uname().machine == "x86_64"]
            run("auditctl", "-a", "always,exit", "-F", "arch=b64", "-S", ",".join(known))

    def restart(self) -> None:
        """The daemon alone: rules stay in the kernel when it dies."""
        process = self.spawn("auditd", "-n", "-c", self.directory)

        def listens() -> bool:
            self.alive(process)
            return status()["pid"] == str(process.pid)

        wait_until(listens, "the kernel taking the audit daemon")

    def off(self) -> None:
        """Deletes all rules."""
        run("auditctl", "-D")

    def finish(self) -> tuple[Seen, Said]:
        """Counts come from the kernel: audit counts records, of which one event has one to six."""
        lost = int(status()["lost"])
        self.end(signal.SIGTERM)
        self._quiet()
        seen = read_log(self._lines())
        return seen, Said(lost, "records")

    def _lines(self) -> Iterator[str]:
        for one in (self.directory / "log").iterdir():
            with one.open(errors="replace") as lines:
                yield from lines

    def written(self) -> int:
        """The logs alone."""
        return sum(one.stat().st_size for one in (self.directory / "log").iterdir())

    def _quiet(self) -> None:
        for words in (("-D",), ("-e", "0"), ("-a", "never,task")):
            with contextlib.suppress(CannotRun):
                run("auditctl", *words)

    def close(self) -> None:
        """No daemon, no rules but the one that keeps bare storms bare."""
        super().close()
        self._quiet()


class AuditdNoWait(Auditd):
    """The same, but what finds the kernel's queue full is dropped instead of waiting."""

    name = "auditd without waiting"
    waits = False
