"""Names of processes that can be read again from the kernel at any time.

A process is ``(host_id, boot_id, tgid, start_ns)``: ``tgid`` is the thread group id in the first pid namespace and ``start_ns``
the group leader's ``task_struct.start_boottime`` in nanoseconds, which ``de_thread()`` hands to a thread that execs, so the name
lives as long as the process does. An image adds ``exec_id`` (``task_struct.self_exec_id``).
"""

import hashlib
import struct
from uuid import UUID, SafeUUID

NIL = UUID(int=0)
"""Stands for a process that is not known; never the name of one."""

TICK_NS = 10_000_000
"""One clock tick of /proc/PID/stat (USER_HZ is 100 in every Linux ABI that Tasktrail runs on)."""

_KEY = struct.Struct("<QQ").pack
_VERSION_8_VARIANT = (0x8 << 76) | (0x2 << 62)
_KEEP = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)


_UNSAFE = SafeUUID.unknown
_set = object.__setattr__


class Name(UUID):
    """A UUID out of the first 16 bytes of a SHA-256, with version 8 and variant set as RFC 9562, section 5.8 says.

    It is one in every respect. Made this way because UUID's own constructor looks for six other ways of being called, for each process.
    """

    __slots__ = ()

    def __init__(self, digest: bytes) -> None:
        _set(self, "int", (int.from_bytes(digest[:16], "big") & _KEEP) | _VERSION_8_VARIANT)
        _set(self, "is_safe", _UNSAFE)

    def __repr__(self) -> str:
        return f"UUID('{self}')"


class Names:
    """Gives names to the processes of one boot of one host."""

    __slots__ = ("_begun",)

    def __init__(self, host_id: UUID, boot_id: UUID) -> None:
        self._begun = hashlib.sha256(host_id.bytes + boot_id.bytes)

    def task_id(self, tgid: int, start_ns: int) -> UUID:
        """As the function of that name."""
        hashing = self._begun.copy()
        hashing.update(_KEY(tgid, start_ns))
        return Name(hashing.digest())


def task_id(host_id: UUID, boot_id: UUID, tgid: int, start_ns: int) -> UUID:
    """The 128-bit name of a process: the same on every reading, before and after any restart.

    SHA-256 over host id and boot id (16 bytes each, big-endian as RFC 9562 lays a UUID out), tgid and start_ns
    (unsigned 64-bit, little-endian), cut to a version 8 UUID.
    """
    return Names(host_id, boot_id).task_id(tgid, start_ns)


def cpid(boot_id: UUID, pid_ns: int, start_ns: int, ns_pid: int) -> UUID:
    """OCSF's Common Process Identifier of a process (github.com/ocsf/common-process-id, section Linux).

    boot_id   /proc/sys/kernel/random/boot_id
    pid_ns    inode number of the process's own pid namespace (/proc/PID/ns/pid)
    start_ns  start_boottime in nanoseconds; the specification takes clock ticks (/proc/PID/stat, field 22)
    ns_pid    the process's tgid inside that namespace (/proc/PID/status, last of NStgid)
    """
    return Name(hashlib.sha256(boot_id.bytes + struct.pack("<QQq", pid_ns, start_ns // TICK_NS, ns_pid)).digest())
