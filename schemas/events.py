"""Task events as the kernel programs write them: the bytes of each record, and the values read from them.

All numbers are little-endian and unsigned. Offsets below count from the record's first byte; docs/wire-format.md is generated
from this module. The C side is producers/bpf/task.bpf.c, and a test holds both to the same layout.

Every record begins with the same 48 bytes (``HEAD``); ``start_ns`` and ``tgid`` name the process that the record is about.
Times are CLOCK_BOOTTIME nanoseconds. Times are not the order: the ring's positions are.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from schemas.errors import DecodeError
from schemas.flags import Flag as Flag

RECORD_VERSION = 1

PROBE_COMM = b"tt:"
"""A RENAME to a comm that begins so, by the process that ran the latest MARK, is the reader's self-probe and no news."""


class Kind(IntEnum):
    """What a record tells."""

    FORK = 1
    EXEC = 2
    EXIT = 3
    RENAME = 4
    MARK = 5
    SEEN = 6
    USER = 7


class Mark(IntEnum):
    """What a MARK record tells; ``values`` of each are named beside it."""

    CLOCK = 1
    """boottime_ns, realtime_ns, skipped, lost_fork, lost_exec, lost_exit, dropped_rename, short_argv: counts since the ring was made."""
    SNAPSHOT_BEGIN = 2
    """snapshot_id"""
    SNAPSHOT_END = 3
    """snapshot_id"""
    ATTACHED = 4
    """handover (1: the programs of the version before were still attached, nothing was missed; 0: nobody recorded until now)"""
    LINKS_LOST = 5
    """last_good_ns: the latest boottime at which the programs were known to be attached"""


class Fork(NamedTuple):
    """A process was created (threads give no record). Source: raw tracepoint task_newtask, run by the creator."""

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    creator_start_ns: int
    creator_exec_id: int
    real_parent_start_ns: int
    parent_exec_id: int
    cgroup_id: int
    clone_flags: int
    creator_tgid: int
    real_parent_tgid: int
    creator_tid: int
    uid: int
    gid: int
    euid: int
    egid: int
    loginuid: int
    session: int
    pid_ns: int
    ns_pid: int
    mnt_ns: int
    comm: bytes


class Exec(NamedTuple):
    """A process replaced its program image. Source: raw tracepoint sched_process_exec, run by the process after its exec succeeded.

    Paths are what readlink of /proc/PID/exe and /proc/PID/cwd gives in the first mount namespace's view, " (deleted)" included.
    """

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    parent_exec_id: int
    cgroup_id: int
    exe_inode: int
    real_parent_start_ns: int
    real_parent_tgid: int
    exe_dev: int
    exe_generation: int
    tid: int
    uid: int
    gid: int
    euid: int
    egid: int
    loginuid: int
    session: int
    tty_nr: int
    pid_ns: int
    ns_pid: int
    mnt_ns: int
    user_ns: int
    argc: int
    argv_bytes: int
    comm: bytes
    argv: tuple[bytes, ...]
    filename: bytes
    interp: bytes
    exe: bytes
    cwd: bytes
    cgroup: bytes
    tty: bytes


class Exit(NamedTuple):
    """The last thread of a process ended. Source: raw tracepoint sched_process_exit."""

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    utime_ns: int
    stime_ns: int
    real_parent_start_ns: int
    max_rss_kib: int
    parent_exec_id: int
    real_parent_tgid: int
    status: int
    tid: int
    threads: int
    comm: bytes


class Rename(NamedTuple):
    """A process's main thread got another comm, outside of exec. Source: raw tracepoint task_rename."""

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    tid: int
    old_comm: bytes
    comm: bytes


class MarkRecord(NamedTuple):
    """A remark that the recorder itself put into the ring, in order with all else; tgid and start_ns name who did.

    Source: BPF_PROG_TEST_RUN of a program that is attached to nothing.
    """

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    mark: int
    values: tuple[int, ...]


