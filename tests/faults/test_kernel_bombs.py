"""Crowds that make more records than anybody reads: a second recorder with room for all is the witness that what is missing was counted."""

import contextlib
import multiprocessing
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
from kernel_tools import Live, load_live, output, unload_live, wait_until

from producers.recorder import Counters
from producers.ring import Ring
from schemas import limits
from schemas.batch import frames
from schemas.events import Kind
from schemas.rows import EndKind, ImageRow, LossCause, LossRow
from tests.faults.cgroups import cgroup
from tests.faults.kernel_host import Joined
from tests.faults.test_kernel_floods import QUIET, quiet_work

FLOOD_S = "2"
KINDS = {Kind.FORK: "lost_fork", Kind.EXEC: "lost_exec", Kind.EXIT: "lost_exit", Kind.RENAME: "dropped_rename"}
"""Kinds of records, and the counter of those that were left out."""
CAUSES = {LossCause.RENAME_DROPPED: "dropped_rename", LossCause.ARGV_SHORTENED: "short_argv", LossCause.RING_FULL: "lost"}


def kinds_in(body: bytes) -> "Counter[int]":
    """How many records of each kind."""
    return Counter(body[at] for at, _ in frames(body))


def take_all(ring: Ring) -> "Counter[int]":
    """Take all that lies in the ring; how many records of each kind."""
    kinds: Counter[int] = Counter()
    while True:
        start, end, body = ring.stretch(limits.BATCH_BYTES_MAX)
        if start == end:
            return kinds
        kinds += kinds_in(body)
        ring.release(end)


class Moment(NamedTuple):
    """A moment at which nothing happened on the whole host: what both recorders had."""

    witnessed: "Counter[int]"
    unread: "Counter[int]"
    counters: Counters


class Pair:
    """The recorder that is put under load, and its witness: one with a ring so large and arguments so short that it has room for all."""

    def __init__(self, directory: Path, ring_bytes: int) -> None:
        self.live = load_live(directory / "small", ring_bytes=ring_bytes)
        self._witness = load_live(directory / "witness", ring_bytes=1 << 29, argv_bytes=64)
        self._witnessed: Counter[int] = Counter()

    def close(self) -> None:
        """Unload both."""
        unload_live(self.live)
        unload_live(self._witness)

    def _look(self) -> "Counter[int]":
        self._witnessed += take_all(self._witness.recorder.ring)
        return Counter({kind: self._witnessed[kind] for kind in KINDS})

    def wait(self, flood: "subprocess.Popen[bytes]") -> int:
        """Take what comes to the witness until the flood has ended; gives its exit code."""
        while flood.poll() is None:
            self._look()
        return flood.returncode

    def moment(self) -> Moment:
        """The next quiet moment."""
        ring = self.live.recorder.ring

        def quiet() -> Moment | None:
            before = self._look()
            made = Moment(before, kinds_in(ring.finished_after(ring.consumer())), self.live.recorder.counters())
            return made if self._look() == before else None

        made = wait_until(quiet, "a moment without any process starting or ending")
        assert self._witness.recorder.counters()[1:5] == (0, 0, 0, 0), "the witness missed nothing"
        return made


@pytest.fixture
def pair(tmp_path: Path, kind: str) -> Iterator[Pair]:
    """Two recorders. From half full on arguments are cut short, so it takes a smaller ring for them to fill it."""
    made = Pair(tmp_path, 1 << 22 if kind == "renames" else 1 << 18)
    yield made
    made.close()


class Told(NamedTuple):
    """What a reader made of what it read, and the recorder's own counters when it had read all."""

    rows: list[ImageRow]
    losses: list[LossRow]
    kinds: "Counter[int]"
    counters: Counters


def join_all(live: Live, until: Callable[[], bool]) -> Told:
    """Join what comes; after ``until`` what is left, with a mark that brings the counters."""
    host = Joined(live)
    while not until():
        host.read()
    host.read()
    counters = live.recorder.counters()
    assert live.recorder.clock()
    host.read()
    return Told(host.images, host.losses, host.kinds, counters)


