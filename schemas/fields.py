"""What every field of a record and of a batch header means, one line each; docs/wire-format.md is generated from it."""

from schemas.events import Kind

HEAD_FIELDS: tuple[tuple[str, str], ...] = (
    ("kind", "what the record tells (schemas.events.Kind)"),
    ("version", "version of the record's layout, 1"),
    ("zero", "always 0"),
    ("flags", "bits of schemas.events.Flag"),
    ("epoch", "random number of this load of the recorder"),
    ("tgid", "thread group id of the process that the record is about, in the first pid namespace (what ps calls PID)"),
    ("time_ns", "CLOCK_BOOTTIME nanoseconds when the program ran; the order of records is their position, not this"),
    ("start_ns", "CLOCK_BOOTTIME nanoseconds when the process was created: start_boottime of its group leader"),
    ("exec_id", "task_struct.self_exec_id: inherited at fork, one more at each exec"),
    ("lost", "fork, exec and exit records that found no room in the ring since it was made"),
)
"""The first 48 bytes of every record."""

_CREDENTIALS = {
    "uid": "real user id (in the first user namespace, as all ids)",
    "gid": "real group id",
    "euid": "effective user id",
    "egid": "effective group id",
    "loginuid": "audit login user id, 4294967295 if nobody logged in",
    "session": "audit session id, 4294967295 if none",
    "pid_ns": "inode number of the process's own pid namespace",
    "ns_pid": "its pid inside that namespace",
    "mnt_ns": "inode number of its mount namespace",
    "cgroup_id": "id of its cgroup (inode number of the cgroup v2 directory)",
}
_PARENT = {
    "real_parent_tgid": "tgid of real_parent, the kernel's parent now; 0 for pid 1 and kthreadd",
    "real_parent_start_ns": "start_boottime of real_parent's group leader",
    "parent_exec_id": "task_struct.parent_exec_id: the creator's exec_id at fork (with CLONE_PARENT the creator's own parent_exec_id)",
}
_PROGRAM = {
    **_CREDENTIALS,
    **_PARENT,
    "exe_inode": "inode number of the executable",
    "exe_dev": "device of the executable's superblock: major << 20 | minor",
    "exe_generation": "generation of that inode",
    "tid": "thread that called execve; the leader's pid afterwards in any case",
    "tty_nr": "device number of the controlling terminal, 0 if none",
    "user_ns": "inode number of the user namespace",
    "argc": "how many arguments there were",
    "argv_bytes": "how many bytes of arguments there were, NULs included",
    "comm": "the task's name after the exec, NUL padded",
    "argv": "arguments, each ending with a NUL; the last may be cut (flags ARGV_CUT, ARGV_SHORT)",
    "filename": "the path that was given to execve, ending with a NUL",
    "interp": "the interpreter that runs a script, ending with a NUL; empty if the file runs itself",
    "exe": "components of the executable's path, leaf first, each ending with a NUL",
    "cwd": "components of the working directory, leaf first, each ending with a NUL; empty at the root",
    "cgroup": "last component of the cgroup's path, ending with a NUL; empty at the root",
    "tty": "name of the controlling terminal, ending with a NUL; empty if none",
}

FIELDS: dict[Kind, dict[str, str]] = {
    Kind.FORK: {
        **_CREDENTIALS,
        **_PARENT,
        "creator_start_ns": "start_boottime of the group leader of the process that called fork or clone",
        "creator_exec_id": "its exec_id then",
        "creator_tgid": "its tgid",
        "creator_tid": "the thread of it that called",
        "clone_flags": "flags of clone(2), the exit signal in the low byte",
        "comm": "the new task's name: its creator's, NUL padded",
    },
    Kind.EXEC: _PROGRAM,
    Kind.EXIT: {
        **_PARENT,
        "utime_ns": "user CPU time of all threads in nanoseconds, good to one tick",
        "stime_ns": "system CPU time, likewise",
        "max_rss_kib": "largest resident memory since the fork in KiB",
        "status": "wait status: exit code << 8, or signal; bit 7 says that a core was dumped",
        "tid": "the last thread that ended",
        "threads": "threads whose CPU time was added up",
        "comm": "the last thread's name, NUL padded",
    },
    Kind.RENAME: {
        "tid": "the main thread",
        "old_comm": "the name before, NUL padded",
        "comm": "the name now, NUL padded",
    },
    Kind.MARK: {
        "mark": "what it tells (schemas.events.Mark)",
        "values": "eight numbers whose meaning depends on the mark",
    },
    Kind.SEEN: {
        **_PROGRAM,
        "tid": "the thread that was read: the group leader",
        "comm": "the group leader's name when it was seen, NUL padded",
        "creator_start_ns": "start_boottime of the creator, with flag CREATOR_KNOWN",
        "creator_exec_id": "the creator's exec_id at fork, with flag CREATOR_KNOWN",
        "creator_tgid": "the creator's tgid, with flag CREATOR_KNOWN",
        "live_threads": "threads that had not exited",
        "status": "wait status so far, with flag ENDED",
    },
    Kind.USER: {
        "uid": "user id",
        "name": "name of that user",
    },
}
"""Fields after the first 48 bytes, by kind."""

LENGTHS: tuple[str, ...] = ("argv", "filename", "interp", "exe", "cwd", "cgroup", "tty")
"""Variable parts of EXEC and SEEN, in order; the fixed part holds their lengths in bytes as 16-bit numbers."""

MARK_VALUES: dict[str, str] = {
    "CLOCK": "boottime_ns, realtime_ns, skipped, lost_fork, lost_exec, lost_exit, dropped_rename, short_argv",
    "SNAPSHOT_BEGIN": "snapshot_id",
    "SNAPSHOT_END": "snapshot_id",
    "ATTACHED": "handover: 1 if the version before was still attached, 0 if nobody recorded until now",
    "LINKS_LOST": "last_good_ns: latest boottime at which the programs were known to be attached",
}
"""What the values of each mark are, first to last; the rest is 0."""

HEADER_FIELDS: tuple[tuple[str, str], ...] = (
    ("magic", "the letters TTB1"),
    ("version", "version of this header, 1"),
    ("kind", "1 events, 2 snapshot"),
    ("drained", "1 if nothing that happened more than a moment before boottime_ns is still in the ring, else 0"),
    ("header_bytes", "size of this header, 176"),
    ("body_bytes", "size of the body that follows"),
    ("host_id", "which installation: a UUID, big-endian"),
    ("boot_id", "/proc/sys/kernel/random/boot_id: a UUID, big-endian"),
    ("ring_id", "CLOCK_BOOTTIME nanoseconds when the ring was made"),
    ("start", "ring position of the body's first byte"),
    ("end", "ring position after the body's last byte; in a snapshot equal to start"),
    ("boottime_ns", "CLOCK_BOOTTIME when the batch was made"),
    ("realtime_ns", "CLOCK_REALTIME at the same moment"),
    ("lost_or_snapshot_id", "events: records lost since the ring was made; snapshot: its id"),
    ("skipped", "times that the kernel did not run a program of the recorder, since the ring was made"),
    ("crc", "CRC-32 of the body (zlib)"),
    ("part", "snapshot: which part this is, from 0"),
    ("parts", "snapshot: how many parts it has; 0 stands for 1"),
    ("hostname", "the host's name, NUL padded"),
)
"""The header of a batch, in order."""
