"""Births and ends with many threads, borrowed memory, another parent, or without one instruction run: row, creator and status of
wait(2)."""

import signal
from pathlib import Path

import pytest
from kernel_tools import output

from schemas.rows import EndKind, ImageKind
from tests.faults.kernel_host import Joined

SHELL = (b"sh", b"-c")
WAYS = {
    "group": (31 << 8, ImageKind.FORK),
    "thread-exec": (32 << 8, ImageKind.EXEC),
    "never-ran": (signal.SIGKILL, ImageKind.FORK),
    "vfork": (33 << 8, ImageKind.FORK),
    "vfork-exec": (34 << 8, ImageKind.EXEC),
    "clone-parent": (35 << 8, ImageKind.FORK),
}


@pytest.mark.parametrize("way", WAYS)
def test_an_unusual_birth_or_end(host: Joined, programs: Path, way: str) -> None:
    ((tgid, status, creator, never),) = [map(int, words) for words in output(programs / "ends", way)]
    ended, kind = WAYS[way]
    assert (status, never) == (ended, way == "never-ran")
    host.read()
    row, above = host.newest(tgid), host.newest(creator)
    assert host.told() == []
    assert (row.kind, row.end_kind, row.creator_id, row.creator_tgid) == (kind, EndKind.EXIT, above.task_id, creator)
    assert (row.exit_code, row.exit_signal) == ((status >> 8, 0) if not status & 0x7F else (0, status))
    # The kernel's parent at the end is whoever waits: for CLONE_PARENT that is not the creator.
    assert (row.end_parent_tgid == creator) == (way != "clone-parent")
    assert (row.argv[:2] == SHELL) == (kind == ImageKind.EXEC)
    images = [image for image in host.images if image.task_id == row.task_id]
    # The threads of a process are no processes, and the exec of one of them replaces the whole.
    assert [image.end_kind for image in sorted(images, key=lambda image: image.exec_id)] == (
        [EndKind.EXEC, EndKind.EXIT] if len(images) == 2 else [EndKind.EXIT]
    )
    assert not [image for image in host.images if image.creator_id == row.task_id]
    if way == "never-ran":
        assert (row.utime, row.chain_comm[-1]) == (0, b"ends")
