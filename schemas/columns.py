"""The columns of the stored rows: each with its type, its meaning and the source of the fact.

schemas/sql/ creates the tables; a test compares what it creates with this list. docs/data-dictionary.md is generated from it.
"""

from enum import IntEnum
from typing import NamedTuple

from schemas.rows import EndKind, ImageKind, LossCause


class Column(NamedTuple):
    """One stored column.

    name    as in the row class and in SQL
    type    ClickHouse type
    says    what the value means, and when it is empty
    source  where the fact comes from
    """

    name: str
    type: str
    says: str
    source: str


def _enum(kinds: type[IntEnum]) -> str:
    return "Enum8(" + ", ".join(f"'{kind.name.lower()}' = {kind.value}" for kind in kinds) + ")"


_TIME = "DateTime64(9, 'UTC')"

IMAGES: tuple[Column, ...] = (
    Column("host_id", "UUID", "which installation of Tasktrail recorded this", "made once per installation, bound to /etc/machine-id"),
    Column("host", "LowCardinality(String)", "the host's name then, for showing", "uname(2) nodename"),
    Column("boot_id", "UUID", "which boot of the host", "/proc/sys/kernel/random/boot_id"),
    Column("task_id", "UUID", "the process's name everywhere: a hash of host_id, boot_id, tgid and start_boottime", "computed"),
    Column("tgid", "UInt32", "what ps calls PID, seen from the first pid namespace", "task_struct.tgid"),
    Column("start_boottime", "UInt64", "when the process was created, nanoseconds of CLOCK_BOOTTIME", "start_boottime of the group leader"),
    Column(
        "exec_id",
        "UInt64",
        "the kernel's count of execs along the whole chain, inherited at fork; names the image within the process",
        "task_struct.self_exec_id",
    ),
    Column(
        "kind",
        _enum(ImageKind),
        "how the image is known: exec and fork were recorded, seen was found living by a snapshot, unknown is only proven to have been",
        "the record it began with",
    ),
    Column("start", _TIME, "when the process was created, wall clock then", "start_boottime and the clock pair in force"),
    Column(
        "begin",
        _TIME,
        "when this image began, wall clock then; for kind seen the process's creation if no earlier image of it is known; else, and for unknown, the first evidence of it",
        "time of the record",
    ),
    Column("begin_boottime", "UInt64", "the same in nanoseconds of CLOCK_BOOTTIME", "bpf_ktime_get_boot_ns"),
    Column(
        "duration",
        "UInt64",
        "nanoseconds that the image lived; 0 while end_kind is living; the longest it can have been if it ended by an exec that was lost or is superseded or gone (then lost_from to lost_to hide its end)",
        "times of its first and last record",
    ),
    Column("end_kind", _enum(EndKind), "how it ended; the alias column ended gives the moment", "the record it ended with"),
    Column(
        "exit_code",
        "UInt8",
        "exit code of the process, with end_kind exit and exit_signal 0",
        "signal_struct.group_exit_code if set, else the leader's exit_code",
    ),
    Column("exit_signal", "UInt8", "signal that killed the process, else 0", "low 7 bits of the same"),
    Column("core_dumped", "Bool", "a core was dumped", "bit 7 of the same"),
    Column(
        "exec_failed",
        "Bool",
        "the process died in an exec that failed after the old image was gone",
        "exec_id at exit is one more than at the last exec, nothing lost between",
    ),
    Column(
        "utime",
        "UInt64",
        "user CPU time of the whole process in nanoseconds, good to one tick; with end_kind exit",
        "signal_struct.utime and living threads",
    ),
    Column("stime", "UInt64", "system CPU time, likewise", "signal_struct.stime and living threads"),
    Column(
        "max_rss_kib",
        "UInt64",
        "largest resident memory since the process's fork, the inherited image included; with end_kind exit",
        "signal_struct.maxrss",
    ),
    Column("comm", "String", "the 15-byte name at the image's begin; the process can change it", "task_struct.comm"),
    Column("renamed", "String", "the last other comm that it took, empty if none", "tracepoint task_rename"),
    Column(
        "exe",
        "String",
        "path of the executable as /proc/PID/exe says, from the top of its mount tree; for kind fork the creator's",
        "dentry walk in the kernel",
    ),
    Column("filename", "String", "the path that was given to execve", "linux_binprm.filename"),
    Column("interp", "String", "the interpreter that ran a script, empty if none", "linux_binprm.interp where different"),
    Column(
        "argv",
        "Array(String)",
        "arguments, exact bytes; for kind fork the creator's; see flags argv_cut, argv_short, argv_masked, argv_from_proc",
        "mm_struct.arg_start at exec",
    ),
    Column("argc", "UInt32", "how many arguments there were", "linux_binprm.argc"),
    Column("argv_bytes", "UInt32", "how many bytes of arguments there were", "mm_struct.arg_end - arg_start"),
    Column(
        "cwd", "String", "working directory at exec, as /proc/PID/cwd says; empty for kind fork (not recorded)", "dentry walk in the kernel"
    ),
    Column("exe_dev", "UInt32", "device of the executable's file system (major << 20 | minor)", "super_block.s_dev"),
    Column("exe_inode", "UInt64", "inode number of the executable", "inode.i_ino"),
    Column("exe_generation", "UInt32", "generation of that inode", "inode.i_generation"),
    Column("uid", "UInt32", "real user id at the image's begin", "cred.uid"),
    Column("gid", "UInt32", "real group id", "cred.gid"),
    Column("euid", "UInt32", "effective user id", "cred.euid"),
    Column("egid", "UInt32", "effective group id", "cred.egid"),
    Column(
        "user",
        "LowCardinality(String)",
        "name of uid on the host, empty if it has none",
        "user database of the host, read with each snapshot",
    ),
    Column("loginuid", "UInt32", "user id that logged in, 4294967295 if nobody did", "task_struct.loginuid"),
    Column("login_user", "LowCardinality(String)", "name of loginuid, empty if it has none", "user database of the host"),
    Column("session", "UInt32", "audit session id, 4294967295 if none", "task_struct.sessionid"),
    Column(
        "tty",
        "LowCardinality(String)",
        "controlling terminal at exec (pts/0, tty1), empty if none; empty for kind fork (not recorded)",
        "signal_struct.tty",
    ),
    Column("cgroup", "String", "last component of the cgroup v2 path at exec; empty at the root and for kind fork", "kernfs_node.name"),
    Column("cgroup_id", "UInt64", "id of that cgroup (inode number of its directory)", "kernfs_node.id"),
    Column("pid_ns", "UInt32", "inode number of the process's own pid namespace", "pid_namespace.ns.inum"),
    Column("ns_pid", "UInt32", "its pid inside that namespace", "upid.nr at pid.level"),
    Column("mnt_ns", "UInt32", "inode number of the mount namespace", "mnt_namespace.ns.inum"),
    Column("user_ns", "UInt32", "inode number of the user namespace; 0 for kind fork (not recorded)", "user_namespace.ns.inum"),
    Column(
        "flags",
        "Array(LowCardinality(String))",
        "what is special about the values above, by the names of schemas.events.Flag in small letters",
        "the records",
    ),
    Column(
        "creator_id",
        "UUID",
        "task_id of the process that called fork or clone; never changes; nil if not known",
        "task_newtask, run by the creator",
    ),
    Column("creator_tgid", "UInt32", "its tgid, 0 if not known", "likewise"),
    Column(
        "creator_exec_id", "UInt64", "exec_id of the creator at the moment of fork: names the image that created this process", "likewise"
    ),
    Column("creator_tid", "UInt32", "thread of the creator that called fork, 0 if not known", "likewise"),
    Column("clone_flags", "UInt64", "flags of clone(2), 0 if not known", "task_newtask"),
    Column(
        "parent_id",
        "UUID",
        "task_id of the kernel's parent at fork, or when seen; differs from the creator with CLONE_PARENT and after the creator died",
        "task_struct.real_parent",
    ),
    Column("parent_tgid", "UInt32", "its tgid (PPID)", "likewise"),
    Column("end_parent_tgid", "UInt32", "PPID at exit, 0 while living", "real_parent at sched_process_exit"),
    Column(
        "ancestor_ids",
        "Array(UUID)",
        "task_ids of the creators, nearest first; a nil id stands for one that is not known and ends the list",
        "followed from creator to creator",
    ),
    Column(
        "chain_kind",
        "Array(" + _enum(ImageKind) + ")",
        "the chain: exec'd images from the root to this one, root first; how each is known",
        "the chain's images",
    ),
    Column("chain_tgid", "Array(UInt32)", "their tgids; 0 where not known", "likewise"),
    Column("chain_exec_id", "Array(UInt64)", "their exec ids: a complete chain counts up by one", "likewise"),
    Column("chain_start", "Array(" + _TIME + ")", "when each began, wall clock then; the epoch where not known", "likewise"),
    Column("chain_comm", "Array(String)", "their comms at exec; empty where not known", "likewise"),
    Column("chain_exe", "Array(String)", "their executables; empty where not known", "likewise"),
    Column("chain_complete", "Bool", "the chain reaches the root and its exec ids prove that no image is missing", "computed"),
    Column(
        "chain_before",
        "Bool",
        "a part of the chain began before the recorder: links there are the kernel's parents found by a snapshot",
        "computed",
    ),
    Column("chain_cut", "Bool", "older elements were left out (limit 64)", "computed"),
    Column("chain_lost", "Bool", "a counted loss touches the chain: an element is unknown, or the end is", "computed"),
    Column("ancestors_cut", "Bool", "farther ancestors were left out (limit 64)", "computed"),
    Column(
        "lost_from", _TIME, "begin of the loss that touches the chain, the epoch if none; table losses has the cause and count", "computed"
    ),
    Column("lost_to", _TIME, "end of that loss", "computed"),
    Column("ring_id", "UInt64", "which kernel ring the first record of the image came through", "the batch"),
    Column("position", "UInt64", "position of that record in the ring", "the batch"),
    Column("epoch", "UInt32", "which load of the recorder wrote it", "the record"),
    Column(
        "seen",
        "DateTime('UTC')",
        "latest wall-clock second for which the row holds; rows go when this is older than the retention",
        "computed",
    ),
    Column(
        "version",
        "UInt64",
        "the larger, the newer; of one (host_id, boot_id, start_boottime, tgid, exec_id) the newest row counts",
        "computed",
    ),
)

