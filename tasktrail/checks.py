"""What recording and reading need of a host, each checked alone and with the command that mends it."""

import ctypes
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from producers.prerequisites import LOADING, Capability, held, lacking
from schemas.errors import TasktrailError
from tasktrail.settings import Settings
from tasktrail.status_facts import is_alive, read_run

KERNEL_MIN = (5, 10)
"""Oldest kernel that the recorder was run on; ring buffers and task iterators came with 5.8."""
FREE_BYTES_MIN = 1 << 30
_TIME_ERROR = 5
_TIMEX_BYTES = 512
"""More than struct timex is on any architecture."""


class Grade(Enum):
    """How a check went."""

    OK = "ok"
    NOTE = "note"
    """not as it should be, but nothing fails because of it, or it only has to be started"""
    MISSING = "missing"


class Finding(NamedTuple):
    """One check: what was looked at, how it went, what was found, and the command that mends it (empty if ok)."""

    name: str
    grade: Grade
    says: str
    cure: str = ""


class Machine(NamedTuple):
    """What the checks look at; tests give another one.

    root          of the file tree
    held          capabilities that this process has
    release       uname -r
    module        where a Python module's files are, None if it is not installed
    free_bytes    room at a path
    clock_synced  whether the kernel believes its clock
    now_s         wall clock
    """

    root: Path
    held: frozenset[Capability]
    release: str
    module: Callable[[str], Path | None]
    free_bytes: Callable[[Path], int]
    clock_synced: bool
    now_s: float

    def path(self, name: str) -> Path:
        """The file of that absolute name."""
        return self.root / name.lstrip("/")


def this_machine() -> Machine:
    """The machine that we run on."""
    return Machine(Path("/"), held(), os.uname().release, _module, _free_bytes, _clock_synced(), time.time())


def _module(name: str) -> Path | None:
    """Where a module lies, without importing it."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else None


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(path).free


def _clock_synced() -> bool:
    """adjtimex(2) says TIME_ERROR while nothing keeps the clock right."""
    state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return state != _TIME_ERROR


def rights(machine: Machine, settings: Settings) -> Finding:
    """Root has all that loading the recorder and reading its ring take; of another user's process it is capabilities."""
    missing = lacking(LOADING, machine.held)
    if not missing:
        return Finding("rights", Grade.OK, "all that recording needs")
    return Finding("rights", Grade.MISSING, f"no {', no '.join(missing)}: recording needs them, reading does not", "sudo tasktrail doctor")


def kernel(machine: Machine, settings: Settings) -> Finding:
    """The version."""
    found = re.match(r"(\d+)\.(\d+)", machine.release)
    if found and (int(found[1]), int(found[2])) >= KERNEL_MIN:
        return Finding("kernel", Grade.OK, machine.release)
    wanted = ".".join(map(str, KERNEL_MIN))
    return Finding("kernel", Grade.MISSING, f"{machine.release} is older than {wanted}", "apt-get install linux-image-amd64 && reboot")


_NEEDED = {b"bpf_ringbuf": "ring buffers", b"bpf_iter__task": "task iterators", b"btf_trace_sched_process_exec": "raw tracepoints"}


def btf(machine: Machine, settings: Settings) -> Finding:
    """Type information, from which the recorder takes every offset; and by it, what the kernel can do."""
    try:
        data = machine.path("/sys/kernel/btf/vmlinux").read_bytes()
    except OSError:
        return Finding("btf", Grade.MISSING, "/sys/kernel/btf/vmlinux is not there", "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y")
    lacking = [word for name, word in _NEEDED.items() if b"\0" + name + b"\0" not in data]
    if lacking:
        return Finding(
            "btf", Grade.MISSING, f"the kernel has no {', no '.join(lacking)}", "boot a kernel with CONFIG_BPF_SYSCALL=y, 5.10 or newer"
        )
    return Finding("btf", Grade.OK, f"{len(data) >> 10} KiB; ring buffers, task iterators, raw tracepoints")


def lockdown(machine: Machine, settings: Settings) -> Finding:
    """Kernel lockdown in confidentiality mode forbids BPF to read kernel memory."""
    try:
        mode = machine.path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return Finding("lockdown", Grade.OK, "none")
    if "[confidentiality]" in mode:
        return Finding("lockdown", Grade.MISSING, "confidentiality mode forbids it", "boot with lockdown=integrity or without lockdown=")
    return Finding("lockdown", Grade.OK, mode.strip())


