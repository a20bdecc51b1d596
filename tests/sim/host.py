"""A simulated Linux host: what its kernel would do and what the recorder's programs would write, from one seed.

The host keeps the truth (every process, every image, who created it, when it ended) beside the records, so that an oracle can say
what must come out of the join. The rules are the kernel's: ``self_exec_id`` is inherited and counts up at each exec,
``parent_exec_id`` is the creator's at fork (the creator's own with CLONE_PARENT), ``real_parent`` moves when it dies, pids are given
cyclically up to pid_max and are free again when the process is reaped.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from schemas.events import PROBE_COMM, Exec, Exit, Flag, Fork, Mark, MarkRecord, Record, Rename, Seen, User

NOBODY = 0xFFFFFFFF
CLONE_VM, CLONE_VFORK, CLONE_PARENT, CLONE_NEWPID, SIGCHLD = 0x100, 0x4000, 0x8000, 0x20000000, 17
JITTER_NS = 200_000
"""By how much a record's time may lie before that of the record in front of it (measured)."""
PROC_PID_NS = 4026531836


class NoPid(Exception):
    """fork(2) fails with EAGAIN: no pid is free."""


@dataclass(slots=True, eq=False)
class Entry:
    """One record in ring order. ``at_ns`` is the host's time when its place was reserved (its own time may be a little earlier)."""

    ring: "Ring"
    index: int
    record: Record
    at_ns: int
    offset_ns: int
    image: "Image | None"
    snapshot: "Snapshot | None" = None


@dataclass(slots=True, eq=False)
class Ring:
    """One ring buffer: entries in order of position. ``outages``: (from, to) times in which nobody recorded."""

    boot: "Boot"
    ring_id: int
    entries: list[Entry] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Snapshot:
    """What one run of the task iterator saw, between its two marks."""

    snapshot_id: int
    begin: Entry
    seen: list[tuple[Seen, "Process"]] = field(default_factory=list)
    users: list[User] = field(default_factory=list)
    end: Entry | None = None
    at_ns: int = 0
    raced: bool = False


@dataclass(slots=True, eq=False)
class Image:
    """One program image. ``program`` is the EXEC whose program it runs (a fork runs its creator's); ``entry`` is of its own record."""

    process: "Process"
    exec_id: int
    how: str
    time_ns: int
    program: Exec | None
    entry: Entry | None = None
    end_ns: int = 0
    end_how: str = ""
    end_entry: Entry | None = None
    renames: list[tuple[bytes, Entry | None, int]] = field(default_factory=list)
    children: list["Process"] = field(default_factory=list)
    raced: bool = False


@dataclass(slots=True, eq=False)
class Process:
    """One process and its whole life."""

    boot: "Boot"
    tgid: int
    start_ns: int
    creator: Image | None
    parent: "Process | None"
    parent_exec_id: int
    exec_id: int
    comm: bytes
    ids: dict[str, int]
    flags: int = 0
    images: list[Image] = field(default_factory=list)
    subreaper: bool = False
    ns_init: "Process | None" = None
    tids: list[int] = field(default_factory=list)
    ended: bool = False
    zombie: bool = False
    last_ns: int = 0
    fork: Fork | None = None
    fork_entry: Entry | None = None
    exit: Exit | None = None
    exit_entry: Entry | None = None
    exit_ns: int = 0
    failed_exec: bool = False
    creator_known: bool = False
    raced: bool = False
    seen_at: list[tuple[Seen, Snapshot]] = field(default_factory=list)
    parents: list["Process"] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.parent is not None:
            self.parents.append(self.parent)

    @property
    def image(self) -> Image:
        """The newest image."""
        return self.images[-1]

    @property
    def key(self) -> tuple[int, int]:
        """The process's name within its boot."""
        return self.tgid, self.start_ns


@dataclass(slots=True, eq=False)
class Boot:
    """One boot of the host."""

    boot_id: UUID
    processes: list[Process] = field(default_factory=list)
    rings: list[Ring] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    outages: list[tuple[int, int]] = field(default_factory=list)