LOSSES: tuple[Column, ...] = (
    Column("host_id", "UUID", "which installation", "as in images"),
    Column("host", "LowCardinality(String)", "the host's name then", "as in images"),
    Column("boot_id", "UUID", "which boot", "as in images"),
    Column("ring_id", "UInt64", "which kernel ring", "the batch"),
    Column("position", "UInt64", "ring position of the record that showed the loss", "the batch"),
    Column("cause", _enum(LossCause), "why something is missing", "computed"),
    Column("begin", _TIME, "nothing is missing before this moment, wall clock then", "time of the last record before"),
    Column("end", _TIME, "nothing is missing after this moment", "time of the first record after"),
    Column("begin_boottime", "UInt64", "the same in nanoseconds of CLOCK_BOOTTIME", "likewise"),
    Column("end_boottime", "UInt64", "likewise", "likewise"),
    Column(
        "amount", "UInt64", "how many records, bytes (log_hole) or times (skipped); 0 where it cannot be known", "counters of the recorder"
    ),
    Column("detail", "String", "one sentence for a person", "computed"),
    Column("seen", "DateTime('UTC')", "wall-clock second of the end; rows go when this is older than the retention", "computed"),
    Column("version", "UInt64", "the larger, the newer", "computed"),
)

HOSTS: tuple[Column, ...] = (
    Column("host_id", "UUID", "which installation; of a machine that has another one's, a name of its own", "as in images"),
    Column("host", "LowCardinality(String)", "the host's name", "as in images"),
    Column("boot_id", "UUID", "which boot", "as in images"),
    Column(
        "claims", "UUID", "the host_id that the machine gives itself: another than host_id if it was another machine's first", "the batch"
    ),
    Column("machine", "String", "fingerprint of the machine in hex, empty if it sent none", "producers.host.machine"),
    Column("machines", "UInt8", "how many machines give themselves this host_id", "streams.fleet.claims"),
    Column("recording_since", _TIME, "when recording began in this boot, wall clock then; the epoch if it has not", "first attachment"),
    Column("recording", "Bool", "the recorder's programs were attached", "marks of the recorder"),
    Column("sent", _TIME, "the host's wall clock at its latest batch", "clock pair in the batch"),
    Column("boottime", "UInt64", "nanoseconds of CLOCK_BOOTTIME at the same moment", "likewise"),
    Column("heard", _TIME, "when that batch arrived: by the broker's clock in a fleet, else by the host's", "Kafka's LogAppendTime"),
    Column("ring_id", "UInt64", "which kernel ring", "the batch"),
    Column("position", "UInt64", "how far the ring has been read", "the join"),
    Column("living", "UInt32", "processes that live", "the join"),
    Column("lost", "UInt64", "records of fork, exec and exit that found no room in this ring", "counter of the recorder"),
    Column("skipped", "UInt64", "times that the kernel did not run a program of the recorder", "counter of the recorder"),
    Column("seen", "DateTime('UTC')", "second of heard; rows go when this is older than the retention", "computed"),
    Column("version", "UInt64", "the larger, the newer", "heard"),
)

_OF_IMAGES = {column.name: column for column in IMAGES}


def _as_in_images(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, _OF_IMAGES[name].type, _OF_IMAGES[name].says, "as in images") for name in names)


PROGRAMS: tuple[Column, ...] = (
    Column("place", "UInt64", "28 bits of a hash of host_id and boot_id, then start_boottime in units of 2^28 ns", "computed"),
    Column("week", "Date", "Monday of the week in which the process was created", "start"),
    *_as_in_images("host_id", "host", "boot_id", "start_boottime", "tgid", "exec_id", "kind", "begin", "comm", "renamed", "exe"),
    *_as_in_images("uid", "user"),
    Column("above_comm", "Array(String)", "comms of the chain's elements that its process inherited, each once", "chain_comm"),
    Column("above_exe", "Array(String)", "their executables, likewise", "chain_exe"),
    *_as_in_images("seen", "version"),
)
"""What questions by name need of each image."""

CPID = Column("cpid", "UUID", "OCSF's Common Process Identifier, computed on reading", "schemas.identity.cpid")
ENDED = Column("ended", "Nullable(" + _TIME + ")", "when the image ended, NULL while it lives", "begin + duration")
ALIASES = (CPID, ENDED)
"""Columns of images that are computed on reading and take no space."""