def bpffs(machine: Machine, settings: Settings) -> Finding:
    """Where programs are pinned so that they outlive whoever loaded them."""
    try:
        mounts = machine.path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        mounts = []
    places = [fields[1] for fields in map(str.split, mounts) if len(fields) > 2 and fields[2] == "bpf"]
    for place in places:
        if settings.pin_dir.startswith(place.rstrip("/") + "/"):
            return Finding("bpffs", Grade.OK, f"mounted on {place}")
    place = str(Path(settings.pin_dir).parent)
    return Finding("bpffs", Grade.MISSING, f"no bpf file system holds {settings.pin_dir}", f"mount -t bpf bpf {place}")


def bcc(machine: Machine, settings: Settings) -> Finding:
    """The compiler of the recorder's programs."""
    place = machine.module("bcc")
    if place is None:
        return Finding("bcc", Grade.MISSING, "python3-bpfcc is not installed", "apt-get install python3-bpfcc")
    if not (place / "libbcc.py").exists():
        return Finding("bcc", Grade.MISSING, f"{place} is another package of that name", "pip uninstall bcc; apt-get install python3-bpfcc")
    return Finding("bcc", Grade.OK, str(place))


_PACKAGES = {"clickhouse_driver": "read", "rich": "read", "chdb": "store"}


def packages(machine: Machine, settings: Settings) -> Finding:
    """What the store and the reading commands need."""
    wanted = [name for name in _PACKAGES if name != "chdb" or "://" not in settings.store]
    lacking = [name for name in wanted if machine.module(name) is None]
    if not lacking:
        return Finding("packages", Grade.OK, ", ".join(wanted))
    extra = "store" if "chdb" in lacking else "read"
    return Finding("packages", Grade.MISSING, f"not installed: {', '.join(lacking)}", f"pip install 'tasktrail[{extra}]'")


def directory(machine: Machine, settings: Settings) -> Finding:
    """The store's directory: there, ours, and with room."""
    if "://" in settings.store:
        return Finding("store", Grade.OK, "another server")
    place = machine.path(settings.store)
    there = place
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "store", Grade.MISSING, f"{there} cannot be written", f"mkdir -p {settings.store} && chown root {settings.store}, or --store"
        )
    free = machine.free_bytes(there)
    if free < FREE_BYTES_MIN:
        return Finding(
            "store",
            Grade.MISSING,
            f"{free >> 20} MiB free on {there}, fewer than {FREE_BYTES_MIN >> 20}",
            "make room, or name another directory with --store",
        )
    return Finding("store", Grade.OK, f"{settings.store}{'' if place.exists() else ' (to be made)'}, {free >> 30} GiB free")


def server(machine: Machine, settings: Settings) -> Finding:
    """Another server as the store answers and has our tables."""
    if "://" not in settings.store:
        return Finding("server", Grade.OK, "embedded, started by run or by a reading command")
    try:
        from store.opening import check
    except ImportError as lacking:
        return Finding("server", Grade.MISSING, str(lacking), "pip install 'tasktrail[read]'")
    problem: TasktrailError | None = check(settings.store)
    if problem is None:
        return Finding("server", Grade.OK, "answers, tables are there")
    return Finding("server", Grade.MISSING, problem.problem, problem.cure or f"tasktrail store init --store {settings.store}")


def recorder(machine: Machine, settings: Settings) -> Finding:
    """The pinned programs."""
    place = machine.path(settings.pin_dir)
    try:
        names = sorted(os.listdir(place))
    except PermissionError:
        return Finding("recorder", Grade.NOTE, f"{settings.pin_dir} can only be seen by root", "sudo tasktrail doctor")
    except OSError:
        names = []
    if names:
        return Finding("recorder", Grade.OK, f"{len(names)} pins in {settings.pin_dir}")
    return Finding("recorder", Grade.NOTE, "not loaded", "tasktrail record load, or tasktrail run, which does it too")


def run(machine: Machine, settings: Settings) -> Finding:
    """Somebody stores what the kernel records."""
    said = read_run(machine.path(settings.store if "://" not in settings.store else settings.state_dir))
    if is_alive(said, machine.now_s, machine.path("/proc")):
        return Finding("run", Grade.OK, f"pid {said.get('pid')}")
    return Finding("run", Grade.NOTE, "not there: nothing is stored now", "tasktrail run")


def clock(machine: Machine, settings: Settings) -> Finding:
    """Wall times in the store are only as good as the clock; order does not need it."""
    if machine.clock_synced:
        return Finding("clock", Grade.OK, "kept by NTP or the like")
    return Finding("clock", Grade.NOTE, "nothing keeps the clock right: times shown may be off", "apt-get install systemd-timesyncd")


CHECKS = (rights, kernel, btf, lockdown, bpffs, bcc, packages, directory, server, recorder, run, clock)


def look(machine: Machine, settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which they matter."""
    for check in CHECKS:
        yield check(machine, settings)
