"""What recording needs from the kernel and from whoever starts it, each with the cure when it is missing."""

import os
from pathlib import Path

from schemas.errors import BadInput, Unavailable

_TIME_OFFSETS = Path("/proc/self/timens_offsets")
_CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 21, 38, 39
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The inode number is the constant PROC_PID_INIT_INO in the kernel."""


def check_rights() -> None:
    """Raises Unavailable unless this process may use bpf(2) for tracing, in the first pid namespace."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(next(line for line in status.split("\n") if line.startswith("CapEff:")).split()[1], 16)
    may = capabilities >> _CAP_SYS_ADMIN & 1 or (capabilities >> _CAP_BPF & 1 and capabilities >> _CAP_PERFMON & 1)
    if not may:
        raise Unavailable("recording needs root, or the capabilities CAP_BPF and CAP_PERFMON", "run it with sudo")
    if os.readlink("/proc/self/ns/pid") != _FIRST_PID_NAMESPACE:
        raise Unavailable("this process is in a pid namespace of its own", "run on the host, or the container with --pid=host")
    check_clock()


def check_clock() -> None:
    """Raises Unavailable where a time namespace shifts CLOCK_BOOTTIME and /proc: the kernel's records are not (time_namespaces(7))."""
    try:
        offsets = dict(line.split(maxsplit=1) for line in _TIME_OFFSETS.read_text().splitlines())
    except FileNotFoundError:
        return  # a kernel without time namespaces
    if any(int(number) for number in offsets["boottime"].split()):
        raise Unavailable("this process is in a time namespace that shifts the time since boot", "run on the host")


def check_bpf_file_system(directory: Path) -> None:
    """Raises Unavailable unless ``directory`` lies in a bpf file system, BadInput when its name cannot be one there."""
    if "." in directory.name or not directory.is_absolute():
        raise BadInput(f"{directory} cannot hold pins", "give an absolute path whose last name has no dot")
    if file_system_of(directory.parent) != "bpf":
        raise Unavailable(f"{directory.parent} is not in a bpf file system", "run `mount -t bpf bpf /sys/fs/bpf`")


def file_system_of(path: Path) -> str:
    """Type of the file system that the path lies in, by /proc/self/mountinfo."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().split("\n"):
        fields, _, rest = line.partition(" - ")
        if not rest:
            continue
        point = fields.split()[4].encode().decode("unicode_escape")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, rest.split()[0]
    return kind
