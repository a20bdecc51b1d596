"""Task events as the kernel programs write them: the bytes of each record, and the values read from them.

All numbers are little-endian and unsigned. Offsets below count from the record's first byte; docs/wire-format.md is generated
from this module. The C side is producers/bpf/task.bpf.c, and a test holds both to the same layout.

Every record begins with the same 48 bytes (``HEAD``); ``start_ns`` and ``tgid`` name the process that the record is about.
Times are CLOCK_BOOTTIME nanoseconds. Times are not the order: the ring's positions are.
"""

import struct
from collections.abc import Callable
from functools import lru_cache

from schemas.errors import DecodeError
from schemas.flags import Flag as Flag
from schemas.records import Exec as Exec
from schemas.records import Exit as Exit
from schemas.records import Fork as Fork
from schemas.records import Kind as Kind
from schemas.records import Mark as Mark
from schemas.records import MarkRecord as MarkRecord
from schemas.records import Record as Record
from schemas.records import Rename as Rename
from schemas.records import Seen as Seen
from schemas.records import User as User

RECORD_VERSION = 1

PROBE_COMM = b"tt:"
"""A RENAME to a comm that begins so, by the process that ran the latest MARK, is the reader's self-probe and no news."""


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


@lru_cache(maxsize=1024)
def comm_text(raw: bytes) -> bytes:
    """The bytes of a comm up to its NUL. The same few programs run all the time, so the latest are remembered."""
    return raw.split(b"\0", 1)[0]


def argv_of(raw: bytes) -> tuple[bytes, ...]:
    """Arguments out of the argument area: each ends with a NUL, the last one may be cut."""
    if not raw:
        return ()
    parts = raw.split(b"\0")
    if not parts[-1]:
        parts.pop()
    return tuple(parts)


def path_of(raw: bytes, cut: int, deleted: int) -> bytes:
    """A path out of its components, which lie leaf first, each ending with a NUL.

    A cut path lacks its first levels, and so its leading slash. A deleted one ends in " (deleted)", as in /proc.
    """
    parts = raw.split(b"\0")
    parts.reverse()
    parts[0] = b""  # what lies after the last NUL
    path = b"/".join(parts) if len(parts) > 1 else b"/"
    if cut:
        path = path[1:]
    return path + DELETED if deleted else path


_EXE_CUT, _CWD_CUT = int(Flag.EXE_CUT), int(Flag.CWD_CUT)
_EXE_GONE = int(Flag.EXE_DELETED | Flag.EXE_PSEUDO)
_CWD_GONE = int(Flag.CWD_DELETED | Flag.CWD_PSEUDO)
_OF_PATHS = _EXE_CUT | _CWD_CUT | _EXE_GONE | _CWD_GONE
_TEXT_SIZES = struct.Struct("<7H")
_TEXT_SIZES_AT = EXEC.size - _TEXT_SIZES.size


@lru_cache(maxsize=1024)
def _texts(raw: bytes, sizes: bytes, flags: int) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes]:
    """filename, interp, exe, cwd, cgroup and tty, which lie one behind the other in ``raw``.

    The same few programs run in the same few directories all the time, so the latest are remembered; each is of at most
    RECORD_TAIL_BYTES_MAX bytes.
    """
    filename_size, interp_size, exe_size, cwd_size, cgroup_size, tty_size, _ = _TEXT_SIZES.unpack(sizes)
    exe_at = filename_size + interp_size
    cwd_at = exe_at + exe_size
    cgroup_at = cwd_at + cwd_size
    tty_at = cgroup_at + cgroup_size
    if tty_at + tty_size != len(raw):
        raise DecodeError(f"EXEC or SEEN record: its texts have {tty_at + tty_size} bytes, and {len(raw)} lie behind its arguments")
    exe = raw[exe_at:cwd_at]
    return (
        raw[:filename_size].rstrip(b"\0"),
        raw[filename_size:exe_at].rstrip(b"\0"),
        path_of(exe, flags & _EXE_CUT, flags & _EXE_GONE) if exe else b"",
        path_of(raw[cwd_at:cgroup_at], flags & _CWD_CUT, flags & _CWD_GONE),
        raw[cgroup_at:tty_at].rstrip(b"\0"),
        raw[tty_at:].rstrip(b"\0"),
    )


def _tail(data: bytes, at: int, fixed: int, end: int, flags: int, argv_size: int) -> tuple[tuple[bytes, ...] | bytes, ...]:
    """argv and the texts behind the ``fixed`` bytes of an EXEC or SEEN record, whose text sizes lie at the same place."""
    argv_at = at + fixed
    texts_at = argv_at + argv_size
    if texts_at > end:
        raise DecodeError(f"EXEC or SEEN record: its arguments end at byte {texts_at}, the record at {end}")
    sizes_at = at + _TEXT_SIZES_AT
    return (argv_of(data[argv_at:texts_at]),) + _texts(data[texts_at:end], data[sizes_at : sizes_at + 14], flags & _OF_PATHS)


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
    return _new(Exec, values[:28] + (comm_text(values[28]),) + _tail(data, at, EXEC.size, end, values[0], values[29]))


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
    tail = _tail(data, at, SEEN.size, end, values[0], values[29])
    return _new(Seen, values[:28] + (comm_text(values[28]),) + values[37:] + tail)


def _user(data: bytes, at: int, end: int) -> User:
    values = _USER_VALUES.unpack_from(data, at)
    name_at = at + USER.size
    if name_at + values[8] != end:
        raise DecodeError(f"USER record: its name ends at byte {name_at + values[8]}, the record at {end}")
    return _new(User, values[:8] + (data[name_at:end],))


_Reader = Callable[[bytes, int, int], Record]
_ALL: tuple[_Reader, ...] = (_fork, _exec, _exit, _rename, _mark, _seen, _user)
_READERS: dict[bytes, tuple[_Reader, int, bool]] = {
    bytes((kind, RECORD_VERSION)): (reader, LAYOUT[kind][0].size, kind in (Kind.EXEC, Kind.SEEN, Kind.USER))
    for kind, reader in zip(Kind, _ALL, strict=True)
}
"""By the first two bytes: how the values are read, bytes of the fixed part, whether something may lie behind it."""


def decode_record(data: bytes, at: int, size: int) -> Record:
    """The values of the record of ``size`` bytes that begins at byte ``at`` of ``data``.

    Raises DecodeError when the bytes are no record of this version; any other exception is a bug here.
    """
    how = _READERS.get(data[at : at + 2])
    if how is None or at < 0 or at + size > len(data):
        raise _no_record(data, at, size)
    read, fixed, longer = how
    if size != fixed and (size < fixed or not longer):
        raise DecodeError(f"{Kind(data[at]).name} record of {size} bytes, expected {fixed}")
    return read(data, at, at + size)


def _no_record(data: bytes, at: int, size: int) -> DecodeError:
    """Why the bytes are no record of a known kind."""
    if size < HEAD.size or at < 0 or at + size > len(data):
        return DecodeError(f"record of {size} bytes at byte {at} of {len(data)}: too short to be one")
    if data[at + 1] != RECORD_VERSION:
        return DecodeError(f"record version {data[at + 1]}: this program reads version {RECORD_VERSION}", "update Tasktrail here")
    return DecodeError(f"record kind {data[at]} is not known")
