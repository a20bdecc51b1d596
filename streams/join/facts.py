"""What an image is, as columns exe to flags of schemas.rows.ImageRow, out of the record that tells it."""

from schemas.errors import DecodeError
from schemas.events import Exec, Flag, Fork, Seen
from streams.join.model import Facts, HostState, Image

FLAG_NAMES = {flag.value: flag.name.lower().encode() for flag in Flag if flag.name}
_INHERITED = int(
    Flag.ARGV_CUT | Flag.ARGV_FAULT | Flag.ARGV_SHORT | Flag.ARGV_MASKED | Flag.ARGV_FROM_PROC
    | Flag.FILENAME_CUT | Flag.EXE_CUT | Flag.EXE_DELETED | Flag.EXE_PSEUDO | Flag.EXE_DETACHED
)  # fmt: skip
_INHERITED_NAMES = frozenset(name for value, name in FLAG_NAMES.items() if value & _INHERITED)
NO_PROGRAM: Facts = (b"", b"", b"", (), 0, 0)


def flag_names(flags: int) -> tuple[bytes, ...]:
    """Names of the flags that are set, in the order of their bits."""
    if not flags:
        return ()
    return tuple(name for value, name in FLAG_NAMES.items() if flags & value)


def check_creator(record: Fork | Seen) -> None:
    """Raises DecodeError unless the creator is another process, is older, and has no exec_id that could not be inherited from it.

    No chain, and no line of creators, can lead back to itself then, whatever a record says.
    """
    tgid, start_ns, creator, creator_start_ns = record.tgid, record.start_ns, record.creator_tgid, record.creator_start_ns
    if not creator:
        if record.flags & Flag.CREATOR_KNOWN:
            raise DecodeError(f"process {tgid} has a creator that is known and has no pid")
        return
    if creator == tgid or creator_start_ns > start_ns or (creator_start_ns == start_ns and creator > tgid):
        raise DecodeError(f"process {tgid} began at {start_ns} ns, its creator {creator} at {creator_start_ns}")
    inherited = record.creator_exec_id
    if inherited > record.exec_id or (inherited != record.exec_id and record.__class__ is Fork):
        raise DecodeError(f"process {tgid} has the exec_id {record.exec_id}, its creator had {inherited}")


def program_facts(state: HostState, record: Exec | Seen) -> Facts:
    """Columns exe to flags from a record that describes a program."""
    users = state.users
    return (
        record.exe, record.filename, record.interp, record.argv, record.argc, record.argv_bytes, record.cwd,
        record.exe_dev, record.exe_inode, record.exe_generation, record.uid, record.gid, record.euid, record.egid,
        users.get(record.uid, b""), record.loginuid, users.get(record.loginuid, b""), record.session, record.tty,
        record.cgroup, record.cgroup_id, record.pid_ns, record.ns_pid, record.mnt_ns, record.user_ns, flag_names(record.flags),
    )  # fmt: skip


def fork_facts(state: HostState, record: Fork, creator: Image) -> Facts:
    """Columns exe to flags of a forked image: the program is the creator's, the ids are its own."""
    inherited = creator.facts
    program, file = (inherited[:6], inherited[7:10]) if inherited else (NO_PROGRAM, (0, 0, 0))
    flags = flag_names(record.flags)
    if inherited and inherited[25]:
        flags += tuple(name for name in inherited[25] if name in _INHERITED_NAMES)  # type: ignore[attr-defined]
    users = state.users
    return (
        *program, b"", *file, record.uid, record.gid, record.euid, record.egid, users.get(record.uid, b""),
        record.loginuid, users.get(record.loginuid, b""), record.session, b"", b"", record.cgroup_id,
        record.pid_ns, record.ns_pid, record.mnt_ns, 0, flags,
    )  # fmt: skip


NO_FACTS: Facts = (*NO_PROGRAM, b"", 0, 0, 0, 0, 0, 0, 0, b"", 0, b"", 0, b"", b"", 0, 0, 0, 0, 0, ())
"""Facts of an image of which nothing is known."""


def with_flags(facts: Facts, flags: int) -> Facts:
    """The facts with the flags of a further record added."""
    if not flags:
        return facts
    present = facts[25]
    assert isinstance(present, tuple)
    return (*facts[:25], present + tuple(name for name in flag_names(flags) if name not in present))
