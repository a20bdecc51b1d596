"""The cage around a child process: no root, no new privileges, no files but its own, no network but its own ports.

All of it is one-way: it is entered by the process that shall be caged and cannot be left. Landlock binds the calling thread and
the threads that it makes later, so it must be entered while the process has one thread.
"""

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System call numbers, the same on every architecture (include/uapi/asm-generic/unistd.h)."""
_RULE_PATH, _RULE_PORT = 1, 2
_VERSION = 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

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


def enter(own: str, readable: Sequence[str], ports: Sequence[int]) -> int:
    """Leave this thread with the directory ``own``, reading of ``readable`` (files or directories) and listening on TCP ``ports``.

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
            for port in ports:
                _syscall(_ADD_RULE, ruleset, _RULE_PORT, struct.pack("=QQ", _BIND, port), 0)
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


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(ctypes.c_int(option), ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _syscall(number: int, *arguments: int | bytes | None, optional: bool = False) -> int:
    """The system call's result. Raises OSError on failure, unless ``optional``: then it is -1."""
    values = [ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value) for value in arguments]
    result = int(_libc().syscall(ctypes.c_long(number), *values))
    if result < 0 and not optional:
        raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} (system call {number})")
    return result