class Seen(NamedTuple):
    """A process that lived when a snapshot was taken. Source: BPF task iterator; argv from /proc/PID/cmdline.

    The fields of Exec, then the creator where the kernel-side map knows it (flag CREATOR_KNOWN), else zeros.
    """

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    parent_exec_id: int
    cgroup_id: int
    exe_inode: int
    real_parent_start_ns: int
    real_parent_tgid: int
    exe_dev: int
    exe_generation: int
    tid: int
    uid: int
    gid: int
    euid: int
    egid: int
    loginuid: int
    session: int
    tty_nr: int
    pid_ns: int
    ns_pid: int
    mnt_ns: int
    user_ns: int
    argc: int
    argv_bytes: int
    comm: bytes
    creator_start_ns: int
    creator_exec_id: int
    creator_tgid: int
    live_threads: int
    status: int
    argv: tuple[bytes, ...]
    filename: bytes
    interp: bytes
    exe: bytes
    cwd: bytes
    cgroup: bytes
    tty: bytes


class User(NamedTuple):
    """A user's name on the host when a snapshot was taken. Source: the host's user database (getpwent)."""

    flags: int
    epoch: int
    tgid: int
    time_ns: int
    start_ns: int
    exec_id: int
    lost: int
    uid: int
    name: bytes


Record = Fork | Exec | Exit | Rename | MarkRecord | Seen | User

HEAD = struct.Struct("<BBHIIIQQQQ")
"""kind, version, zero, flags, epoch, tgid, time_ns, start_ns, exec_id, lost (drops of fork, exec and exit since the ring was made)."""

FORK = struct.Struct(HEAD.format + "6Q12I16s")
EXEC = struct.Struct(HEAD.format + "4Q17I4x16s8H")
EXIT = struct.Struct(HEAD.format + "5Q4I16s")
RENAME = struct.Struct(HEAD.format + "I4x16s16s")
MARK = struct.Struct(HEAD.format + "I4x8Q")
SEEN = struct.Struct(HEAD.format + "4Q17I4x16s8HQQIII4x")
USER = struct.Struct(HEAD.format + "IHH")

LAYOUT: dict[Kind, tuple[struct.Struct, type]] = {
    Kind.FORK: (FORK, Fork),
    Kind.EXEC: (EXEC, Exec),
    Kind.EXIT: (EXIT, Exit),
    Kind.RENAME: (RENAME, Rename),
    Kind.MARK: (MARK, MarkRecord),
    Kind.SEEN: (SEEN, Seen),
    Kind.USER: (USER, User),
}
"""Fixed part and value class of each kind."""

DELETED = b" (deleted)"


def comm_text(raw: bytes) -> bytes:
    """The bytes of a comm up to its NUL."""
    return raw.split(b"\0", 1)[0]


def argv_of(raw: bytes) -> tuple[bytes, ...]:
    """Arguments out of the argument area: each ends with a NUL, the last one may be cut."""
    if not raw:
        return ()
    parts = raw.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return tuple(parts)


@lru_cache(maxsize=512)
def path_of(raw: bytes, cut: int, deleted: int) -> bytes:
    """A path out of its components, which lie leaf first, each ending with a NUL. The same few programs run all the time, so the
    latest are remembered; each is of at most RECORD_TAIL_BYTES_MAX bytes.

    A cut path lacks its first levels, and so its leading slash. A deleted one ends in " (deleted)", as in /proc.
    """
    parts = raw.split(b"\0")
    parts.reverse()
    parts[0] = b""  # what lies after the last NUL
    path = b"/".join(parts) if len(parts) > 1 else b"/"
    if cut:
        path = path[1:]
    return path + DELETED if deleted else path


def _tail(
    kind: str, data: bytes, at: int, end: int, flags: int, sizes: tuple[int, ...]
) -> tuple[tuple[bytes, ...], bytes, bytes, bytes, bytes, bytes, bytes]:
    """argv, filename, interp, exe, cwd, cgroup and tty of an EXEC or SEEN record, whose lengths are ``sizes``."""
    argv_size, filename_size, interp_size, exe_size, cwd_size, cgroup_size, tty_size, _ = sizes
    interp_at = at + argv_size + filename_size
    exe_at = interp_at + interp_size
    cwd_at = exe_at + exe_size
    cgroup_at = cwd_at + cwd_size
    tty_at = cgroup_at + cgroup_size
    if tty_at + tty_size != end:
        raise DecodeError(f"{kind} record: its parts end at byte {tty_at + tty_size}, the record at {end}")
    exe = data[exe_at:cwd_at]
    return (
        argv_of(data[at : at + argv_size]),
        data[at + argv_size : interp_at].rstrip(b"\0"),
        data[interp_at:exe_at].rstrip(b"\0"),
        path_of(exe, flags & _EXE_CUT, flags & _EXE_GONE) if exe else b"",
        path_of(data[cwd_at:cgroup_at], flags & _CWD_CUT, flags & _CWD_GONE),
        data[cgroup_at:tty_at].rstrip(b"\0"),
        data[tty_at : tty_at + tty_size].rstrip(b"\0"),
    )


