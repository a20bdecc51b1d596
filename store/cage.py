"""The cage around a child process: no root, no new privileges, no files but its own, no network but its own ports.

All of it is one-way: it is entered by the process that shall be caged and cannot be left. Landlock binds the calling thread and
the threads that it makes later, so it must be entered while the process has one thread.
"""

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Collection, Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, the same on every architecture (include/uapi/asm-generic/unistd.h)."""
_RULE_PATH, _RULE_PORT = 1, 2
_VERSION = 1
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 24, 38, 47
_AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 2, 4
_CAPABILITY_VERSION = 0x20080522
"""_LINUX_CAPABILITY_VERSION_3: two words each of effective, permitted and inheritable ones."""

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15
_FIRST = (1 << 13) - 1
"""All access rights of Landlock's first version; later ones add (include/uapi/linux/landlock.h)."""
_BIND, _CONNECT = 1 << 0, 1 << 1
_SCOPES = 3
"""Abstract UNIX sockets and signals to processes outside."""


def drop_privileges(uid: int, gid: int) -> None:
    """Become this user and group for good, with no supplementary groups. Needs root."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def keep_capabilities(kept: Collection[int]) -> None:
    """Give up all capabilities but these for good: this thread, the threads that it makes, and the programs that it runs.

    What of them is there is kept for programs that are run, too. Set-user-id programs give no rights any more (no_new_privs).
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if os.geteuid() == 0:
        for one in set(range(last + 1)) - set(kept):
            with contextlib.suppress(OSError):  # without CAP_SETPCAP what bounds us stays; nothing new can come from it
                _prctl(_PR_CAPBSET_DROP, one)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    words = ctypes.create_string_buffer(24)
    if _libc().capget(header, words):
        raise OSError(ctypes.get_errno(), "capget")
    _, low, _, _, high, _ = struct.unpack("=6I", words.raw)
    bits = (low | high << 32) & sum(1 << one for one in kept)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    if _libc().capset(header, struct.pack("=6I", low, low, low, high, high, high)):
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for one in kept if os.geteuid() else ():  # root's programs have them without
        if bits >> one & 1:
            _prctl(_PR_CAP_AMBIENT, _AMBIENT_RAISE, one)


def end_with_parent(parent: int) -> None:
    """Be killed when the thread of process ``parent`` that made this process ends; at once if it has already.

    To be called after drop_privileges: a change of user takes the wish back (prctl(2), PR_SET_PDEATHSIG).
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def limit() -> None:
    """No core dumps (they would hold rows and go who knows where), and as many open files as are allowed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def enter(own: str, readable: Sequence[str], ports: Sequence[int], peers: Sequence[int] = ()) -> int:
    """Leave this thread with the directory ``own``, reading of ``readable`` (files or directories), listening on TCP ``ports``, and
    connecting to TCP ports ``peers``.

    Returns Landlock's version in this kernel, 0 where it has none (then only no_new_privs is set): files from version 1 (Linux
    5.13), TCP from 4 (6.7), signals and abstract sockets from 6 (6.12). Raises OSError when the kernel refuses what it says it can.
    """
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    version = _syscall(_CREATE_RULESET, None, 0, _VERSION, optional=True)
    if version < 1:
        return 0
    rights = _FIRST | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_IOCTL if version >= 5 else 0)
    ruleset = _ruleset(version, rights)
    try:
        _allow(ruleset, own, rights)
        for path in readable:
            if os.path.exists(path):
                _allow(ruleset, path, _READ_FILE | _READ_DIR)
        if version >= 4:
            for right, allowed in ((_BIND, ports), (_CONNECT, peers)):
                for port in allowed:
                    _syscall(_ADD_RULE, ruleset, _RULE_PORT, struct.pack("=QQ", right, port), 0)
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _ruleset(version: int, rights: int) -> int:
    """A rule set that forbids all that this version can forbid."""
    words = [rights]
    if version >= 4:
        words.append(_BIND | _CONNECT)
    if version >= 6:
        words.append(_SCOPES)
    attributes = struct.pack(f"={len(words)}Q", *words)
    return _syscall(_CREATE_RULESET, attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Allow these rights below the path; of a file, those that files have."""
    handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
        _syscall(_ADD_RULE, ruleset, _RULE_PATH, struct.pack("=Qi", rights, handle), 0)
    finally:
        os.close(handle)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, third: int = 0) -> None:
    if _libc().prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _syscall(number: int, *arguments: int | bytes | None, optional: bool = False) -> int:
    """The system call's result. Raises OSError on failure, unless ``optional``: then it is -1."""
    values = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *values))
    if result < 0 and not optional:
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} (system call {number})")
    return result
