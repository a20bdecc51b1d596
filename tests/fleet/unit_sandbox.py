"""Runs a command as a systemd unit would let it run, without systemd: what the unit file says is parsed and done to this process.

    python -m tests.fleet.unit_sandbox UNIT [--writable DIR]... -- COMMAND...

Capabilities, no new privileges, system calls, address families, memory that may be written and executed, and a file system that can
only be read but for --writable are the kernel's doing here as there: prctl(2), seccomp(2), mount_setattr(2). So what breaks under the
unit breaks here, and unit and test cannot disagree.
"""

import argparse
import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 24, 38, 65
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = -100, 0x8000, 1
_SYS_MOUNT_SETATTR = 442
_ALLOW, _REFUSE, _EQUAL = 0x7FFF0000, 0x00050000 | errno.EPERM, 4
_WRITABLE_ANYWAY = ("/dev", "/proc", "/sys")
"""What ProtectSystem=strict leaves as it is (systemd.exec(5))."""
_IN_ORDER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN
NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ
PERFMON BPF CHECKPOINT_RESTORE
"""
CAPABILITIES = tuple(_IN_ORDER.split())
"""In the order of their numbers, include/uapi/linux/capability.h."""


class Unit:
    """A unit file. Raises AssertionError for a line that is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, list[str]] = {}
        for line in path.read_text().replace("\\\n", " ").splitlines():
            if line.strip() and not line.startswith(("#", ";", "[")):
                name, equals, value = line.partition("=")
                assert equals, f"{path.name}: {line}"
                self._values.setdefault(name.strip(), []).append(value.strip())

    def all(self, name: str) -> list[str]:
        """Values of a setting, in order."""
        return self._values.get(name, [])

    def one(self, name: str) -> str:
        """The last value of a setting, empty if there is none."""
        return (self.all(name) or [""])[-1]

    def words(self, name: str) -> list[str]:
        """Words of all values of a setting."""
        return [word for value in self.all(name) for word in value.split()]

    @property
    def capabilities(self) -> set[str]:
        """The bounding set: names without CAP_. Everything where the unit does not say."""
        if "CapabilityBoundingSet" not in self._values:
            return set(CAPABILITIES)
        return {word.removeprefix("CAP_") for word in self.words("CapabilityBoundingSet")}

    @property
    def system_calls(self) -> set[str] | None:
        """Those that are allowed, None for all of them."""
        values = self.all("SystemCallFilter")
        if not values:
            return None
        allowed = set(expand("@default"))
        for value in values:
            taken_away = value.startswith("~")
            names = {name for word in value.lstrip("~").split() for name in expand(word)}
            allowed = allowed - names if taken_away else allowed | names
        return allowed


@lru_cache(maxsize=256)
def expand(word: str) -> tuple[str, ...]:
    """System calls that a word of SystemCallFilter means, as systemd itself says."""
    if not word.startswith("@"):
        return (word,)
    told = subprocess.run(["systemd-analyze", "syscall-filter", word], check=True, capture_output=True, text=True).stdout
    words = [line.strip() for line in told.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return tuple(name for inner in words for name in expand(inner))


class _Comparison(ctypes.Structure):
    _fields_ = (("argument", ctypes.c_uint), ("operation", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def _libc(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def read_only_but_for(libc: Any, writable: Iterable[str]) -> None:
    """A mount namespace in which nothing else can be written."""
    _libc(libc.unshare(_CLONE_NEWNS), "unshare")
    _libc(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount private")
    kept = [directory.encode() for directory in writable]
    for directory in kept:
        _libc(libc.mount(directory, directory, None, _MS_BIND | _MS_REC, None), f"bind {directory!r}")
    read_only, writable_again = (ctypes.c_uint64 * 4)(_ATTR_RDONLY), (ctypes.c_uint64 * 4)(0, _ATTR_RDONLY)
    for directory, attributes in ((b"/", read_only), *((each, writable_again) for each in kept)):
        path = ctypes.c_char_p(directory)
        _libc(libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, 32), f"mount_setattr {directory!r}")


def filter_system_calls(allowed: set[str] | None, families: Sequence[str]) -> None:
    """Refuse all other system calls, and sockets of other families, with EPERM."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_ALLOW if allowed is None else _REFUSE)))
    for name in sorted(allowed or ()):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0 and not (name == "socket" and families):
            assert library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 0, None) == 0, name
    for family in families:
        compare = _Comparison(0, _EQUAL, int(getattr(socket, family)), 0)
        number = library.seccomp_syscall_resolve_name(b"socket")
        assert library.seccomp_rule_add_array(context, ctypes.c_uint32(_ALLOW), number, 1, ctypes.byref(compare)) == 0, family
    assert library.seccomp_load(context) == 0


def enter(unit: Unit, writable: Sequence[str]) -> None:
    """Do to this process what the unit says."""
    libc = ctypes.CDLL(None, use_errno=True)
    if unit.one("ProtectSystem") == "strict":
        kept = [*_WRITABLE_ANYWAY, *unit.words("ReadWritePaths"), *writable]
        if unit.one("ProtectKernelTunables") == "yes":
            kept.remove("/sys")
        if unit.one("PrivateTmp") == "yes":  # nobody else's, which matters to others only
            kept += ["/tmp", "/var/tmp"]
        read_only_but_for(libc, kept)
    for number, name in enumerate(CAPABILITIES):
        if name not in unit.capabilities:
            _libc(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"drop {name}")
    if unit.one("DynamicUser") == "yes":
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    if unit.one("NoNewPrivileges") == "yes" or unit.one("DynamicUser") == "yes":
        _libc(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    if unit.one("MemoryDenyWriteExecute") == "yes":
        _libc(libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0), "memory deny write execute")
    filter_system_calls(unit.system_calls, unit.words("RestrictAddressFamilies"))


def main() -> None:
    """Enter and become the command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("unit", type=Path)
    parser.add_argument("--writable", action="append", default=[])
    parser.add_argument("command", nargs="+")
    chosen = parser.parse_args()
    enter(Unit(chosen.unit), chosen.writable)
    os.execvp(chosen.command[0], chosen.command)


if __name__ == "__main__":
    sys.exit(main())
