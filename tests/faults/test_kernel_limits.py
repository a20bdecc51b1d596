"""Everything that has a limit, driven beyond it: flagged, bounded, and what happens beside it is untouched."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from kernel_tools import output

from schemas import limits
from schemas.rows import EndKind, ImageKind, ImageRow
from tests.faults.kernel_host import Joined

BIG = 128 * 1024 - 100
"""Bytes of one argument; execve takes no longer ones than 128 KiB."""


@contextmanager
def neighbours(host: Joined) -> Iterator[None]:
    """What ran before and after is told in full."""
    before = run("/bin/true", "before", "x y")
    yield
    after = run("/bin/true", "after", "")
    host.read()
    for tgid, argv in ((before, (b"/bin/true", b"before", b"x y")), (after, (b"/bin/true", b"after", b""))):
        row = host.newest(tgid)
        assert (row.argv, row.flags, row.chain_lost, row.end_kind, row.exit_code) == (argv, (), 0, EndKind.EXIT, 0)


def run(*command: str, **options: object) -> int:
    """Run it to its end; its pid."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    assert process.wait() == 0
    return int(process.pid)


def told(host: Joined, tgid: int) -> ImageRow:
    """The row of a process that has ended."""
    host.read()
    row = host.newest(tgid)
    assert (row.kind, row.end_kind, row.chain_lost) == (ImageKind.EXEC, EndKind.EXIT, 0)
    return row


def test_two_megabytes_of_arguments(host: Joined) -> None:
    with neighbours(host):
        arguments = ["x" * BIG] * 14
        row = told(host, run("/bin/true", *arguments))
    assert (row.argc, row.argv_bytes) == (15, len("/bin/true") + 1 + 14 * (BIG + 1))
    assert row.flags == (b"argv_cut",)
    assert row.argv[0] == b"/bin/true" and set(row.argv[1]) == {ord("x")}
    assert sum(len(one) + 1 for one in row.argv) <= limits.ARGV_BYTES_MAX + 1


def test_a_hundred_thousand_arguments(host: Joined) -> None:
    with neighbours(host):
        row = told(host, run("/bin/true", *["y"] * 100_000))
    assert (row.argc, row.argv_bytes, row.flags) == (100_001, len("/bin/true") + 1 + 200_000, (b"argv_cut",))
    assert set(row.argv[1:]) == {b"y"}


def test_an_environment_of_two_megabytes_is_no_argument(host: Joined) -> None:
    with neighbours(host):
        row = told(host, run("/bin/true", "argument", env={f"NAME{n}": "z" * BIG for n in range(14)}))
    assert (row.argv, row.argc, row.flags) == ((b"/bin/true", b"argument"), 2, ())


def test_a_path_as_long_as_paths_can_be(host: Joined, tmp_path: Path) -> None:
    directory = tmp_path
    while len(str(directory)) + 202 < 4_095 - 10:
        directory /= "d" * 200
    directory.mkdir(parents=True)
    program = directory / ("p" * (4_095 - len(str(directory)) - 1))
    assert len(str(program)) == 4_095
    shutil.copy("/bin/true", program)
    with neighbours(host):
        row = told(host, run("short", executable=str(program)))
    assert row.exe == os.fsencode(program)
    assert row.filename == os.fsencode(program)[: len(row.filename)] and len(row.filename) >= limits.FILENAME_BYTES_MAX - 1
    assert row.flags == (b"filename_cut",)


def test_a_directory_five_hundred_deep(host: Joined, tmp_path: Path) -> None:
    script = """
import os, shutil, sys
for _ in range(500):
    os.mkdir("deep"); os.chdir("deep")
shutil.copy("/bin/true", "program")
os.execv("./program", ["program"])
"""
    with neighbours(host):
        row = told(host, run(sys.executable, "-c", script, cwd=tmp_path))
    assert set(row.flags) == {b"exe_cut", b"cwd_cut"}
    assert row.exe.endswith(b"deep/deep/program") and row.cwd.endswith(b"/deep/deep") and not row.exe.startswith(b"/")
    assert row.filename == b"./program"
    subprocess.run(["rm", "-rf", str(tmp_path / "deep")], check=True)


def test_a_chain_of_three_hundred_execs(host: Joined) -> None:
    script = 'test "$1" -gt 0 || exit 7; exec /bin/sh -c "$2" sh $(($1 - 1)) "$2"'
    with neighbours(host):
        process = subprocess.Popen(["/bin/sh", "-c", script, "sh", "300", script])
        assert process.wait() == 7
        host.read()
        images = sorted((row for row in host.images if row.tgid == process.pid and row.kind == ImageKind.EXEC), key=lambda row: row.exec_id)
    assert len(images) == 301
    assert [later.exec_id - earlier.exec_id for earlier, later in pairwise(images)] == [1] * 300
    last = images[-1]
    assert len({row.task_id for row in images}) == 1 and (last.exit_code, last.end_kind) == (7, EndKind.EXIT)
    assert len(last.chain_tgid) == limits.CHAIN_ELEMENTS_MAX and last.chain_cut and not last.chain_complete
    assert last.chain_exec_id == tuple(range(last.exec_id - limits.CHAIN_ELEMENTS_MAX + 1, last.exec_id + 1))


def test_a_thousand_threads_are_one_process(host: Joined) -> None:
    script = """
import threading
threading.stack_size(65536)
gate = threading.Barrier(1001)
threads = [threading.Thread(target=gate.wait) for _ in range(1000)]
for thread in threads: thread.start()
gate.wait()
for thread in threads: thread.join()
"""
    with neighbours(host):
        row = told(host, run(sys.executable, "-c", script))
        children = [other for other in host.images if other.creator_id == row.task_id]
    assert children == []


def test_a_tree_a_thousand_deep(host: Joined, programs: Path) -> None:
    with neighbours(host):
        output(programs / "lineage", "1", "1000")
        host.read()
        named = {int(row.renamed[3:]): row for row in host.images if row.renamed.startswith(b"g0.")}
    assert sorted(named) == list(range(1, 1001))
    for depth in range(2, 1001):
        row = named[depth]
        assert row.creator_id == named[depth - 1].task_id
        assert len(row.ancestor_ids) <= limits.ANCESTORS_MAX
        assert row.ancestor_ids[:3] == tuple(named[depth - step].task_id for step in (1, 2, 3) if depth > step)[:3] or depth < 4
    assert named[1000].ancestors_cut and len(named[1000].ancestor_ids) == limits.ANCESTORS_MAX
    assert named[1000].chain_comm[-1] == b"lineage" and not named[1000].chain_lost
