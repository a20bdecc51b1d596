"""Every field of an EXEC and a SEEN record against /proc, for every kind of process that somebody may come upon."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_tools import Live, wait_until

from schemas import events, limits
from schemas.batch import decode_batch, frames
from schemas.events import Flag
from schemas.identity import TICK_NS

UNIFIED = next(
    Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines() if line.split(" - ")[1].split()[0] == "cgroup2"
)
LEAF = "cri-containerd-" + "a" * 64 + ".scope"

OVERLAY = (
    "mount -t tmpfs t $WORK/ov/up && mkdir $WORK/ov/up/u $WORK/ov/up/w && "
    "mount -t overlay o -o lowerdir=$WORK/ov/low,upperdir=$WORK/ov/up/u,workdir=$WORK/ov/up/w $WORK/ov/on"
)
SAME = "mount -t overlay o -o lowerdir=$WORK/root,upperdir=$WORK/ov/up2,workdir=$WORK/ov/work2 $WORK/ov/on"
TMPFS = "mount -t tmpfs t $WORK/on"
OVERLAY_DIFFERS = ("exe_dev", "exe_inode")
"""stat(2) on an overlay gives numbers made up by it; the record has those of the overlay's own inode."""


class Case(NamedTuple):
    """One kind of process.

    name      for showing
    command   for /bin/sh, with $SLEEPER, $LAUNCH, $MARK, $WORK, $CGROUP
    comm      of the process that is compared
    flags     that its EXEC record must have, of those that are about paths and arguments
    differs   fields that /proc gives otherwise
    since     Linux version that can do it
    nameless  run by a descriptor alone: that one's number is the comm before Linux 6.14, or where that change was not taken back
    """

    name: str
    command: str
    comm: str = "sleeper"
    flags: Flag = Flag(0)
    differs: tuple[str, ...] = ()
    since: tuple[int, int] = (5, 10)
    nameless: bool = False