@contextlib.contextmanager
def reading(live: Live, cpu: int | None) -> Iterator[Callable[[], Told]]:
    """A reader in a process of its own, held to ``cpu`` thousandths of a processor; gives what ends it and brings what it knows."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_reader, args=(live, theirs))
    with cgroup("cpu", cpu) if cpu else contextlib.nullcontext() as members:
        process.start()
        if members is not None:
            members.write_text(str(process.pid))

        def told() -> Told:
            if members is not None:
                (members.parent.parent / "cgroup.procs").write_text(str(process.pid))  # it may hurry now
            ours.send("stop")
            return ours.recv()  # type: ignore[no-any-return]

        try:
            yield told
        finally:
            process.kill()
            process.join()


def _reader(live: Live, pipe: Connection) -> None:
    pipe.send(join_all(live, lambda: pipe.poll(0.005)))


@pytest.mark.parametrize("kind", ["renames", "arguments"])
@pytest.mark.parametrize("reader", ["alive", "capped", "dead"])
def test_what_a_flood_takes_from_others_is_counted_by_kind(pair: Pair, programs: Path, kind: str, reader: str) -> None:
    first = pair.moment()
    with contextlib.ExitStack() as stack:
        told = None
        if reader != "dead":
            told = stack.enter_context(reading(pair.live, 10 if reader == "capped" else None))
        flood = subprocess.Popen([programs / "flood", kind, FLOOD_S])
        pids = quiet_work()
        assert pair.wait(flood) == 0
        made = told() if told is not None else None
    last = pair.moment()
    consumed = made.kinds if made is not None else Counter[int]()
    for one, name in KINDS.items():
        happened = last.witnessed[one] - first.witnessed[one]
        left_out = getattr(last.counters, name) - getattr(first.counters, name)
        there = consumed[one] + last.unread[one] - first.unread[one]
        assert there + left_out == happened, one.name
    if made is None:
        made = join_all(pair.live, lambda: True)
    for cause, name in CAUSES.items():
        assert sum(loss.amount for loss in made.losses if loss.cause == cause) == getattr(made.counters, name), cause.name
    full = [row for row in made.rows if row.tgid in set(pids) and row.argv[:1] == (b"/bin/true",) and row.end_kind == EndKind.EXIT]
    assert len(full) + made.counters.lost >= QUIET
    if kind == "renames":
        assert (len(full), made.counters.lost) == (QUIET, 0), "renames take no room from what makes histories"
    if reader != "alive":
        assert (made.counters.dropped_rename if kind == "renames" else made.counters.lost) > 100, "there was no room for all"


def test_a_fork_bomb_that_is_held_by_its_group(host: Joined, programs: Path) -> None:
    script = 'echo $$ > "$1"; exec "$2" 8000'
    lines: list[list[str]] = []
    with cgroup("pids", 300) as members:
        bomb = threading.Thread(target=lambda: lines.extend(output("/bin/sh", "-c", script, "sh", members, programs / "bomb")))
        bomb.start()
        pids = quiet_work()
        bomb.join()
    host.read()
    assert host.told() == []
    refused = int(lines.pop()[1])
    made = Counter(tuple(map(int, words[1:])) for words in lines)
    assert refused > 100 and made.total() > 1000 and made.total() + refused <= 8000
    exe = str(programs / "bomb").encode()
    rows = [
        row for row in host.images if row.exe == exe and row.creator_tgid and row.comm == b"bomb" and row.exec_id == row.creator_exec_id
    ]
    # A fork that was refused leaves nothing; every other one its process, below the one that made it.
    assert Counter((row.tgid, row.creator_tgid, row.exit_code) for row in rows if row.end_kind == EndKind.EXIT) == made
    by_id = {row.task_id: row.tgid for row in host.images}
    assert all(by_id[row.creator_id] == row.creator_tgid for row in rows)
    quiet = [row for row in host.images if row.tgid in set(pids) and row.argv[:1] == (b"/bin/true",) and row.end_kind == EndKind.EXIT]
    assert len(quiet) == QUIET
