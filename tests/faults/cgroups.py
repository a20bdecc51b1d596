"""Control groups for tests, version 1 and version 2: a group of our own with one limit."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.running import wait_until

PERIOD_US = 100_000
_FILES = {
    ("cpu", 1): "cpu.cfs_quota_us",
    ("cpu", 2): "cpu.max",
    ("memory", 1): "memory.limit_in_bytes",
    ("memory", 2): "memory.max",
    ("pids", 1): "pids.max",
    ("pids", 2): "pids.max",
}


def mounted(controller: str) -> tuple[Path, int]:
    """Where the controller's groups are, and in which version; fails loudly where there are none."""
    unified = None
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and controller in options.split(","):
            return Path(where), 1
        if kind == "cgroup2":
            unified = Path(where)
    assert unified is not None and controller in (unified / "cgroup.controllers").read_text(), f"no control groups for {controller} here"
    (unified / "cgroup.subtree_control").write_text(f"+{controller}")
    return unified, 2


@contextlib.contextmanager
def cgroup(controller: str, limit: int) -> Iterator[Path]:
    """A group whose members together get at most ``limit``: thousandths of a processor (cpu), bytes (memory) or processes (pids).

    Gives the file that takes in a process whose pid is written to it. All members must have ended, or left, at the end.
    """
    root, version = mounted(controller)
    group = root / f"tasktrail-fault-{os.getpid()}-{controller}"
    group.mkdir()
    try:
        value = str(limit)
        if controller == "cpu":
            quota_us = limit * PERIOD_US // 1000
            value = str(quota_us) if version == 1 else f"{quota_us} {PERIOD_US}"
        (group / _FILES[controller, version]).write_text(value)
        yield group / "cgroup.procs"
    finally:
        members = group / "cgroup.procs"
        for pid in members.read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        wait_until(lambda: not members.read_text(), "the group being empty")
        group.rmdir()
