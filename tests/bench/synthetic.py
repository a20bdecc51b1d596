"""Rows as a busy build host makes them, from one seed: sessions, builds, cron jobs, container services; ancestors 3 to 9 deep."""

import random
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from schemas.identity import NIL, task_id
from schemas.rows import ImageRow

SECOND = 10**9
EPOCH = 1_795_000_000 * SECOND
"""Wall clock at the hosts' boot."""

BUILD = (
    ("/usr/bin/dash", b"sh", (b"/bin/sh", b"-c")),
    (
        "/usr/lib/gcc/x86_64-linux-gnu/14/cc1",
        b"cc1",
        (b"/usr/lib/gcc/x86_64-linux-gnu/14/cc1", b"-quiet", b"-I", b"./include", b"-D_GNU_SOURCE"),
    ),
    ("/usr/bin/x86_64-linux-gnu-as", b"as", (b"as", b"--64", b"-I", b"./include")),
    ("/usr/bin/x86_64-linux-gnu-gcc-14", b"gcc", (b"gcc", b"-O2", b"-Wall", b"-Werror", b"-c")),
    ("/usr/bin/sed", b"sed", (b"sed", b"-e", b"s/x/y/")),
    ("/usr/bin/rm", b"rm", (b"rm", b"-f")),
)
CRON = (
    ("/usr/bin/dash", b"sh", (b"/bin/sh", b"-c", b"/usr/local/bin/collect --once")),
    ("/usr/bin/python3.13", b"python3", (b"/usr/bin/python3", b"/usr/local/bin/collect", b"--once")),
    ("/usr/bin/curl", b"curl", (b"curl", b"-fsS", b"http://metrics.internal/push")),
)


