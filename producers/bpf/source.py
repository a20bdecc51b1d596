"""The C text of the kernel programs made ready for this kernel.

Offsets come from its BTF, limits and numbers from schemas/, map descriptors from the loader.
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from producers.bpf.btf import Btf
from schemas import events, limits
from schemas.errors import Unavailable

PARTS = ("records", "facts", "image", "task", "seen")
"""Files that make up the text, in this order: NAME.bpf.c beside this module."""

ARGV_SHORT_BYTES = 128
"""Argument bytes kept of one exec while the ring is more than half full (flag ARGV_SHORT, counter SHORT_ARGV)."""
THREADS_MAX = 64
"""Living threads whose CPU time is added up at exit; more sets THREADS_CUT."""
LAST_EXIT_SLOTS = 4096
"""Slots that remember the latest exit, by tgid."""
WORK_BYTES = 24
"""struct work, before the record that grows in per-CPU memory."""
TAIL_BUFFER_BYTES = 16384
EXEC_WORK_BYTES = WORK_BYTES + events.EXEC.size + TAIL_BUFFER_BYTES
SEEN_WORK_BYTES = WORK_BYTES + 8 + events.SEEN.size + TAIL_BUFFER_BYTES

TRACEPOINTS = {
    "fork": ("on_fork", "task_newtask"),
    "exec": ("on_exec", "sched_process_exec"),
    "exit": ("on_exit", "sched_process_exit"),
    "rename": ("on_rename", "task_rename"),
}
"""Short name → function in the C text and the raw tracepoint that runs it."""


class Counter(IntEnum):
    """Index of each drop counter in the per-CPU array."""

    LOST_FORK = 0
    LOST_EXEC = 1
    LOST_EXIT = 2
    DROPPED_RENAME = 3
    SHORT_ARGV = 4
    ONCE_FULL = 5


class SpareCount(IntEnum):
    """Index of each number in the per-CPU array of the spare copies (producers/spares.py)."""

    SAVED_FORK = 0
    """records that the first copy would have sent, had the kernel run it"""
    SAVED_EXEC = 1
    SAVED_EXIT = 2
    SAVED_RENAME = 3
    UNSURE_FORK = 4
    """events of which nothing tells whether the first copy had them"""
    UNSURE_EXEC = 5
    UNSURE_EXIT = 6
    UNSURE_RENAME = 7


class Settings(NamedTuple):
    """What a person may choose about the programs.

    ring_bytes  size of the ring: a power of two, at least one page
    argv_bytes  argument bytes kept of one exec; 0 records none
    processes   living processes that the once map has room for
    """

    ring_bytes: int = limits.RING_BYTES_DEFAULT
    argv_bytes: int = limits.ARGV_BYTES_MAX
    processes: int = 65536


_OFFSET = re.compile(r"\bOFFSET\((\w+), ([\w.]+)\)")
_SIZEOF = re.compile(r"\bSIZEOF\((\w+)\)")
_BITFIELD = re.compile(r"\bBITFIELD\((\w+), (\w+)\)")


_OPTIONAL = {("task_struct", "loginuid.val"), ("task_struct", "sessionid")}
"""Members that the text names only inside a branch for kernels that have them."""


def read_text() -> str:
    """The C text as it was written."""
    return "\n".join(Path(__file__).with_name(f"{part}.bpf.c").read_text() for part in PARTS)


def _optional(btf: Btf) -> dict[str, int]:
    """What not every kernel has, and the recorder can do without."""
    audit = all(btf.member(*member) is not None for member in _OPTIONAL)
    return {"HAVE_AUDIT": int(audit), "HAVE_GROUP_DEAD": int((btf.arguments("sched_process_exit") or 0) > 1)}


def macros(settings: Settings, optional: Mapping[str, int]) -> dict[str, int]:
    """Every number that the C text takes from elsewhere, but for descriptors and epoch."""
    values = {f"KIND_{kind.name}": int(kind) for kind in events.Kind}
    values |= {f"{kind.name}_BYTES": layout.size for kind, (layout, _) in events.LAYOUT.items()}
    values |= {f"FLAG_{flag.name}": int(flag) for flag in events.Flag}
    values |= {f"COUNT_{counter.name}": int(counter) for counter in Counter}
    values |= {count.name: int(count) for count in SpareCount}
    values |= optional
    values |= {
        "RECORD_VERSION": events.RECORD_VERSION,
        "COMM_BYTES": limits.COMM_BYTES,
        "FILENAME_BYTES_MAX": limits.FILENAME_BYTES_MAX,
        "NAME_BYTES_MAX": limits.NAME_BYTES_MAX,
        "TAIL_BYTES_MAX": limits.RECORD_TAIL_BYTES_MAX,
        "PATH_COMPONENTS_MAX": limits.PATH_COMPONENTS_MAX,
        "ARGV_BYTES": settings.argv_bytes,
        "ARGV_SHORT_BYTES": ARGV_SHORT_BYTES,
        "RING_BYTES": settings.ring_bytes,
        "THREADS_MAX": THREADS_MAX,
        "LAST_EXIT_SLOTS": LAST_EXIT_SLOTS,
        "EXEC_WORK_BYTES": EXEC_WORK_BYTES,
        "SEEN_WORK_BYTES": SEEN_WORK_BYTES,
        "PAGE_BYTES": os.sysconf("SC_PAGE_SIZE"),
    }
    return values


def fill(text: str, btf: Btf) -> str:
    """The text with every OFFSET, SIZEOF and BITFIELD replaced by its number.

    Raises Unavailable naming all that this kernel lacks.
    """
    lacking: list[str] = []

    def offset(match: re.Match[str]) -> str:
        found = btf.member(match[1], match[2])
        if found is None or found.bits or found.bit % 8:
            if (match[1], match[2]) not in _OPTIONAL:
                lacking.append(f"{match[1]}.{match[2]}")
            return "0"
        return str(found.bit // 8)

    def size(match: re.Match[str]) -> str:
        found = btf.size(match[1])
        if found is None:
            lacking.append(f"struct {match[1]}")
        return str(found or 0)

    def bit_field(match: re.Match[str]) -> str:
        found = btf.flag(match[1], match[2])
        if found is None:
            lacking.append(f"{match[1]}.{match[2]}")
            return "0, 0"
        return f"{found[0]}, {found[1]}"

    text = _BITFIELD.sub(bit_field, _SIZEOF.sub(size, _OFFSET.sub(offset, text)))
    lacking += [f"tracepoint {name}" for _, name in TRACEPOINTS.values() if btf.arguments(name) is None]
    parent, name = btf.member("dentry", "d_parent"), btf.member("dentry", "d_name.name")
    if parent is None or name is None or name.bit - parent.bit != 128:
        lacking.append("dentry.d_name right after d_parent")
    if lacking:
        raise Unavailable("this kernel lacks " + ", ".join(sorted(set(lacking))), "use Linux 5.10 or later, or update Tasktrail")
    return text


class Program(NamedTuple):
    """The text as it is compiled, but for descriptors and epoch.

    text   C with ``#define`` lines for every number from elsewhere
    hash   first 8 bytes of its SHA-256: the same text loaded again changes nothing
    types  function at a tracepoint → BTF id of that tracepoint, which gives its arguments types for the verifier
    spare  whether second copies are to be attached, since this kernel may skip the first (producers/spares.py)
    """

    text: str
    hash: int
    types: Mapping[str, int]
    spare: bool = False


def may_be_preempted(release: str) -> bool:
    """Whether a kernel of this release may preempt programs at tracepoints.

    "tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast" let it from Linux 7.0 on. Nothing that a program can read
    without rights tells so; where it is wrongly believed, a copy is attached that finds all done.
    """
    return int(release.split(".")[0]) >= 7


def generate(btf: Btf, settings: Settings) -> Program:
    """The programs for this kernel and these settings. Raises Unavailable naming all that the kernel lacks."""
    defines = "".join(f"#define {name} {value}\n" for name, value in sorted(macros(settings, _optional(btf)).items()))
    text = defines + fill(read_text(), btf)
    types = {function: type_id for function, name in TRACEPOINTS.values() if (type_id := btf.tracepoint(name)) is not None}
    number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    return Program(text, number, types, may_be_preempted(platform.release()))


def with_maps(program: Program, descriptors: Mapping[str, int], epoch: int) -> str:
    """The text with the maps' descriptors (``RING_FD`` and so on) and the epoch put in: what bcc compiles."""
    return "".join(f"#define {name} {value}\n" for name, value in {**descriptors, "EPOCH": epoch}.items()) + program.text