_EXE_CUT, _CWD_CUT = int(Flag.EXE_CUT), int(Flag.CWD_CUT)
_EXE_GONE = int(Flag.EXE_DELETED | Flag.EXE_PSEUDO)
_CWD_GONE = int(Flag.CWD_DELETED | Flag.CWD_PSEUDO)


def _values(layout: struct.Struct) -> struct.Struct:
    """Reads the fields that are values: all but kind, version and zero."""
    return struct.Struct(layout.format.replace("<BBH", "<4x", 1))


_FORK_VALUES, _EXEC_VALUES, _EXIT_VALUES, _RENAME_VALUES = _values(FORK), _values(EXEC), _values(EXIT), _values(RENAME)
_MARK_VALUES, _SEEN_VALUES, _USER_VALUES = _values(MARK), _values(SEEN), _values(USER)
_new = tuple.__new__


def _fork(data: bytes, at: int, end: int) -> Fork:
    values = _FORK_VALUES.unpack_from(data, at)
    return _new(Fork, values[:25] + (comm_text(values[25]),))


def _exec(data: bytes, at: int, end: int) -> Exec:
    values = _EXEC_VALUES.unpack_from(data, at)
    return _new(Exec, values[:28] + (comm_text(values[28]),) + _tail("EXEC", data, at + EXEC.size, end, values[0], values[29:]))


def _exit(data: bytes, at: int, end: int) -> Exit:
    values = _EXIT_VALUES.unpack_from(data, at)
    return _new(Exit, values[:16] + (comm_text(values[16]),))


def _rename(data: bytes, at: int, end: int) -> Rename:
    values = _RENAME_VALUES.unpack_from(data, at)
    return _new(Rename, values[:8] + (comm_text(values[8]), comm_text(values[9])))


def _mark(data: bytes, at: int, end: int) -> MarkRecord:
    values = _MARK_VALUES.unpack_from(data, at)
    return _new(MarkRecord, values[:8] + (values[8:],))


def _seen(data: bytes, at: int, end: int) -> Seen:
    values = _SEEN_VALUES.unpack_from(data, at)
    tail = _tail("SEEN", data, at + SEEN.size, end, values[0], values[29:37])
    return _new(Seen, values[:28] + (comm_text(values[28]),) + values[37:] + tail)


def _user(data: bytes, at: int, end: int) -> User:
    values = _USER_VALUES.unpack_from(data, at)
    name_at = at + USER.size
    if name_at + values[8] != end:
        raise DecodeError(f"USER record: its name ends at byte {name_at + values[8]}, the record at {end}")
    return _new(User, values[:8] + (data[name_at:end],))


_READERS: tuple[Callable[[bytes, int, int], Record], ...] = (_fork, _exec, _exit, _rename, _mark, _seen, _user)
_SIZES = (0, *(LAYOUT[kind][0].size for kind in Kind))
_VARIABLE = (Kind.EXEC, Kind.SEEN, Kind.USER)


def decode_record(data: bytes, at: int, size: int) -> Record:
    """The values of the record of ``size`` bytes that begins at byte ``at`` of ``data``.

    Raises DecodeError when the bytes are no record of this version; any other exception is a bug here.
    """
    if size < HEAD.size or at < 0 or at + size > len(data):
        raise DecodeError(f"record of {size} bytes at byte {at} of {len(data)}: too short to be one")
    kind = data[at]
    if data[at + 1] != RECORD_VERSION:
        raise DecodeError(f"record version {data[at + 1]}: this program reads version {RECORD_VERSION}", "update Tasktrail here")
    if not 0 < kind <= len(_READERS):
        raise DecodeError(f"record kind {kind} is not known")
    fixed = _SIZES[kind]
    if size < fixed or (size > fixed and kind not in _VARIABLE):
        raise DecodeError(f"{Kind(kind).name} record of {size} bytes, expected {fixed}")
    return _READERS[kind - 1](data, at, at + size)