class Host:
    """One host's processes, in order of their start."""

    def __init__(self, number: int, seed: int) -> None:
        self.random = random.Random(f"{seed}:{number}")
        self.host_id = UUID(int=self.random.getrandbits(128))
        self.boot_id = UUID(int=self.random.getrandbits(128))
        self.name = b"build-%02d.example.net" % number
        self.now = SECOND
        self.tgid = 0
        self.position = 0
        self.root = self._start(None, "/usr/lib/systemd/systemd", b"systemd", (b"/sbin/init",), b"/", b"init.scope")
        self.cron = self._start(self.root, "/usr/sbin/cron", b"cron", (b"/usr/sbin/cron", b"-f"), b"/", b"cron.service")
        self.sshd = self._start(self.root, "/usr/sbin/sshd", b"sshd", (b"sshd: /usr/sbin/sshd -D",), b"/", b"ssh.service")
        self.shell = self._session()

    def rows(self) -> Iterator[ImageRow]:
        """Ended images for ever: builds with some cron jobs and logins between them."""
        while True:
            draw = self.random.random()
            if draw < 0.02:
                self.shell = self._session()
            elif draw < 0.1:
                yield from self._line(self.cron, CRON, b"/root")
            else:
                yield from self._make()

    def _session(self) -> ImageRow:
        shell = self._start(self.sshd, "/usr/sbin/sshd", b"sshd", (b"sshd: dev [priv]",), b"/", b"session-%d.scope" % self.tgid)
        return self._start(shell, "/usr/bin/bash", b"bash", (b"-bash",), b"/home/dev", shell.cgroup)

    def _make(self) -> Iterator[ImageRow]:
        where = b"/home/dev/src/project%d" % self.random.randrange(20)
        make = self._start(self.shell, "/usr/bin/make", b"make", (b"make", b"-j8", b"all"), where, self.shell.cgroup)
        for _ in range(self.random.randrange(2, 8)):
            inner = self._start(
                make, "/usr/bin/make", b"make", (b"make", b"-f", b"./scripts/Makefile.build", b"obj=drivers"), where, make.cgroup
            )
            for _ in range(self.random.randrange(5, 40)):
                yield from self._line(inner, BUILD, where)
            yield self._end(inner)
        yield self._end(make)

    def _line(self, parent: ImageRow, programs: tuple[tuple[str, bytes, tuple[bytes, ...]], ...], where: bytes) -> Iterator[ImageRow]:
        for exe, comm, argv in programs:
            file = b"file%06d.o" % self.random.randrange(200_000)
            child = self._start(parent, exe, comm, (*argv, file), where, parent.cgroup)
            yield self._end(child)
            if comm == b"sh":
                parent = child

    def _end(self, row: ImageRow) -> ImageRow:
        draw = self.random
        duration = int(draw.expovariate(1 / 50_000_000)) + 400_000
        return row._replace(
            duration=duration,
            end_kind=1,
            exit_code=int(draw.random() < 0.03),
            utime=duration // 3,
            stime=duration // 9 // 1000 * 1000,
            max_rss_kib=draw.randrange(1500, 60_000),
            end_parent_tgid=row.parent_tgid,
            version=(row.begin_boottime + duration) * 4 + 2,
        )

    def _start(self, parent: ImageRow | None, exe: str, comm: bytes, argv: tuple[bytes, ...], cwd: bytes, cgroup: bytes) -> ImageRow:
        draw = self.random
        self.now += int(draw.expovariate(1 / 8_000_000)) + 50_000
        self.tgid = self.tgid % 4_194_303 + draw.choice((1, 1, 1, 2, 3))
        self.position += draw.randrange(400, 700) // 8 * 8
        start = EPOCH + self.now
        name = task_id(self.host_id, self.boot_id, self.tgid, self.now)
        up, inside, begin = parent, b"session" in cgroup, draw.randrange(150_000, 600_000)
        values: dict[str, Any] = {
            "host_id": self.host_id,
            "host": self.name,
            "boot_id": self.boot_id,
            "task_id": name,
            "tgid": self.tgid,
            "start_boottime": self.now,
            "exec_id": up.exec_id + 1 if up else 1,
            "kind": 1,
            "start": start,
            "begin": start + begin,
            "begin_boottime": self.now + begin,
            "comm": comm,
            "exe": exe.encode(),
            "filename": exe.encode(),
            "argv": argv,
            "argc": len(argv),
            "argv_bytes": sum(map(len, argv)) + len(argv),
            "cwd": cwd,
            "exe_dev": 0x10300002,
            "exe_inode": hash_of(exe),
            "uid": 1000 if inside else 0,
            "gid": 1000 if inside else 0,
            "euid": 1000 if inside else 0,
            "egid": 1000 if inside else 0,
            "user": b"dev" if inside else b"root",
            "loginuid": 1000 if inside else 2**32 - 1,
            "login_user": b"dev" if inside else b"",
            "session": 5 if inside else 2**32 - 1,
            "tty": b"pts/0" if inside else b"",
            "cgroup": cgroup,
            "cgroup_id": hash_of(cgroup.decode()),
            "pid_ns": 4026531836,
            "ns_pid": self.tgid,
            "mnt_ns": 4026531841,
            "user_ns": 4026531837,
            "creator_id": up.task_id if up else NIL,
            "creator_tgid": up.tgid if up else 0,
            "creator_exec_id": up.exec_id if up else 0,
            "creator_tid": up.tgid if up else 0,
            "clone_flags": 0x4111 if draw.random() < 0.5 else 0x1200011,
            "parent_id": up.task_id if up else NIL,
            "parent_tgid": up.tgid if up else 0,
            "ancestor_ids": (up.task_id, *up.ancestor_ids) if up else (),
            "chain_kind": (*up.chain_kind, 1) if up else (1,),
            "chain_tgid": (*up.chain_tgid, self.tgid) if up else (self.tgid,),
            "chain_exec_id": (*up.chain_exec_id, up.exec_id + 1) if up else (1,),
            "chain_start": (*up.chain_start, start) if up else (start,),
            "chain_comm": (*up.chain_comm, comm) if up else (comm,),
            "chain_exe": (*up.chain_exe, exe.encode()) if up else (exe.encode(),),
            "chain_complete": 1,
            "ring_id": 77,
            "position": self.position,
            "epoch": 0x1234,
            "seen": start // SECOND,
            "version": self.now * 4,
        }
        return ImageRow(**(EMPTY | values))


_ZERO = (
    "duration end_kind exit_code exit_signal core_dumped exec_failed utime stime max_rss_kib exe_generation end_parent_tgid chain_before "
    "chain_cut chain_lost ancestors_cut lost_from lost_to"
)
EMPTY: dict[str, Any] = {**dict.fromkeys(_ZERO.split(), 0), "renamed": b"", "interp": b"", "flags": ()}


def hash_of(text: str) -> int:
    """A number like an inode's, the same in every process."""
    return sum(byte * 257**at for at, byte in enumerate(text.encode()[-6:])) % 9_000_000


def batches(hosts: int, rows: int, size: int, seed: int = 1) -> Iterator[list[ImageRow]]:
    """``rows`` rows of so many hosts, in batches of one host each."""
    streams = [Host(number, seed).rows() for number in range(hosts)]
    made = 0
    while made < rows:
        for stream in streams:
            yield [next(stream) for _ in range(size)]
            made += size
