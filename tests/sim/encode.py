"""Records as bytes: the inverse of ``schemas.events.decode_record``, written for tests alone.

In the real system only the kernel programs write records, so the pure packages have no encoder.
"""

from collections.abc import Sequence

from schemas.events import (
    DELETED,
    EXEC,
    EXIT,
    FORK,
    HEAD,
    MARK,
    RECORD_VERSION,
    RENAME,
    SEEN,
    USER,
    Exec,
    Exit,
    Flag,
    Fork,
    Kind,
    MarkRecord,
    Record,
    Rename,
    Seen,
    User,
)

LOST_OFFSET = HEAD.size - 8
"""Where ``lost`` lies in every record: the only field that depends on what the ring refused before."""


def path_bytes(path: bytes, cut: bool, gone: bool) -> bytes:
    """The components of a path as the kernel's dentry walk leaves them: leaf first, each ending with a NUL."""
    if gone and path.endswith(DELETED):
        path = path[: -len(DELETED)]
    if not path or path == b"/":
        return b""
    parts = path.split(b"/") if cut else path[1:].split(b"/")
    return b"".join(part + b"\0" for part in reversed(parts))


def _tail(record: Exec | Seen) -> tuple[list[int], bytes]:
    """Lengths and bytes of the variable part."""
    flags = record.flags
    argv = b"".join(argument + b"\0" for argument in record.argv)
    if flags & (Flag.ARGV_CUT | Flag.ARGV_SHORT):
        argv = argv[:-1]
    ended = [text + b"\0" if text else b"" for text in (record.filename, record.interp, record.cgroup, record.tty)]
    exe = path_bytes(record.exe, bool(flags & Flag.EXE_CUT), bool(flags & (Flag.EXE_DELETED | Flag.EXE_PSEUDO)))
    cwd = path_bytes(record.cwd, bool(flags & Flag.CWD_CUT), bool(flags & (Flag.CWD_DELETED | Flag.CWD_PSEUDO)))
    parts = [argv, ended[0], ended[1], exe, cwd, ended[2], ended[3]]
    return [*map(len, parts), 0], b"".join(parts)


def encode_record(record: Record) -> bytes:
    """The bytes of one record, without the ring's framing."""
    values: Sequence[object] = record
    if isinstance(record, Exec):
        sizes, tail = _tail(record)
        return EXEC.pack(Kind.EXEC, RECORD_VERSION, 0, *values[:28], record.comm, *sizes) + tail
    if isinstance(record, Seen):
        sizes, tail = _tail(record)
        return SEEN.pack(Kind.SEEN, RECORD_VERSION, 0, *values[:28], record.comm, *sizes, *values[29:34]) + tail
    if isinstance(record, Fork):
        return FORK.pack(Kind.FORK, RECORD_VERSION, 0, *values)
    if isinstance(record, Exit):
        return EXIT.pack(Kind.EXIT, RECORD_VERSION, 0, *values)
    if isinstance(record, Rename):
        return RENAME.pack(Kind.RENAME, RECORD_VERSION, 0, *values)
    if isinstance(record, MarkRecord):
        numbers = (*record.values, *[0] * (8 - len(record.values)))
        return MARK.pack(Kind.MARK, RECORD_VERSION, 0, *values[:8], *numbers)
    assert isinstance(record, User)
    return USER.pack(Kind.USER, RECORD_VERSION, 0, *values[:8], len(record.name), 0) + record.name