class Host:
    """The host. Every method is one thing that happens; ``tests.sim.life`` chooses among them."""

    def __init__(self, rng: random.Random, pid_max: int = 200, jitter: bool = True, offset_ns: int = 1_700_000_000_000_000_000) -> None:
        self.rng = rng
        self.host_id = UUID(int=rng.getrandbits(128))
        self.pid_max = pid_max
        self.jitter = jitter
        self.offset_ns = offset_ns
        self.boots: list[Boot] = []
        self.next_inode = PROC_PID_NS + 100
        self.snapshot_id = 0
        self.marks: set[str] = set()
        self.readers: list[Process] = []
        self.start_boot()

    # -- boot, time, pids ------------------------------------------------------------------------------------------------

    def start_boot(self) -> None:
        """A new boot: only pid 1 and kthreadd live, and nobody records."""
        self.boot = Boot(UUID(int=self.rng.getrandbits(128)))
        self.boots.append(self.boot)
        self.t = 1_000_000_000
        self.living: dict[int, Process] = {}
        self.taken: set[int] = set()
        self.last_pid = 2
        self.ring: Ring | None = None
        self.recording = False
        self.reader: Process | None = None
        self.snapshot: Snapshot | None = None
        self.lost_before_clock = 0
        self.short_argv = 0
        self.epoch = 0
        for tgid, comm, flags in ((1, b"systemd", 0), (2, b"kthreadd", int(Flag.KTHREAD))):
            root = Process(self.boot, tgid, 10_000_000 * tgid, None, None, 0, 0, comm, self._ids(tgid), flags, last_ns=self.t)
            root.subreaper = tgid == 1
            root.ns_init = root
            root.images.append(Image(root, 0, "root", root.start_ns, None))
            self._live(root)
        self.init, self.kthreadd = self.living[1], self.living[2]
        self.init.ns_init = self.kthreadd.ns_init = self.init
        self.exec(self.init)

    def _ids(self, tgid: int) -> dict[str, int]:
        names = ("uid", "gid", "euid", "egid")
        return {
            **dict.fromkeys(names, 0),
            "loginuid": NOBODY,
            "session": NOBODY,
            "pid_ns": PROC_PID_NS,
            "ns_pid": tgid,
            "mnt_ns": 4026531841,
        }

    def _live(self, process: Process) -> None:
        self.living[process.tgid] = process
        self.taken.add(process.tgid)
        self.boot.processes.append(process)

    def advance(self, ns: int) -> None:
        """Time goes on."""
        self.t += ns

    def stamp(self, process: Process) -> int:
        """A record's time: now, or a little earlier, but never before what the process did last."""
        self.t += 1
        back = self.rng.choice((0, 0, self.rng.randrange(JITTER_NS))) if self.jitter else 0
        process.last_ns = max(self.t - back, process.last_ns + 1)
        self.t = max(self.t, process.last_ns)
        return process.last_ns

    def new_pid(self, reuse: int = 0) -> int:
        """The next free pid, cyclically; or ``reuse`` if it is free (as through /proc/sys/kernel/ns_last_pid)."""
        if reuse and reuse not in self.taken:
            self.last_pid = reuse
            return reuse
        for _ in range(self.pid_max):
            self.last_pid = self.last_pid + 1 if self.last_pid < self.pid_max else 3
            if self.last_pid not in self.taken:
                return self.last_pid
        raise NoPid

    def emit(self, record: Record, image: Image | None = None) -> Entry | None:
        """The record goes into the ring, if somebody records (marks need a ring only)."""
        if self.ring is None or not (self.recording or isinstance(record, MarkRecord)):
            return None
        entry = Entry(self.ring, len(self.ring.entries), record, self.t, self.offset_ns, image)
        self.ring.entries.append(entry)
        return entry

    # -- what processes do -----------------------------------------------------------------------------------------------

    def fork(
        self,
        creator: Process,
        clone_flags: int = SIGCHLD,
        tid: int = 0,
        new_pid_ns: bool = False,
        reuse: int = 0,
        kthread: bool = False,
        defer: bool = False,
    ) -> tuple[Process, Callable[[], None]]:
        """``creator`` makes a process. With ``defer`` its record comes when the returned function is called (a snapshot can be first)."""
        tgid = self.new_pid(reuse)
        self.t += 2
        start_ns = self.t - 1
        to_parent = bool(clone_flags & CLONE_PARENT)
        parent = creator.parent if to_parent else creator
        ids = dict(creator.ids, ns_pid=tgid if creator.ids["pid_ns"] == PROC_PID_NS else self.rng.randrange(2, 99))
        flags = creator.flags & int(Flag.KTHREAD) if kthread else 0
        child = Process(
            self.boot,
            tgid,
            start_ns,
            creator.image,
            parent,
            creator.parent_exec_id if to_parent else creator.exec_id,
            creator.exec_id,
            creator.comm,
            ids,
            flags,
            last_ns=start_ns,
        )
        child.ns_init = creator.ns_init
        if new_pid_ns:
            self.next_inode += 1
            ids.update(pid_ns=self.next_inode, ns_pid=1)
            child.ns_init = child
        self._live(child)
        child.tids = []

        def record() -> None:
            child.last_ns = max(child.last_ns, creator.last_ns)
            time_ns = self.stamp(child)
            if tid in (0, creator.tgid):
                creator.last_ns = time_ns
            child.fork = self._fork_record(child, creator, parent, clone_flags, tid, time_ns)
            image.time_ns = time_ns
            child.creator_known = self.recording
            child.fork_entry = image.entry = self.emit(child.fork, image)

        assert creator.images
        image = Image(child, child.exec_id, "fork", self.t, creator.image.program)
        child.images.append(image)
        creator.image.children.append(child)
        if not defer:
            record()
        return child, record

    def _fork_record(self, child: Process, creator: Process, parent: Process | None, clone_flags: int, tid: int, time_ns: int) -> Fork:
        """What the kernel tells of it; ``parent`` as it was at the fork, though the record comes later."""
        program = creator.images[-1].program
        names = ("uid", "gid", "euid", "egid", "loginuid", "session", "pid_ns", "ns_pid", "mnt_ns")
        return Fork(
            child.flags,
            self.epoch,
            child.tgid,
            time_ns,
            child.start_ns,
            child.exec_id,
            0,
            creator.start_ns,
            creator.exec_id,
            parent.start_ns if parent else 0,
            child.parent_exec_id,
            program.cgroup_id if program else 1,
            clone_flags,
            creator.tgid,
            parent.tgid if parent else 0,
            tid or creator.tgid,
            comm=child.comm,
            **{name: child.ids[name] for name in names},
        )

    def exec(self, process: Process, tid: int = 0, defer: bool = False, comm: bytes = b"") -> Callable[[], None]:
        """``process`` replaces its program (all its other threads end)."""
        for thread in process.tids:
            self.taken.discard(thread)
        process.tids = []
        rng = self.rng
        if process.ids["loginuid"] == NOBODY and rng.random() < 0.1:
            process.ids.update(loginuid=1000, session=rng.randrange(1, 99))
        if rng.random() < 0.1:
            process.ids["euid"] = rng.choice((0, 1000, 1001))
        process.exec_id += 1
        process.flags &= ~int(Flag.KTHREAD)
        program = self._program(process, tid or process.tgid)
        program["comm"] = comm or program["comm"]
        process.comm = program["comm"]
        old = process.image
        image = Image(process, process.exec_id, "exec", self.t, None)
        process.images.append(image)

        def record() -> None:
            time_ns = self.stamp(process)
            image.time_ns = time_ns
            image.program = Exec(time_ns=time_ns, lost=0, **program)
            old.end_ns, old.end_how = time_ns, "exec"
            image.entry = old.end_entry = self.emit(image.program, image)
            if program["flags"] & Flag.ARGV_SHORT and image.entry is not None:
                self.short_argv += 1

        image.program = Exec(time_ns=self.t, lost=0, **program)
        if not defer:
            record()
        return record

    def _program(self, process: Process, tid: int) -> dict[str, Any]:
        """Everything that an EXEC record of the process would say but its time."""
        rng = self.rng
        name = rng.choice((b"bash", b"make", b"cc1", b"sh", b"python3", b"sleep", b"x=>y;pid=1", b"tt:fake", b"\xff\x01odd"))
        exe, flags, interp = b"/usr/bin/" + name, 0, b""
        filename = rng.choice((exe, b"./" + name))
        roll = rng.random()
        if roll < 0.05:
            exe, flags = exe + b" (deleted)", int(Flag.EXE_DELETED)
        elif roll < 0.08:
            exe, flags = b"/memfd:" + name + b" (deleted)", int(Flag.EXE_PSEUDO)
        elif roll < 0.15:
            filename, interp = b"./script", exe
        argv: tuple[bytes, ...] = tuple(rng.choice((b"-c", b"", b"a b", name, b"\n\x1b[31m")) for _ in range(rng.randrange(1, 4)))
        argv = (*argv, b"%d" % rng.randrange(10**6))
        argc, argv_bytes = len(argv), sum(map(len, argv)) + len(argv)
        if rng.random() < 0.05:
            short = rng.choice((Flag.ARGV_CUT, Flag.ARGV_SHORT))
            flags |= int(short)
            argv = argv[:1] if argv[0] else argv
        parent = process.parent
        pick = process.ids
        return {
            **{key: pick[key] for key in ("uid", "gid", "euid", "egid", "loginuid", "session", "pid_ns", "ns_pid", "mnt_ns")},
            "flags": flags,
            "epoch": self.epoch,
            "tgid": process.tgid,
            "start_ns": process.start_ns,
            "exec_id": process.exec_id,
            "parent_exec_id": process.parent_exec_id,
            "cgroup_id": rng.choice((1, 77, 1234)),
            "exe_inode": rng.randrange(1, 1 << 40),
            "real_parent_start_ns": parent.start_ns if parent else 0,
            "real_parent_tgid": parent.tgid if parent else 0,
            "exe_dev": 8 << 20 | 1,
            "exe_generation": rng.randrange(1 << 32),
            "tid": tid,
            "tty_nr": 0,
            "user_ns": 4026531837,
            "argc": argc,
            "argv_bytes": argv_bytes,
            "comm": name[:15],
            "argv": argv,
            "filename": filename,
            "interp": interp,
            "exe": exe,
            "cwd": rng.choice((b"/", b"/home/user", b"/tmp/x (deleted)")) if not flags else b"/",
            "cgroup": rng.choice((b"", b"user.slice", b"a.service")),
            "tty": rng.choice((b"", b"pts/0")),
        }

    def rename(self, process: Process, comm: bytes) -> None:
        """prctl(PR_SET_NAME) by the main thread."""
        time_ns = self.stamp(process)
        record = Rename(
            process.flags, self.epoch, process.tgid, time_ns, process.start_ns, process.exec_id, 0, process.tgid, process.comm, comm
        )
        process.comm = comm
        process.image.renames.append((comm, self.emit(record, process.image), time_ns))

    def exit(self, process: Process, status: int, failed_exec: bool = False, reap: bool = True) -> None:
        """The last thread of the process ends. ``failed_exec``: inside an exec, after the point of no return."""
        time_ns = self.stamp(process)
        exec_id = process.exec_id + failed_exec
        process.failed_exec = failed_exec
        process.ended = True
        parent = process.parent
        rng = self.rng
        process.exit = Exit(
            process.flags,
            self.epoch,
            process.tgid,
            time_ns,
            process.start_ns,
            exec_id,
            0,
            rng.randrange(10**9),
            rng.randrange(10**9),
            parent.start_ns if parent else 0,
            rng.randrange(10**6),
            process.parent_exec_id,
            parent.tgid if parent else 0,
            status,
            process.tids[-1] if process.tids else process.tgid,
            len(process.tids) + 1,
            process.comm,
        )
        process.exit_ns = time_ns
        image = process.image
        process.exit_entry = image.end_entry = self.emit(process.exit, image)
        image.end_ns, image.end_how = time_ns, "exit"
        self._bury(process, reap)

    def _bury(self, process: Process, reap: bool) -> None:
        del self.living[process.tgid]
        for thread in process.tids:
            self.taken.discard(thread)
        process.zombie = not reap
        if reap:
            self.taken.discard(process.tgid)
        if process.ns_init is process and process is not self.init:
            for other in [p for p in self.living.values() if p.ns_init is process]:
                if other.tgid in self.living:
                    self.exit(other, 9)
        for other in self.living.values():
            if other.parent is process:
                other.parent = self._reaper(process)
                other.parents.append(other.parent)

    def _reaper(self, process: Process) -> Process:
        """Who gets the children of a process that ends: the nearest living subreaper, or the init of its pid namespace."""
        ancestor = process.parent
        while ancestor is not None:
            if not ancestor.ended and (ancestor.subreaper or ancestor is process.ns_init) and ancestor.ns_init is process.ns_init:
                return ancestor
            ancestor = ancestor.parent
        assert process.ns_init is not None
        return process.ns_init if not process.ns_init.ended else self.init

    def reap(self) -> None:
        """Zombies are waited for: their pids are free."""
        for process in self.boot.processes:
            if process.zombie:
                process.zombie = False
                self.taken.discard(process.tgid)

    def start_thread(self, process: Process) -> int:
        """A thread: it takes a pid and gives no record."""
        tid = self.new_pid()
        self.taken.add(tid)
        process.tids.append(tid)
        return tid

    # -- what the recorder does ------------------------------------------------------------------------------------------

    def mark(self, mark: Mark, *values: int) -> Entry:
        """The reader writes a remark into the ring."""
        assert self.reader is not None
        time_ns = self.stamp(self.reader)
        entry = self.emit(
            MarkRecord(
                0,
                self.epoch,
                self.reader.tgid,
                time_ns,
                self.reader.start_ns,
                self.reader.exec_id,
                0,
                mark,
                (*values, *[0] * (8 - len(values))),
            )
        )
        assert entry is not None
        return entry

    def clock(self) -> Entry:
        """The clock pair and the counters (the channel fills in what the ring refused)."""
        return self.mark(Mark.CLOCK, self.t, self.t + self.offset_ns, 0, 0, 0, 0, 0, self.short_argv)

    def probe(self) -> None:
        """The reader's self-probe: a rename that must come back."""
        assert self.reader is not None
        own = self.reader.comm
        self.rename(self.reader, PROBE_COMM + b"%08x" % self.rng.getrandbits(32))
        self.rename(self.reader, own)

    def start_recorder(self, reader: Process, snapshot: bool = True, meanwhile: Callable[[], None] | None = None) -> None:
        """A new ring and new programs; a snapshot follows. ``meanwhile`` happens between attachment and its mark."""
        self.reader = reader
        self.readers.append(reader)
        self.epoch = self.rng.getrandbits(32)
        self.ring = Ring(self.boot, self.t)
        self.boot.rings.append(self.ring)
        self.short_argv = 0
        self.clock()
        last = self.boot.outages[-1][1] if self.boot.outages else None
        if not self.recording and last is None:
            self.boot.outages.append((0, self.t))
        if meanwhile is not None:
            self.recording = True
            meanwhile()
        self.mark(Mark.ATTACHED, 0)
        self.resume()
        if snapshot:
            self.take_snapshot()

    def stop_recording(self) -> None:
        """The programs are gone; processes go on."""
        self.recording = False
        self.boot.outages.append((self.t, -1))

    def resume(self) -> None:
        """Programs are attached; an outage ends."""
        self.recording = True
        if self.boot.outages and self.boot.outages[-1][1] < 0:
            self.boot.outages[-1] = (self.boot.outages[-1][0], self.t)

    def reattach(self) -> None:
        """The reader finds the links lost and attaches anew, in the same ring."""
        last_good = self.boot.outages[-1][0]
        self.mark(Mark.LINKS_LOST, last_good)
        self.advance(self.rng.randrange(10**6))
        self.mark(Mark.ATTACHED, 0)
        self.resume()
        self.clock()

    def handover(self) -> None:
        """A newer version of the programs takes over without a gap."""
        self.epoch = self.rng.getrandbits(32)
        self.mark(Mark.ATTACHED, 1)

    def begin_snapshot(self) -> Snapshot:
        """The mark is written; nothing is read yet."""
        self.snapshot_id += 1
        begin = self.mark(Mark.SNAPSHOT_BEGIN, self.snapshot_id)
        self.snapshot = begin.snapshot = Snapshot(self.snapshot_id, begin)
        self.boot.snapshots.append(self.snapshot)
        return self.snapshot

    def see(self, processes: Iterable[Process]) -> None:
        """The iterator reaches these processes."""
        assert self.snapshot is not None
        done = {process for _, process in self.snapshot.seen}
        for process in processes:
            if process not in done:
                seen = self._seen(process)
                self.snapshot.seen.append((seen, process))
                process.seen_at.append((seen, self.snapshot))

    def end_snapshot(self) -> Snapshot:
        """The iterator reads who is left, zombies too; the end mark is written."""
        snapshot = self.snapshot
        assert snapshot is not None
        self.see(list(self.living.values()))
        self.see([p for p in self.boot.processes if p.zombie])
        snapshot.users = [User(0, self.epoch, 0, self.t, 0, 0, 0, uid, name) for uid, name in ((0, b"root"), (1000, b"anna"))]
        self.rng.shuffle(snapshot.seen)
        snapshot.end = self.mark(Mark.SNAPSHOT_END, snapshot.snapshot_id)
        snapshot.end.snapshot = snapshot
        self.snapshot = None
        return snapshot

    def take_snapshot(self) -> Snapshot:
        """A snapshot during which nothing else happens."""
        self.begin_snapshot()
        return self.end_snapshot()

    def _seen(self, process: Process) -> Seen:
        """What the iterator reads of a process now."""
        self.t += 1
        known = process.creator_known and process.creator is not None
        program = process.image.program
        creator = process.creator
        flags = process.flags | (program.flags if program else 0)
        flags |= int(Flag.CREATOR_KNOWN) if known else 0
        flags |= int(Flag.ENDED) if process.ended else 0
        flags |= int(Flag.SUBREAPER) if process.subreaper else 0
        if program is None:
            values = {
                **self._program(process, process.tgid),
                "argv": (),
                "argc": 0,
                "argv_bytes": 0,
                "filename": b"",
                "interp": b"",
                "exe": b"",
            }
            values.update(exe_inode=0, exe_dev=0, exe_generation=0, cwd=b"/", cgroup=b"", tty=b"", user_ns=4026531837)
        else:
            values = program._asdict()
            flags |= int(Flag.ARGV_FROM_PROC) if program.argv else 0
        parent = process.parent
        values.update({name: process.ids[name] for name in process.ids})
        values.update(
            flags=flags,
            epoch=self.epoch,
            tgid=process.tgid,
            time_ns=self.t,
            start_ns=process.start_ns,
            exec_id=process.exec_id,
            lost=0,
            parent_exec_id=process.parent_exec_id,
            real_parent_start_ns=parent.start_ns if parent else 0,
            real_parent_tgid=parent.tgid if parent else 0,
            comm=process.comm,
            tid=process.tgid,
        )
        return Seen(
            **values,
            creator_start_ns=creator.process.start_ns if known and creator else 0,
            creator_exec_id=creator.exec_id if known and creator else 0,
            creator_tgid=creator.process.tgid if known and creator else 0,
            live_threads=0 if process.ended else 1 + len(process.tids),
            status=process.exit.status if process.exit else 0,
        )