CASES = (
    Case("plain", "exec $SLEEPER $MARK"),
    Case("script", "exec $WORK/script $MARK", "script"),
    Case("script-of-script", "exec $WORK/script2 $MARK", "script2"),
    Case("script-relative", "cd $WORK && exec ./script $MARK", "script"),
    Case("symlink", "exec $WORK/link $MARK", "link"),
    Case("memfd", "exec $LAUNCH memfd $MARK", "memfd:my memfd", Flag.EXE_PSEUDO, nameless=True),
    Case("deleted", "exec $LAUNCH deleted $MARK", "gone_file", Flag.EXE_DELETED, nameless=True),
    Case("execveat", "exec $LAUNCH execveat $MARK"),
    Case("cwd-deleted", "exec $LAUNCH cwd-deleted $MARK", flags=Flag.CWD_DELETED),
    Case("deep-60x20", "exec $LAUNCH deep $MARK 60 20"),
    Case("deep-15x255", "exec $LAUNCH deep $MARK 15 255"),
    Case("deep-200x3", "exec $LAUNCH deep $MARK 200 3"),
    Case("deep-300x3", "exec $LAUNCH deep $MARK 300 3", flags=Flag.CWD_CUT, differs=("cwd",)),
    Case("argv-3000", "exec $LAUNCH argv $MARK 1000"),
    Case("argv-200000", "exec $LAUNCH argv $MARK 100000", flags=Flag.ARGV_CUT),
    Case("argv-empty-name", "exec $LAUNCH no-argv0 $MARK"),
    Case("odd-bytes", "exec $LAUNCH odd-bytes $MARK", "we ird\n\udcff\udcc3name"),
    Case("thread-execs", "exec $LAUNCH thread $MARK"),
    Case("thread-execs-leader-gone", "exec $LAUNCH thread-leader-gone $MARK"),
    Case("vfork", "exec $LAUNCH vfork $MARK"),
    Case("clone-parent", "exec $LAUNCH clone-parent $MARK"),
    Case("chroot", "exec $LAUNCH chroot $MARK $WORK/root /bin /bin/sleeper", flags=Flag.CHROOT),
    Case("chroot-cwd-outside", "cd $WORK && exec $LAUNCH chroot $MARK $WORK/root . ./sleeper", flags=Flag.CHROOT),
    Case(
        "chroot-to-mount",
        "exec unshare -m sh -c 'mount --bind $WORK/root $WORK/root && exec $LAUNCH chroot $MARK $WORK/root /bin /bin/sleeper'",
        flags=Flag.CHROOT,
    ),
    Case("mount-namespace", "exec unshare -m $SLEEPER $MARK"),
    Case("bind-directory", "exec unshare -m sh -c 'mount --bind $WORK/root/bin $WORK/on && cd $WORK/on && exec $WORK/on/sleeper $MARK'"),
    Case("bind-file", "exec unshare -m sh -c 'mount --bind $SLEEPER $WORK/file && exec $WORK/file $MARK'", "file"),
    Case("tmpfs", f"exec unshare -m sh -c '{TMPFS} && cp $SLEEPER $WORK/on/ && cd $WORK/on && exec $WORK/on/sleeper $MARK'"),
    Case(
        "tmpfs-stacked",
        f"exec unshare -m sh -c '{TMPFS} && {TMPFS} && cp $SLEEPER $WORK/on/ && cd $WORK/on && exec $WORK/on/sleeper $MARK'",
    ),
    Case("pivot-root", "exec $LAUNCH pivot $MARK $WORK/root"),
    Case("lazy-umount", "exec $LAUNCH lazy-umount $MARK", flags=Flag.EXE_DETACHED | Flag.CWD_DETACHED),
    Case(
        "overlay-lower",
        f"exec unshare -m sh -c '{OVERLAY} && cd $WORK/ov/on/bin && exec $WORK/ov/on/bin/sleeper $MARK'",
        differs=OVERLAY_DIFFERS,
    ),
    Case(
        "overlay-upper",
        f"exec unshare -m sh -c '{OVERLAY} && cp $SLEEPER $WORK/ov/on/bin/other && cd $WORK/ov/on/bin && exec $WORK/ov/on/bin/other $MARK'",
        "other",
        differs=OVERLAY_DIFFERS,
    ),
    Case(
        "overlay-same-device",
        f"exec unshare -m sh -c '{SAME} && cd $WORK/ov/on/bin && exec $WORK/ov/on/bin/sleeper $MARK'",
        differs=OVERLAY_DIFFERS,
    ),
    Case("overlay-pivot", f"exec unshare -m sh -c '{SAME} && exec $LAUNCH pivot $MARK $WORK/ov/on'", differs=OVERLAY_DIFFERS),
    Case("pid-namespace", "exec unshare -pf --mount-proc $SLEEPER $MARK"),
    Case("pid-namespace-twice", "exec unshare -pf unshare -pf $SLEEPER $MARK"),
    Case("user-namespace", "exec unshare -Ur $SLEEPER $MARK"),
    Case("time-namespace", "exec unshare -T --boottime 100000 -f $SLEEPER $MARK"),
    Case("set-user-id", "exec $LAUNCH setuid $MARK $WORK/suid", "suid"),
    Case("ids", "exec $LAUNCH ids $MARK"),
    Case("loginuid", "exec $LAUNCH loginuid $MARK"),
    Case("terminal", 'exec script -qc "$SLEEPER $MARK" /dev/null'),
    Case("session-without-terminal", "setsid $SLEEPER $MARK & exec sleep 60"),
    Case("cgroup-leaf", "echo $$ > $CGROUP/cgroup.procs && exec $SLEEPER $MARK"),
    Case("cgroup-namespace", "echo $$ > $CGROUP/cgroup.procs && exec unshare -C $SLEEPER $MARK"),
    Case(
        "binfmt-misc",
        "exec unshare -Urm sh -c 'mount -t binfmt_misc b $WORK/on && "
        'echo ":tt:M::TTX1::$SLEEPER:" > $WORK/on/register && exec $WORK/program.ttx $MARK\'',
        "program.ttx",
        since=(6, 7),
    ),
    Case("helper-of-kernel", "$WORK/kernel_helper; exec sleep 60", "agent"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Iterator[Path]:
    """The files that the cases use, and a cgroup."""
    base = tmp_path_factory.mktemp("work")
    for path in (base, *list(base.parents)[:2]):
        path.chmod(0o755)
    for name in ("root/bin", "root/old", "ov/low/bin", "ov/up", "ov/on", "ov/up2", "ov/work2", "on"):
        (base / name).mkdir(parents=True)
    sleeper = programs / "sleeper"
    for name in ("root/bin/sleeper", "ov/low/bin/sleeper", "suid"):
        shutil.copy(sleeper, base / name)
    # Inside a changed root there are no shared libraries.
    if "TASKTRAIL_PROGRAMS" in os.environ:
        shutil.copy(sleeper, base / "sleeper")
    else:
        static = ["gcc", "-O1", "-static", "-o", str(base / "sleeper"), str(Path(__file__).parent / "programs/sleeper.c")]
        subprocess.run(static, check=True)
    shutil.copy(base / "sleeper", base / "root/bin/sleeper")
    os.chmod(base / "suid", 0o6755)
    scripts = {"script": f"#!{sleeper} -flag x\n", "script2": f"#!{base}/script more\n", "file": "", "program.ttx": "TTX1 body\n"}
    scripts["kernel_helper"] = KERNEL_HELPER
    for name, text in scripts.items():
        (base / name).write_text(text)
        (base / name).chmod(0o755)
    (base / "link").symlink_to(sleeper)
    cgroup = UNIFIED / f"tasktrail-test-{os.getpid()}" / LEAF
    cgroup.mkdir(parents=True)
    (base / "cgroup").symlink_to(cgroup)
    yield base
    wait_until(lambda: not (cgroup / "cgroup.procs").read_text(), "the end of all processes in the cgroup")
    cgroup.rmdir()
    cgroup.parent.rmdir()


KERNEL_HELPER = """#!/bin/sh -e
# The kernel itself starts a program when the last process of such a cgroup ends.
mkdir -p $WORK/helper
mount -t cgroup -o none,name=tasktrail-test none $WORK/helper
trap 'rmdir $WORK/helper/a; umount $WORK/helper' EXIT
printf "#!$SLEEPER $MARK\\n" > $WORK/agent
chmod 755 $WORK/agent
echo $WORK/agent > $WORK/helper/release_agent
mkdir $WORK/helper/a
echo 1 > $WORK/helper/a/notify_on_release
sh -c 'echo 0 > $WORK/helper/a/cgroup.procs; exec /bin/true'
"""


def link(pid: int, name: str) -> bytes:
    """Target of a link in /proc/PID."""
    return os.readlink(f"/proc/{pid}/{name}".encode())


def text(pid: int, name: str) -> str:
    """A file in /proc/PID without its last newline."""
    return os.fsdecode(Path(f"/proc/{pid}/{name}").read_bytes().removesuffix(b"\n"))


def of_proc(pid: int, seen: bool) -> dict[str, object]:
    """What /proc says of a process, by the record's field names."""
    stat = text(pid, "stat").rsplit(")", 1)[1].split()
    status = dict(line.split(":\t", 1) for line in text(pid, "status").split("\n") if ":\t" in line)
    uid, euid = map(int, status["Uid"].split()[:2])
    gid, egid = map(int, status["Gid"].split()[:2])
    exe = os.stat(f"/proc/{pid}/exe")
    group = next(line[3:] for line in text(pid, "cgroup").split("\n") if line.startswith("0::"))
    argv = Path(f"/proc/{pid}/cmdline").read_bytes()
    facts: dict[str, object] = {
        "exe": link(pid, "exe"),
        "cwd": link(pid, "cwd"),
        "argv": events.argv_of(argv[: limits.ARGV_BYTES_MAX]),
        "argc": argv.count(b"\0"),
        "argv_bytes": len(argv),
        "comm": os.fsencode(text(pid, "comm")),
        "start ticks": int(stat[19]),
        "real_parent_tgid": int(stat[1]),
        "tty_nr": int(stat[4]),
        "exe_dev": os.major(exe.st_dev) << 20 | os.minor(exe.st_dev),
        "exe_inode": exe.st_ino,
        "uid": uid,
        "euid": euid,
        "gid": gid,
        "egid": egid,
        "loginuid": int(text(pid, "loginuid")),
        "session": int(text(pid, "sessionid")),
        "ns_pid": int(status["NSpid"].split()[-1]),
        **{
            name: int(link(pid, "ns/" + kind)[len(kind) + 2 : -1])
            for name, kind in (("pid_ns", "pid"), ("mnt_ns", "mnt"), ("user_ns", "user"))
        },
        "cgroup": os.fsencode(group.rsplit("/", 1)[1]),
        "cgroup_id": os.stat(str(UNIFIED) + group).st_ino,
    }
    if int(stat[4]):
        facts["tty"] = link(pid, "fd/0").removeprefix(b"/dev/")
    if seen:
        facts["live_threads"] = int(stat[17])
        facts["tid"] = pid
    return facts


def of_record(record: events.Exec | events.Seen) -> dict[str, object]:
    """The record's fields, start time in clock ticks."""
    return {**record._asdict(), "start ticks": record.start_ns // TICK_NS}


def differing(record: events.Exec | events.Seen, facts: dict[str, object]) -> dict[str, tuple[object, object]]:
    """Fields in which the record is not what /proc says: (record, /proc)."""
    recorded = of_record(record)
    return {name: (recorded[name], value) for name, value in facts.items() if recorded[name] != value}


_PATHS_AND_ARGUMENTS = Flag((Flag.CHROOT << 1) - 1) | Flag.PATH_RACED


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_records_are_what_proc_says(case: Case, live: Live, programs: Path, work: Path) -> None:
    version = tuple(map(int, os.uname().release.split(".")[:2]))
    if version < case.since:
        pytest.skip(f"Linux {case.since[0]}.{case.since[1]} brought what this needs")
    mark = f"MARK{os.getpid()}-{case.name}"
    names = {
        "SLEEPER": str(programs / "sleeper"),
        "LAUNCH": str(programs / "launch"),
        "WORK": str(work),
        "MARK": mark,
        "CGROUP": os.path.realpath(work / "cgroup"),
    }
    shell = subprocess.Popen(
        ["/bin/sh", "-c", case.command],
        env={**os.environ, **names},
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pids = {shell.pid}
    try:

        def found() -> events.Exec | None:
            live.read()
            started = [record for record in live.records if isinstance(record, events.Exec) and mark.encode() in record.argv]
            pids.update(record.tgid for record in started)
            fitting = [
                record for record in started if record.comm == os.fsencode(case.comm)[:15] or (case.nameless and record.comm.isdigit())
            ]
            if not fitting and shell.poll() is not None:
                assert shell.stderr
                pytest.fail(f"{case.command} ended: {shell.stderr.read()!r}; execs: {[(r.comm, r.filename) for r in started]}")
            return fitting[-1] if fitting else None

        record = wait_until(found, f"the exec of {case.comm} with {mark}")
        problems = differing(record, of_proc(record.tgid, seen=False))
        assert {name: pair for name, pair in problems.items() if name not in case.differs} == {}
        assert Flag(record.flags) & _PATHS_AND_ARGUMENTS == case.flags

        batch = live.recorder.snapshot()
        records = [events.decode_record(batch.body, at, size) for at, size in frames(batch.body)]
        (seen,) = [one for one in records if isinstance(one, events.Seen) and one.tgid == record.tgid]
        problems = differing(seen, of_proc(record.tgid, seen=True))
        assert {name: pair for name, pair in problems.items() if name not in case.differs} == {}
        kept = Flag.ARGV_CUT | Flag.CREATOR_KNOWN | Flag.ARGV_FROM_PROC | Flag.SUBREAPER
        assert Flag(seen.flags) & ~kept == case.flags & ~kept
        assert (seen.start_ns, seen.exec_id) == (record.start_ns, record.exec_id)
        (fork,) = [one for one in live.of(record.tgid) if isinstance(one, events.Fork)]
        creator = (fork.creator_tgid, fork.creator_start_ns, fork.creator_exec_id)
        assert (seen.creator_tgid, seen.creator_start_ns, seen.creator_exec_id) == creator
        assert decode_batch(live.recorder.pending_snapshots()[-1]) == batch
    finally:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shell.wait()
        assert shell.stderr
        shell.stderr.close()
        live.recorder.discard_snapshots(1 << 62)


def test_a_path_that_was_mixed_by_renames_is_flagged(live: Live, programs: Path, tmp_path: Path) -> None:
    renaming = subprocess.Popen([programs / "renames", "6000"], env={**os.environ, "WORK": str(tmp_path)})

    def ended() -> bool:
        live.read()  # or other people's processes fill the ring meanwhile
        return renaming.poll() is not None

    wait_until(ended, "the end of 6,000 execs", 120)
    assert renaming.returncode == 0
    live.catch_up()
    ways = ("one/deep/aaa", "two/bbbbbbb", "one/deep/" + "c" * 45, "one/deep/dd")
    right = {os.fsencode(tmp_path / way / "program") for way in ways}
    images = [record for record in live.records if isinstance(record, events.Exec) and record.exe.endswith(b"/program")]
    assert len(images) == 6000
    assert [image.exe for image in images if image.exe not in right and not image.flags & Flag.PATH_RACED] == []
    assert len({image.exe for image in images}) > 1, "the directory did move meanwhile"


DIVE = """
import os, shutil, sys
sleeper, levels, length, inside = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "exe"
for _ in range(levels):
    os.mkdir("d" * length)
    os.chdir("d" * length)
if inside:
    shutil.copy(sleeper, "sleeper")
os.execv("./sleeper" if inside else sleeper, ["sleeper"])
"""
TOO_DEEP = [("cwd", 60, 250, 40), ("cwd", 47, 255, 40), ("cwd", 300, 40, 256), ("exe", 60, 250, 40), ("exe", 300, 40, 255)]


@pytest.mark.parametrize(("what", "levels", "length", "least"), TOO_DEEP)
def test_a_path_longer_than_a_record_is_cut_and_nothing_else_is_touched(
    live: Live, programs: Path, tmp_path: Path, what: str, levels: int, length: int, least: int
) -> None:
    """/proc tells no such path, but the test knows it. What is kept are the names nearest to the file."""
    live.forget()
    words = [str(programs / "sleeper"), str(levels), str(length), what]
    deep = subprocess.Popen([sys.executable, "-c", DIVE, *words], cwd=tmp_path)
    try:

        def found() -> events.Exec | None:
            live.read()
            return next((one for one in live.of(deep.pid) if isinstance(one, events.Exec) and one.comm == b"sleeper"), None)

        image = wait_until(found, "the exec in the deep directory")
        batch = live.recorder.snapshot()
        records = (events.decode_record(batch.body, at, size) for at, size in frames(batch.body))
        seen = next(one for one in records if isinstance(one, events.Seen) and one.tgid == deep.pid)
        group = text(deep.pid, "cgroup").splitlines()[-1].rpartition("/")[2]
        for record in (image, seen):
            *names, last = (record.exe if what == "exe" else record.cwd).strip(b"./").split(b"/")
            assert {*names, last.removesuffix(b"sleeper") or names[0]} == {b"d" * length} and least <= len(names) + 1 <= levels
            assert record.flags & Flag.EXE_CUT == (Flag.EXE_CUT if what == "exe" else 0)
            assert record.flags & Flag.CWD_CUT and not record.flags & Flag.PATH_RACED
            assert record.cgroup == os.fsencode(group)
            assert (record.exe == os.fsencode(programs / "sleeper")) == (what == "cwd")
    finally:
        deep.kill()
        deep.wait()
