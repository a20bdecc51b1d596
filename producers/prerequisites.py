"""What recording needs from the kernel and from whoever starts it, each with the cure when it is missing."""

import os
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path

from schemas.errors import BadInput, Unavailable

_TIME_OFFSETS = Path("/proc/self/timens_offsets")
_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""The inode number is the constant PROC_PID_INIT_INO in the kernel."""


class Capability(IntEnum):
    """What of root's rights the recorder and its readers may need (include/uapi/linux/capability.h, capabilities(7))."""

    SYS_PTRACE = 19
    """to see in /proc/PID/stat which memory the arguments of another user's process lie in: only so does a snapshot have any arguments"""
    SYS_ADMIN = 21
    """before Linux 5.8 the next two were in it, and whoever has it has them still"""
    PERFMON = 38
    """to load programs that read the kernel's memory, and to attach them"""
    BPF = 39
    """to make maps and load programs; before Linux 5.19 also to open what is pinned"""


READING = (Capability.BPF, Capability.SYS_PTRACE)
"""For whoever takes records out of the ring of a loaded recorder, and snapshots of what lives."""
LOADING = (Capability.BPF, Capability.PERFMON, Capability.SYS_PTRACE)
"""For whoever loads the recorder, which ends in a snapshot."""


def held() -> frozenset[Capability]:
    """Of those capabilities the ones that this process has in effect."""
    status = Path("/proc/self/status").read_text()
    bits = int(next(line for line in status.split("\n") if line.startswith("CapEff:")).split()[1], 16)
    return frozenset(one for one in Capability if bits >> one & 1)


def standing_for(needed: Sequence[Capability], has: frozenset[Capability]) -> frozenset[Capability]:
    """Those of ``has`` that give what is needed; fewer than that where something is lacking."""
    implied = {Capability.BPF, Capability.PERFMON} & set(needed) - has
    return has & {*needed, Capability.SYS_ADMIN} if implied else has & set(needed)


def lacking(needed: Sequence[Capability], has: frozenset[Capability]) -> list[str]:
    """Names of those that are needed and that nothing in ``has`` gives."""
    implied = {Capability.BPF, Capability.PERFMON} if Capability.SYS_ADMIN in has else set()
    return [f"CAP_{one.name}" for one in needed if one not in has | implied]


def check_rights(needed: Sequence[Capability] = LOADING, otherwise: str = "") -> None:
    """Raises Unavailable unless this process has these capabilities, in the first pid namespace; ``otherwise`` is added to the cure."""
    if missing := lacking(needed, held()):
        cure = f"run it with sudo, or give it {' '.join(f'CAP_{one.name}' for one in needed)} as docs/privileges.md shows"
        raise Unavailable(f"recording needs {' and '.join(missing)}, which this process does not have", cure + otherwise)
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
