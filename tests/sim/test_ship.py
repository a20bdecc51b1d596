"""The shipper on a simulated host: brokers that go, refuse and come back, a disk that fails, a process that is killed anywhere.

What lies in the log at the end gives the rows of the host's own batches, and its positions have no hole.
"""

import errno
import random
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from broker.memory import MemoryBroker, MemoryLogReader, MemorySender
from producers.remains import ends
from producers.ship import Here, Shipper
from producers.spool import Disk, Spool
from schemas import topics
from schemas.batch import Batch, BatchKind, decode_batch, encode_batch
from schemas.errors import BadInput
from schemas.events import Mark, MarkRecord
from schemas.rows import LossCause, LossRow
from tests.sim.channel import Log, Placed, batches, cut_nowhere, snapshot_batch
from tests.sim.host import Ring
from tests.sim.oracle import store_of
from tests.sim.scenario import exact_log, flat, joined, seeds, told
from tests.sim.test_sim import unequal

ROOM = 64 << 20


class FailingDisk(Disk):
    """A disk that may have no room."""

    full = False

    def write(self, fd: int, data: bytes | memoryview, at: int) -> int:
        """Half of it, when there is no room."""
        if self.full:
            super().write(fd, bytes(data)[: len(data) // 2], at)
            raise OSError(errno.ENOSPC, "no room")
        return super().write(fd, data, at)


@dataclass
class SimRing:
    """A ring into which the placed entries come one after another, and its recorder."""

    log: Log
    ring: Ring
    placed: list[Placed]
    size_bytes: int = 40_000
    filled: int = 0
    start: int = 0
    discarded: int = 0
    piece_bytes: int = 3_000
    cuts: list[int] = field(default_factory=list)

    @property
    def ring_id(self) -> int:
        """Its name."""
        return self.ring.ring_id

    def stretch(self, limit_bytes: int, start: int | None = None) -> tuple[int, int, bytes]:
        """Whole entries from there on."""
        begin = self.start if start is None else start
        assert begin >= self.start, "it may be overwritten"
        limit, end, parts = min(limit_bytes, self.piece_bytes), begin, []
        for one in self.placed[: self.filled]:
            if one.position < begin:
                continue
            if one.end - begin > limit and parts:
                break
            parts.append(one.data)
            end = one.end
        return begin, end, b"".join(parts)

    def release(self, position: int) -> None:
        """As the real one."""
        assert self.start <= position <= self.producer()
        self.start = position

    def consumer(self) -> int:
        """Where the safe data ends."""
        return self.start

    def producer(self) -> int:
        """Where the next entry comes."""
        return self.placed[self.filled - 1].end if self.filled else 0

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        """Snapshots of which an entry behind their begin mark is there."""
        found = []
        for one in self.placed[: max(0, self.filled - 1)]:
            record, snapshot = one.entry.record, one.entry.snapshot
            if isinstance(record, MarkRecord) and record.mark == Mark.SNAPSHOT_BEGIN and snapshot is not None and snapshot.end is not None:
                found.append(snapshot_batch(self.log, snapshot, one))
        return [encode_batch(batch) for batch in found if batch.lost > max(after, self.discarded)]

    def discard_snapshots(self, last_id: int) -> None:
        """As the real one."""
        self.discarded = max(self.discarded, last_id)


class SimRecorder:
    """A recorder of one ring."""

    def __init__(self, ring: SimRing) -> None:
        self.ring, self.ring_id = ring, ring.ring_id
        self.pending_snapshots, self.discard_snapshots = ring.pending_snapshots, ring.discard_snapshots


class World:
    """A host, its rings one after another, a broker, a disk, and whoever ships."""

    def __init__(self, log: Log, rng: random.Random, directory: Path, room: int = ROOM) -> None:
        self.log, self.rng, self.directory, self.room = log, rng, directory, room
        self.broker, self.disk, self.time_s = MemoryBroker(), FailingDisk(), 0.0
        self.broker.create_topics([topics.Topic(topics.EVENTS, 3, {})], 1)
        self.senders: list[MemorySender] = []
        self.counts: dict[str, int] = {}

    def count(self, what: str) -> None:
        """For the test that all of it happens."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def sender(self) -> MemorySender:
        """A sender with little room, that tells little at a time."""
        self.senders.append(MemorySender(self.broker, self.rng.choice((100_000, 300_000)), each_poll=self.rng.choice((1, 3, 100))))
        return self.senders[-1]

    def start(self, ring: SimRing) -> Shipper:
        """A new process."""
        self.disk.full = False
        spool = Spool(self.directory, self.room, ends, disk=self.disk)
        boot = ring.ring.boot

        def now() -> tuple[int, int]:
            last = ring.placed[max(0, ring.filled - 1)].entry
            return last.at_ns, last.at_ns + last.offset_ns

        return Shipper(
            SimRecorder(ring), self.sender, spool, Here(self.log.host.host_id, boot.boot_id, b"simhost", now, lambda: self.time_s, {})
        )

    def kill(self, shipper: Shipper, ring: SimRing) -> Shipper:
        """The process is gone; what was on its way to the broker may still arrive, in part. Another one starts."""
        self.count("killed while spooling" if shipper.spool.records else "killed")
        sender = self.senders[-1]
        sender.each_poll = self.rng.randrange(4)
        sender.poll(0)
        return self.start(ring)

    def turn(self, shipper: Shipper, ring: SimRing) -> Shipper:
        """One random thing."""
        what = self.rng.random()
        if what < 0.4:
            ring.filled = min(len(ring.placed), ring.filled + self.rng.randrange(12))
        elif what < 0.75:
            self.step(shipper)
        elif what < 0.8:
            self.broker.away = not self.broker.away
            self.count("away")
        elif what < 0.84:
            self.broker.refusing = self.rng.choice((None, BadInput("no right to write")))
        elif what < 0.88:
            self.disk.full = not self.disk.full
        elif what < 0.92:
            return self.kill(shipper, ring)
        self.time_s += self.rng.choice((0.01, 0.3, 3.0))
        return shipper

    def step(self, shipper: Shipper) -> None:
        """A turn of the shipper."""
        before = shipper.counts.spooled
        try:
            shipper.step()
        except OSError:
            self.count("no room")
        if shipper.counts.spooled > before:
            self.count("spooled")
        if shipper.counts.resent:
            self.count("sent again")

    def run(self) -> None:
        """All rings of the host, one after another; at the end all has arrived."""
        for number, (ring, placed) in enumerate(self.log.rings):
            sim = SimRing(self.log, ring, placed, piece_bytes=self.rng.choice((500, 3_000)), size_bytes=self.rng.choice((4_000, 40_000)))
            shipper = self.start(sim)
            while sim.filled < len(sim.placed) or self.rng.random() < 0.9:
                shipper = self.turn(shipper, sim)
            self.disk.full = False
            last = number == len(self.log.rings) - 1
            if last:
                self.broker.away, self.broker.refusing = False, None
            while last and (shipper.spool.records or sim.consumer() < sim.producer()):
                self.time_s += 1.0
                shipper.step()
            shipper.stop(0)  # a ring does not outlive its boot
            if last:
                assert not shipper.spool.records

    def arrived(self) -> Iterator[Batch]:
        """The host's batches as they lie in the log."""
        reader = MemoryLogReader(self.broker)
        for record in reader.read(topics.EVENTS, dict.fromkeys(range(3), 0)):
            batch = decode_batch(record.value)
            assert record.key == str(batch.host_id).encode()
            yield batch


def holes(log: list[Batch]) -> list[tuple[UUID, int, int, int]]:
    """Boot, ring, begin and end of stretches that are not in the log, or come after what lies behind them."""
    found, positions = [], dict[tuple[UUID, int], int]()
    for batch in log:
        if batch.kind == BatchKind.EVENTS:
            ring = (batch.boot_id, batch.ring_id)
            position = positions.get(ring, 0)
            if batch.start > position:
                found.append((*ring, position, batch.start))
            positions[ring] = max(position, batch.end)
    return found


@pytest.mark.parametrize("seed", seeds(0.5))
def test_whatever_happens_the_log_gives_the_rows_of_the_host(seed: int) -> None:
    with told(seed), tempfile.TemporaryDirectory() as directory:
        log, rng = exact_log(seed)
        world = World(log, rng, Path(directory))
        world.run()
        arrived = list(world.arrived())
        assert not holes(arrived)
        expected = store_of(joined(flat(batches(log, cut_nowhere(log), random.Random(1))))[0])
        assert not unequal(store_of(joined(arrived)[0]), expected)


def test_all_that_can_happen_happens() -> None:
    counts: dict[str, int] = {}
    for seed in range(8):
        with tempfile.TemporaryDirectory() as directory:
            log, rng = exact_log(seed)
            world = World(log, rng, Path(directory))
            world.run()
            for what, times in world.counts.items():
                counts[what] = counts.get(what, 0) + times
    assert counts.keys() == {"away", "killed", "killed while spooling", "no room", "spooled", "sent again"}


@pytest.mark.parametrize("seed", seeds(0.25))
def test_what_a_full_spool_throws_away_is_a_loss_with_its_bytes_and_interval(seed: int) -> None:
    with told(seed), tempfile.TemporaryDirectory() as directory:
        log, rng = exact_log(seed, size=400)
        world = World(log, rng, Path(directory), room=60_000)
        world.run()
        arrived = list(world.arrived())
        rows, found = joined(arrived)[0], holes(arrived)
        told_of = [row for row in rows if isinstance(row, LossRow) and row.cause == LossCause.LOG_HOLE]
        assert [(row.boot_id, row.ring_id, row.amount) for row in told_of] == [(*hole[:2], hole[3] - hole[2]) for hole in found]
        for (boot_id, ring_id, start, end), row in zip(found, told_of, strict=True):
            placed = next(placed for ring, placed in log.rings if (ring.boot.boot_id, ring.ring_id) == (boot_id, ring_id))
            times = [one.entry.record.time_ns for one in placed if start <= one.position < end]
            # Times go back by up to 0.2 ms in a ring.
            assert row.begin_boottime <= min(times) + 200_000 and max(times) <= row.end_boottime + 200_000
        HOLES.update(found)


def test_spools_were_full() -> None:
    assert len(HOLES) > 10


HOLES: set[tuple[UUID, int, int, int]] = set()
