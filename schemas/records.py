"""What the kernel programs tell: the kinds of records, and the values of each as a class.

How they lie in bytes is schemas.events'. Times are CLOCK_BOOTTIME nanoseconds; ``start_ns`` and ``tgid`` name the process that a
record is about, ``exec_id`` its image, and ``lost`` counts the drops of fork, exec and exit since the ring was made.
"""

from enum import IntEnum
from typing import NamedTuple


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
