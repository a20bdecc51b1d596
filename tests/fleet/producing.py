"""What the tests of `produce` share: the command as a process, its log in Kafka, and what the join makes of that."""

import contextlib
import itertools
import signal
import subprocess
from collections import Counter
from pathlib import Path

from broker.cluster import Cluster
from broker.connection import LogReader
from producers.recorder import Recorder
from schemas import topics
from schemas.batch import Batch, BatchKind, decode_batch
from schemas.errors import Unavailable
from schemas.rows import EndKind, ImageRow, LossCause, LossRow, Row
from streams.join import HostState, apply
from tests.e2e.running import TASKTRAIL, Place, wait_until
from tests.e2e.test_storm import Child
from tests.fleet.kafka_for_tests import settings_of
from tests.sim.oracle import Store, store_of

PARTITIONS = 4
_numbers = itertools.count(1)


class Producing:
    """`produce` on this host, into topics of its own."""

    def __init__(self, place: Place, where: Cluster) -> None:
        self.place, self.cluster = place, where
        self.spool = place.state_dir / "spool"
        place.env |= settings_of(where)
        self.prefix: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self.said_path = place.directory / "produce.stderr"
        self._reader = LogReader(where)

    def make_topics(self) -> None:
        """As a person would."""
        done = self.place.command("topics", "create", "--replication", "1", "--partitions", str(PARTITIONS))
        assert done.returncode == 0, done.stderr

    def start(self, *arguments: str, ready: bool = True) -> None:
        """`produce`, when it reads the ring."""
        self.said_path = self.place.directory / f"produce-{next(_numbers)}.stderr"
        with self.said_path.open("wb") as said:
            command = [*self.prefix, *TASKTRAIL, "produce", *arguments]
            self.process = subprocess.Popen(command, env=self.place.env, cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        if ready:
            self.wait_said("batches go to")

    def said(self) -> str:
        """All that the latest one has said."""
        return self.said_path.read_text()

    def wait_said(self, words: str, seconds: float = 240) -> None:
        """Returns when it has said this."""
        assert self.process is not None

        def says() -> bool:
            assert self.process is not None
            assert self.process.poll() is None or words in self.said(), f"produce ended with {self.process.returncode}: {self.said()}"
            return words in self.said()

        try:
            wait_until(says, f"produce saying {words!r}", seconds)
        except AssertionError as late:
            late.add_note(f"produce said {self.said()}")
            raise

    def stop(self) -> str:
        """Asks it to stop; what it has said."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) == 0, self.said()
        return self.said()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Makes sure that it is dead."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        with contextlib.suppress(Exception):
            self._reader.close()

    def spooled(self) -> bool:
        """Whether something lies in the spool."""
        return any(self.spool.glob("*.seg"))

    def wait_spooled(self, seconds: float = 240) -> None:
        """Returns when something lies in the spool."""
        wait_until(self.spooled, "a segment in the spool", seconds)

    def ring_end(self) -> int:
        """Where the ring ends now."""
        with Recorder(self.place.pin_dir, self.place.run_dir / "snapshots", self.place.state_dir) as recorder:
            return recorder.ring.producer()

    def arrived(self) -> list[Batch]:
        """The host's batches in the log."""
        marks = self._reader.watermarks(topics.EVENTS, range(PARTITIONS))
        records = self._reader.read(topics.EVENTS, {number: mark.low for number, mark in marks.items()})
        found = [(record.partition, decode_batch(record.value)) for record in records]
        assert len({partition for partition, _ in found}) <= 1
        return [batch for _, batch in found]

    def wait_arrived(self, seconds: float = 240) -> list[Batch]:
        """The batches when all that was recorded before this call has arrived."""
        end = self.ring_end()

        def all_there() -> list[Batch]:
            try:
                batches = self.arrived()
            except Unavailable:
                return []  # a broker that has just begun does not know its partitions yet
            return batches if any(batch.kind == BatchKind.EVENTS and batch.end >= end for batch in batches) else []

        return wait_until(all_there, f"the ring's end {end} in the log; produce said {self.said()}", seconds)


def hole_bytes(batches: list[Batch]) -> int:
    """Bytes of the ring that are not in the log, or that come after what lies behind them."""
    position, missing = 0, 0
    for batch in batches:
        if batch.kind == BatchKind.EVENTS:
            missing += max(0, batch.start - position)
            position = max(position, batch.end)
    return missing


def joined(batches: list[Batch]) -> Store:
    """What the join makes of the log."""
    state, rows = HostState(), list[Row]()
    for batch in batches:
        rows += apply(state, batch)
    return store_of(rows)


def losses(store: Store) -> list[LossRow]:
    """Losses that touch what a test did: not the time before the recorder was loaded, not what a full ring leaves out on purpose."""
    left_out = (LossCause.RENAME_DROPPED, LossCause.ARGV_SHORTENED)
    return [row for row in store.losses.values() if row.begin_boottime > 0 and row.cause not in left_out]


def images(store: Store, exe: Path) -> list[ImageRow]:
    """Images of that program."""
    return [row for row in store.images.values() if row.exe == bytes(exe)]


def check_exactly_once(store: Store, tiny: Path, children: list[Child]) -> None:
    """Each child of the storms is one image of one process, made by its creator, below its storm, with its exit code."""
    told = Counter((child.pid, child.creator, child.status >> 8, child.storm) for child in children)
    stored: Counter[tuple[int, int, int, int]] = Counter()
    for row in images(store, tiny):
        assert row.end_kind == EndKind.EXIT and not row.chain_lost, row
        assert row.chain_comm[-2:] == (b"storm", b"tiny") and row.chain_tgid[-1] == row.tgid
        stored[row.tgid, row.creator_tgid, row.exit_code, row.chain_tgid[-2]] += 1
    assert stored == told
