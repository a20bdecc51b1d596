"""A control group for one recorder: what its processes use together, and a cap on them. Version 1 and version 2."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

PERIOD_US = 100_000
_ENTER = 'for file in $TASKTRAIL_BENCH_CGROUPS; do echo $$ > "$file"; done; unset TASKTRAIL_BENCH_CGROUPS; exec "$@"'


def controllers(mounts: str) -> dict[str, tuple[Path, int]]:
    """Where ``cpu`` and ``cpuacct`` are kept and in which version of control groups, from the text of /proc/mounts."""
    found: dict[str, tuple[Path, int]] = {}
    unified = None
    for line in mounts.splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup":
            for name in {"cpu", "cpuacct"} & set(options.split(",")):
                found[name] = (Path(where), 1)
        elif kind == "cgroup2":
            unified = Path(where)
    if "cpu" not in found and unified:
        found = {"cpu": (unified, 2), "cpuacct": (unified, 2)}
    return found


class Cgroup:
    """One group, gone after ``close`` with all that was in it."""

    def __init__(self, name: str) -> None:
        found = controllers(Path("/proc/mounts").read_text())
        assert found, "no cpu control group is mounted"
        (cpu, self._version), (account, _) = found["cpu"], found["cpuacct"]
        self._cpu, self._account = cpu / name, account / name
        if self._version == 2 and "cpu" not in (cpu / "cgroup.subtree_control").read_text().split():
            (cpu / "cgroup.subtree_control").write_text("+cpu")
        for directory in {self._cpu, self._account}:
            directory.mkdir(exist_ok=True)

    def inside(self, command: list[str]) -> tuple[list[str], dict[str, str]]:
        """The command and environment that begin in the group and become ``command``."""
        files = " ".join(str(one / "cgroup.procs") for one in {self._cpu, self._account})
        return ["/bin/sh", "-c", _ENTER, "sh", *command], {"TASKTRAIL_BENCH_CGROUPS": files}

    def pids(self) -> list[int]:
        """All processes in it."""
        return [int(line) for line in (self._cpu / "cgroup.procs").read_text().split()]

    def cpu_s(self) -> float:
        """CPU seconds of all that ever was in it, the ended ones included."""
        if self._version == 1:
            return int((self._account / "cpuacct.usage").read_text()) / 1e9
        stat = dict(line.split() for line in (self._cpu / "cpu.stat").read_text().splitlines())
        return int(stat["usage_usec"]) / 1e6

    def cap(self, cores: float | None) -> None:
        """At most this many cores from now on; None lifts it."""
        quota = None if cores is None else int(cores * PERIOD_US)
        if self._version == 1:
            (self._cpu / "cpu.cfs_quota_us").write_text(str(quota or -1))
        else:
            (self._cpu / "cpu.max").write_text(f"{quota or 'max'} {PERIOD_US}")

    def signal(self, number: int) -> None:
        """Sends it to every process in the group."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def close(self, wait: Callable[[Callable[[], bool], str], bool]) -> None:
        """Kills what is in it and removes it."""
        if not self._cpu.is_dir():
            return
        self.cap(None)

        def empty() -> bool:
            self.signal(signal.SIGKILL)
            return not self.pids()

        wait(empty, "the group's processes ending")
        for directory in {self._cpu, self._account}:
            wait(lambda one=directory: _removed(one), f"{directory} going")  # type: ignore[misc]


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
