"""The machine that is measured on: its facts, its tools, and a pid range in which no pid is given twice."""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.recorders.recorder import CannotRun, run

PID_MAX = Path("/proc/sys/kernel/pid_max")
PID_MAX_WANTED = 4 * 1024 * 1024
TOOLS = {"auditd": "auditctl", "forkstat": "forkstat", "extrace": "extrace", "bpftrace": "bpftrace", "linux-perf": "perf", "acct": "accton"}
"""Debian's packages, and a program of each."""


@contextlib.contextmanager
def many_pids() -> Iterator[None]:
    """For as long as this lasts pids run to four million, where the kernel allows it."""
    before = PID_MAX.read_text()
    with contextlib.suppress(OSError):
        PID_MAX.write_text(f"{PID_MAX_WANTED}\n")
    try:
        yield
    finally:
        PID_MAX.write_text(before)


def install() -> None:
    """Installs the packages that are missing, if this is a Debian; what cannot be installed shows in the table."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lacking = [package for package, program in TOOLS.items() if not shutil.which(program, path=path)]
    if not lacking or not shutil.which("apt-get"):
        return
    print(f"installing {' '.join(lacking)}", file=sys.stderr)
    # RUNLEVEL=1 keeps invoke-rc.d from starting what was just installed.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for package in lacking:
        subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], env=env, stdout=sys.stderr, check=False)


def version(package: str) -> str:
    """Of the distribution's package, or of this checkout."""
    if package == "tasktrail":
        return "this checkout"
    with contextlib.suppress(CannotRun):
        return run("dpkg-query", "-W", "-f", "${Version}", package)
    return "version unknown"


def facts() -> str:
    """One sentence about the machine."""
    model = "processor unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    system = "unknown distribution"
    with contextlib.suppress(OSError):
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = platform.release().split("-")[0]
    return f"{os.cpu_count()} CPUs ({model}), {memory_gib:.0f} GiB, {system}, Linux {release}, {platform.machine()}"
