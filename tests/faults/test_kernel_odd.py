"""Unusual births and ends: each has its row, its creator, and the status that wait(2) gave."""

import signal
import subprocess
from pathlib import Path

import pytest
from kernel_tools import output

from schemas.rows import EndKind, ImageKind
from tests.faults.cgroups import cgroup
from tests.faults.kernel_host import Joined


def check(host: Joined, tgid: int, status: int, creator: str) -> None:
    """The row of the child says what wait(2) said."""
    host.read()
    row = host.newest(tgid)
    known = {one.task_id: one for one in host.images}
    assert (row.end_kind, row.chain_lost) == (EndKind.EXIT, 0), host.losses
    assert (row.exit_code, row.exit_signal) == ((status >> 8, 0) if not status & 0x7F else (0, status & 0x7F))
    assert known[row.creator_id].comm == creator.encode()


@pytest.mark.parametrize(
    ("way", "ended"),
    [
        ("seccomp", signal.SIGSYS),
        ("killed", signal.SIGKILL),
        ("never-ran", signal.SIGKILL),
        ("clone3", 23 << 8),
        ("posix_spawn", 24 << 8),
        ("namespace", 25 << 8),
    ],
)
def test_an_odd_birth_or_end(host: Joined, programs: Path, way: str, ended: int) -> None:
    ((tgid, status),) = [map(int, words) for words in output(programs / "odd", way)]
    assert status & ~0x80 == ended
    check(host, tgid, status, "odd")
    row = host.newest(tgid)
    assert row.kind == (ImageKind.EXEC if way == "posix_spawn" else ImageKind.FORK)
    assert (row.ns_pid == 1) == (way == "namespace")


def test_an_end_by_the_memory_limit(host: Joined, programs: Path) -> None:
    script = 'echo $$ > "$1"; exec "$2" memory'
    with cgroup("memory", 32 << 20) as members:
        ((tgid, status),) = [map(int, words) for words in output("/bin/sh", "-c", script, "sh", members, programs / "odd")]
    assert status == signal.SIGKILL
    check(host, tgid, status, "odd")
    assert host.newest(tgid).max_rss_kib > 8_000


def test_a_double_fork_below_a_subreaper(host: Joined, programs: Path) -> None:
    script = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
middle = os.fork()
if not middle:
    daemon = os.fork()
    if daemon:
        os._exit(0)
    os.read(0, 1)
    os._exit(os.getppid() != int(os.environ["TOP"]))
os.waitpid(middle, 0)
os.environ["TOP"] = str(os.getpid())
print(os.getpid(), middle, flush=True)
os.close(0)
pid, status = os.wait()
print(pid, status, flush=True)
"""
    top = subprocess.Popen(
        ["/usr/bin/python3", "-c", script.replace('int(os.environ["TOP"])', "os.getppid()")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert top.stdout is not None
    reaper, middle = map(int, top.stdout.readline().split())
    words = top.communicate()[0].split()
    daemon, status = map(int, words)
    host.read()
    row, above = host.newest(daemon), host.newest(middle)
    assert row.creator_id == above.task_id and above.creator_tgid == reaper
    assert (row.end_parent_tgid, row.exit_code) == (reaper, status >> 8), "the kernel's parent at its end is the subreaper"


def test_a_container_like_root(host: Joined, tmp_path: Path) -> None:
    root = tmp_path / "root"
    script = f"""
mkdir -p {root}/bin {root}/lib {root}/lib64 {root}/usr && mount --bind /usr {root}/usr
for one in bin lib lib64; do rmdir {root}/$one; ln -s usr/$one {root}/$one; done
exec chroot {root} /bin/sh -c 'exit 26'
"""
    inside = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "/bin/sh", "-c", script])
    assert inside.wait() == 26
    host.read()
    rows = [row for row in host.images if row.argv == (b"/bin/sh", b"-c", b"exit 26")]
    assert len(rows) == 1
    (row,) = rows
    assert (row.exit_code, row.ns_pid, row.chain_lost) == (26, 1, 0)
    assert row.flags == (b"chroot",) and row.chain_comm[-2:] == (b"chroot", b"sh")
    # The path is that of the mount that it came from, seen from the top of its mount tree.
    assert row.exe.startswith(str(root).encode() + b"/usr/") and row.cwd == str(root).encode()
