"""Pids that come round again and again: no process is ever linked to another one's creator."""

import subprocess
from collections import Counter
from pathlib import Path

from kernel_tools import output

from schemas.rows import EndKind, ImageKind
from tests.faults.kernel_host import Joined

PID_MAX = Path("/proc/sys/kernel/pid_max")
DEPTH = 4
LINES = 5_000


def check_lines(host: Joined, lines: int) -> None:
    """Each of the processes is there once, below the one that made it, by the names that they took themselves."""
    host.read()
    named = [row for row in host.images if row.renamed.startswith(b"g") and b"." in row.renamed]
    assert Counter(row.renamed for row in named) == Counter(b"g%d.%d" % (n, d) for n in range(lines) for d in range(1, DEPTH + 1))
    by_id = {row.task_id: row for row in named}
    assert len(by_id) == lines * DEPTH
    for row in named:
        number, depth = map(int, row.renamed[1:].split(b"."))
        creator = by_id.get(row.creator_id)
        assert (creator.renamed if creator else b"") == (b"g%d.%d" % (number, depth - 1) if depth > 1 else b"")
        assert (row.kind, row.end_kind, row.chain_lost, row.chain_comm[-1]) == (ImageKind.FORK, EndKind.EXIT, 0, b"lineage")
        assert row.ancestor_ids[: depth - 1] == tuple(_creators(row.creator_id, by_id))


def _creators(task_id: object, by_id: dict[object, object]) -> "list[object]":
    found = []
    while task_id in by_id:
        found.append(task_id)
        task_id = by_id[task_id].creator_id  # type: ignore[attr-defined]
    return found


def test_a_host_whose_pids_come_round(host: Joined, programs: Path) -> None:
    before = PID_MAX.read_text()
    living = max(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    PID_MAX.write_text("1200")
    try:
        output(programs / "lineage", str(LINES), str(DEPTH))
    finally:
        PID_MAX.write_text(before)
    check_lines(host, LINES)
    tgids = Counter(row.tgid for row in host.images if row.renamed.startswith(b"g"))
    assert len(tgids) < 1200 and tgids.most_common(1)[0][1] > 10, f"pids came round (the largest before was {living})"


def test_a_pid_namespace_of_400(host: Joined, programs: Path) -> None:
    # From 6.14 on a pid namespace has a pid_max of its own; before, only the numbers within are its own.
    script = f"echo 400 > {PID_MAX}; exec {programs / 'lineage'} {LINES} {DEPTH}"
    before = PID_MAX.read_text()
    try:
        subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", script], check=True, timeout=120)
    finally:
        PID_MAX.write_text(before)
    check_lines(host, LINES)
    inside = Counter(row.ns_pid for row in host.images if row.renamed.startswith(b"g"))
    assert max(inside) < 400 and inside.most_common(1)[0][1] > 10
