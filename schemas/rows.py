"""Rows as they are stored; schemas.columns says what each value means.

Strings are bytes. Times of type DateTime64(9) are integers here: wall-clock nanoseconds, computed from CLOCK_BOOTTIME and the
clock pair that was in force when the event happened, so they show what a clock on the wall showed then. Order and identity
never use them.
"""

from enum import IntEnum
from typing import NamedTuple
from uuid import UUID


class ImageKind(IntEnum):
    """How an image is known."""

    EXEC = 1
    """its exec was recorded"""
    FORK = 2
    """its fork was recorded: the process runs the program it inherited"""
    SEEN = 3
    """it was found by a snapshot; when and how it began was not recorded"""
    UNKNOWN = 4
    """that it was there is proven (by a child, an exec id or its end), what it was is not known"""


class EndKind(IntEnum):
    """How an image ended."""

    LIVING = 0
    """it had not ended when the row was written"""
    EXIT = 1
    """its process ended; status, CPU time and memory are filled"""
    EXEC = 2
    """the process replaced it by the next image"""
    SUPERSEDED = 3
    """its pid was given to another process; its own exit was lost"""
    GONE = 4
    """it was missing from two snapshots; its exit was lost"""
    REBOOT = 5
    """the host started anew"""


class LossCause(IntEnum):
    """Why something is missing."""

    RING_FULL = 1
    """the ring had no room for fork, exec or exit records; amount is exact"""
    SKIPPED = 2
    """the kernel ran neither a program of ours nor its second copy (recursion_misses); amount is never too small"""
    NO_RECORDER = 3
    """nobody recorded in this interval; amount is not known and stored as 0"""
    LOG_HOLE = 4
    """bytes of the ring never arrived; amount is the number of missing bytes"""
    UNDECODABLE = 5
    """records that could not be read; amount of them"""
    RENAME_DROPPED = 6
    """renames left out because the ring was more than half full; chains are not touched"""
    ARGV_SHORTENED = 7
    """arguments cut short because the ring was more than half full; chains are not touched"""
    ROWS_LOST = 8
    """rows that had been stored are gone: the store was put back to an earlier state; chains are not touched, for each row has its own"""
    IDENTITY_CLASH = 9
    """nothing is missing: two machines have one host_id, and the rows of each bear an id of their own"""


class ImageRow(NamedTuple):
    """One program image of one process."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    task_id: UUID
    tgid: int
    start_boottime: int
    exec_id: int
    kind: int
    start: int
    begin: int
    begin_boottime: int
    duration: int
    end_kind: int
    exit_code: int
    exit_signal: int
    core_dumped: int
    exec_failed: int
    utime: int
    stime: int
    max_rss_kib: int
    comm: bytes
    renamed: bytes
    exe: bytes
    filename: bytes
    interp: bytes
    argv: tuple[bytes, ...]
    argc: int
    argv_bytes: int
    cwd: bytes
    exe_dev: int
    exe_inode: int
    exe_generation: int
    uid: int
    gid: int
    euid: int
    egid: int
    user: bytes
    loginuid: int
    login_user: bytes
    session: int
    tty: bytes
    cgroup: bytes
    cgroup_id: int
    pid_ns: int
    ns_pid: int
    mnt_ns: int
    user_ns: int
    flags: tuple[bytes, ...]
    creator_id: UUID
    creator_tgid: int
    creator_exec_id: int
    creator_tid: int
    clone_flags: int
    parent_id: UUID
    parent_tgid: int
    end_parent_tgid: int
    ancestor_ids: tuple[UUID, ...]
    chain_kind: tuple[int, ...]
    chain_tgid: tuple[int, ...]
    chain_exec_id: tuple[int, ...]
    chain_start: tuple[int, ...]
    chain_comm: tuple[bytes, ...]
    chain_exe: tuple[bytes, ...]
    chain_complete: int
    chain_before: int
    chain_cut: int
    chain_lost: int
    ancestors_cut: int
    lost_from: int
    lost_to: int
    ring_id: int
    position: int
    epoch: int
    seen: int
    version: int


class LossRow(NamedTuple):
    """Something that is missing, and between which moments."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    ring_id: int
    position: int
    cause: int
    begin: int
    end: int
    begin_boottime: int
    end_boottime: int
    amount: int
    detail: bytes
    seen: int
    version: int


class HostRow(NamedTuple):
    """What is known of one boot of one host at the latest report."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    claims: UUID
    machine: bytes
    machines: int
    recording_since: int
    recording: int
    sent: int
    boottime: int
    heard: int
    ring_id: int
    position: int
    living: int
    lost: int
    skipped: int
    seen: int
    version: int


Row = ImageRow | LossRow | HostRow
