"""The recorder is loaded into a host that goes on living: between what it finds and what it records nobody is missing, and
nobody is twice."""

import contextlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kernel_tools import Live, new_pin_dir, remove_pins, settings, unload_live, wait_until

from producers import loader
from producers.recorder import Recorder
from schemas import events
from schemas.batch import frames
from schemas.errors import Unavailable
from schemas.identity import TICK_NS
from schemas.rows import EndKind, ImageKind
from tests.e2e.running import ROOT, TASKTRAIL
from tests.faults.kernel_host import Joined

SLEEPERS = 300
ENDING = 200
RING_BYTES = 1 << 26


@contextlib.contextmanager
def loading(directory: Path) -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """Another process loads a recorder: where its pins are, and the process. In the end it is unloaded."""
    pin_dir, chosen = new_pin_dir(), settings(directory)
    where = ["--pin-dir", str(pin_dir), "--run-dir", str(chosen.spool.parent), "--state-dir", str(chosen.state_dir)]
    command = [*TASKTRAIL, "record", "load", *where, "--ring-size", str(RING_BYTES)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield pin_dir, process
    finally:
        process.kill()
        process.wait()
        remove_pins(pin_dir)


def in_ring(recorder: Recorder) -> list[events.Record]:
    """All that was recorded so far; nothing is taken."""
    body = recorder.ring.finished_after(0)
    return [events.decode_record(body, at, size) for at, size in frames(body)]


def opened(pin_dir: Path, directory: Path) -> Recorder | None:
    """The recorder, once it is attached."""
    chosen = settings(directory)
    try:
        return Recorder(pin_dir, chosen.spool, chosen.state_dir)
    except (Unavailable, OSError):
        return None


def begun(recorder: Recorder) -> bool:
    """Whether the first snapshot has begun."""
    return any(isinstance(record, events.MarkRecord) and record.mark == events.Mark.SNAPSHOT_BEGIN for record in in_ring(recorder))


def exits_of(records: list[events.Record], tgids: set[int]) -> tuple[set[int], set[int]]:
    """Whose exits were recorded, and whose between begin and end of the first snapshot."""
    found: set[int] = set()
    inside: set[int] = set()
    last_mark = 0
    for record in records:
        if isinstance(record, events.MarkRecord):
            last_mark = record.mark
        elif isinstance(record, events.Exit) and record.tgid in tgids:
            found.add(record.tgid)
            if last_mark == events.Mark.SNAPSHOT_BEGIN:
                inside.add(record.tgid)
    return found, inside


def check_living(host: Joined, living: "list[subprocess.Popen[bytes]]", exe: Path) -> None:
    """Each is there once, as it was found."""
    for process in living:
        (row,) = [row for row in host.images if row.tgid == process.pid]
        assert (row.kind, row.end_kind, row.exe) == (ImageKind.SEEN, EndKind.LIVING, str(exe).encode())
        assert row.argv == tuple(str(word).encode() for word in process.args)  # type: ignore[union-attr]
        # What came before it was found is not known, and that is said; nothing was lost.
        assert (row.chain_before, row.chain_complete, row.chain_lost, row.creator_tgid > 0) == (1, 0, 0, True)


def test_who_ends_while_the_first_snapshot_is_taken(tmp_path: Path, programs: Path) -> None:
    sleepers = [subprocess.Popen([programs / "sleeper", f"older-{number}"]) for number in range(SLEEPERS)]
    ending, living = sleepers[:ENDING], sleepers[ENDING:]
    try:
        with loading(tmp_path) as (pin_dir, loader_process):
            early = wait_until(lambda: opened(pin_dir, tmp_path), "the recorder being attached", 60)
            wait_until(lambda: begun(early), "the begin of the snapshot")
            for process in ending:
                process.kill()
            for process in ending:
                process.wait()
            assert loader_process.wait() == 0
            ended, inside = exits_of(in_ring(early), {process.pid for process in ending})
            early.close()
            assert len(inside) > 20, "they ended while the snapshot was taken"
            assert len(ended) == ENDING, "from the attachment on every end is recorded"
            host = Joined(Live(pin_dir, settings(tmp_path)))
            host.settle()
            assert host.told() == []
            check_living(host, living, programs / "sleeper")
            for process in ending:
                (row,) = [row for row in host.images if row.tgid == process.pid]
                assert row.kind in (ImageKind.SEEN, ImageKind.UNKNOWN), "no exec is invented"
                assert (row.end_kind, row.exit_signal) == (EndKind.EXIT, 9), "who ended does not live on"
            # What comes next begins where the snapshot ended, and later snapshots change nothing.
            known = {row.task_id: (row.kind, row.end_kind, row.exec_id) for row in host.images}
            after = subprocess.Popen([programs / "sleeper", "after"])
            sleepers.append(after)
            host.snapshot()
            host.snapshot()
            host.settle()
            row = host.newest(after.pid)
            assert (row.kind, row.chain_lost, row.argv[-1]) == (ImageKind.EXEC, 0, b"after")
            check_living(host, living, programs / "sleeper")
            ours = {process.pid for process in (*ending, *living)}
            now = {row.task_id: (row.kind, row.end_kind, row.exec_id) for row in host.images if row.tgid in ours}
            assert now == {name: known[name] for name in now} and len(now) == SLEEPERS
            host.live.close()
            loader.unload(pin_dir, settings(tmp_path).spool)
        # Another recorder, which knows nothing of the first, gives the same names.
        with loading(tmp_path) as (pin_dir, loader_process):
            assert loader_process.wait() == 0
            again = Joined(Live(pin_dir, settings(tmp_path)))
            again.settle()
            for process in living:
                row = again.newest(process.pid)
                assert known[row.task_id] == (row.kind, row.end_kind, row.exec_id)
            unload_live(again.live)
    finally:
        for process in sleepers:
            process.kill()
            process.wait()


def test_who_is_born_while_the_recorder_is_loaded(tmp_path: Path, programs: Path) -> None:
    births = subprocess.Popen([programs / "births", "4000"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert births.stdin and births.stdout
    try:
        lines = [births.stdout.readline() for _ in range(50)]
        with loading(tmp_path) as (pin_dir, loader_process):
            assert loader_process.wait() == 0
            host = Joined(Live(pin_dir, settings(tmp_path)))
            host.settle()
            births.stdin.close()
            lines += births.stdout.readlines()
            assert births.wait() == 0
            host.read()
            wait_until(lambda: not host.read() and not living_below(host, births.pid), "the end of all children")
            assert host.told() == []
            born = Counter(tuple(map(int, line.split())) for line in lines)
            above = host.newest(births.pid)
            rows = [row for row in host.images if row.creator_id == above.task_id]
            assert Counter((row.tgid, row.start_boottime // TICK_NS) for row in rows) == born
            kinds = Counter(row.kind for row in rows)
            assert set(kinds) == {ImageKind.SEEN, ImageKind.FORK} and min(kinds.values()) > 20, kinds
            assert {(row.end_kind, row.exit_signal, row.exec_id, row.creator_tgid) for row in rows} == {
                (EndKind.EXIT, 9, above.exec_id, births.pid)
            }
            unload_live(host.live)
    finally:
        births.kill()
        births.wait()


def living_below(host: Joined, tgid: int) -> bool:
    """Whether a child of it is told to live."""
    return any(row.creator_tgid == tgid and row.end_kind == EndKind.LIVING for row in host.images)
