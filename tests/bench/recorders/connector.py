"""The two that listen to the kernel's process connector: forkstat and extrace."""

import re
from collections.abc import Iterable
from pathlib import Path

from tests.bench.recorders.facts import Said, Seen
from tests.bench.recorders.recorder import Recorder, wait_until

CONNECTOR = "11"
FORKSTAT = re.compile(r"^\S+ +(fork|exec|exit) +(\d+) +(\S*)")
EXTRACE = re.compile(r"^ *(\d+)([+-]) ")
VANISHED = re.compile(r"process vanished before notification: pid (\d+)")


def listens(table: str, pid: int) -> bool:
    """Whether the process is subscribed to the connector, from the text of /proc/net/netlink."""
    for line in table.splitlines()[1:]:
        words = line.split()
        if words[1] == CONNECTOR and words[2] == str(pid) and int(words[3], 16) & 1:
            return True
    return False


def read_forkstat(lines: Iterable[str]) -> Seen:
    """Pids in forkstat's table; each fork has a line for the parent and one for the child."""
    found: dict[str, set[int]] = {"fork": set(), "exec": set(), "exit": set()}
    for line in lines:
        if (one := FORKSTAT.match(line)) and (one[1] != "fork" or one[3] == "child"):
            found[one[1]].add(int(one[2]))
    return Seen(frozenset(found["fork"]), frozenset(found["exec"]), frozenset(found["exit"]))


def read_extrace(lines: Iterable[str], said: str) -> Seen:
    """Pids in extrace's trace. An exec of which it knows the pid alone, and says so, counts as seen."""
    found: dict[str, set[int]] = {"+": set(), "-": set()}
    for line in lines:
        if one := EXTRACE.match(line):
            found[one[2]].add(int(one[1]))
    vanished = {int(pid) for pid in VANISHED.findall(said)}
    return Seen(None, frozenset(found["+"] | vanished), frozenset(found["-"]))


class _Listener(Recorder):
    def begin(self, *command: str | Path) -> None:
        """Starts it and waits until the kernel sends to it."""
        process = self.spawn(*command)

        def subscribed() -> bool:
            self.alive(process)
            return listens(Path("/proc/net/netlink").read_text(), process.pid)

        wait_until(subscribed, f"{self.name} subscribing to the process connector")


class Forkstat(_Listener):
    """forkstat with the three kinds of events, its output in a file."""

    name = "forkstat"
    package = "forkstat"

    def start(self) -> None:
        """Begins a further file."""
        self.begin("forkstat", "-e", "fork,exec,exit")

    def finish(self) -> tuple[Seen, Said]:
        """It has no word for what it missed."""
        self.end()
        return read_forkstat(self.text(".out").splitlines()), Said(None, words=self.text(".said").strip()[:200])


class Extrace(_Listener):
    """extrace with exits: of forks it writes nothing."""

    name = "extrace"
    package = "extrace"
    execs_only = True

    def start(self) -> None:
        """Begins a further file."""
        self._starts += 1
        trace = self.path(".trace")
        self._starts -= 1
        self.begin("extrace", "-f", "-t", "-o", trace)

    def finish(self) -> tuple[Seen, Said]:
        """What it could not look up is told one by one, and is no loss; of what never reached it it says nothing."""
        self.end()
        said = self.text(".said")
        nameless = len(VANISHED.findall(said))
        return read_extrace(self.text(".trace").splitlines(), said), Said(None, words=f"{nameless} execs with nothing known but the pid")

    def written(self) -> int:
        """Its trace, and what it says of pids alone."""
        return super().written() + sum(one.stat().st_size for one in self.directory.glob("*.said"))
