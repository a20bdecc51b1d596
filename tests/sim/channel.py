"""The way from the rings to the join: what is refused, damaged, lost, repeated, and where it is cut into batches."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from struct import pack_into

from schemas.batch import Batch, BatchKind, frame, split_snapshot
from schemas.events import Exec, Exit, Flag, Fork, Mark, MarkRecord, Rename
from schemas.rows import LossCause
from tests.sim.encode import LOST_OFFSET, encode_record
from tests.sim.host import Boot, Entry, Host, Ring, Snapshot


@dataclass(slots=True)
class Placed:
    """An entry that found room: where its frame lies and the frame's bytes."""

    entry: Entry
    position: int
    data: bytes
    damaged: bool = False

    @property
    def end(self) -> int:
        """Position after the frame."""
        return self.position + len(self.data)


@dataclass(slots=True)
class Loss:
    """Something that the channel took away: which entries, and the time around them."""

    cause: LossCause
    boot: Boot
    entries: list[Entry]


@dataclass(slots=True)
class Log:
    """What was laid into the rings, and what of it is missing. ``delivered`` are the entries that reach the join whole."""

    host: Host
    rings: list[tuple[Ring, list[Placed]]] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)
    missing: set[int] = field(default_factory=set)
    holes: set[int] = field(default_factory=set)
    no_snapshot: set[int] = field(default_factory=set)
    placed: dict[int, Placed] = field(default_factory=dict)

    def got(self, entry: Entry | None) -> bool:
        """Whether the entry reaches the join."""
        return entry is not None and id(entry) in self.placed and id(entry) not in self.missing

    def in_hole(self, entry: Entry) -> bool:
        """Whether the entry lay in a batch that never arrived."""
        return id(entry) in self.holes

    def got_snapshot(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot is applied: both its marks and itself arrive."""
        return snapshot.snapshot_id not in self.no_snapshot and snapshot.end is not None and self.got(snapshot.end)


def lay(host: Host, refused: Iterable[Entry] = (), damaged: Iterable[Entry] = ()) -> Log:
    """The records in their rings, but for the refused ones, which are counted in all later records."""
    log = Log(host)
    log.refused = {id(entry) for entry in refused}
    bad = {id(entry) for entry in damaged}
    for boot in host.boots:
        for ring in boot.rings:
            log.rings.append((ring, _lay_ring(log, ring, bad)))
    return log


def _lay_ring(log: Log, ring: Ring, bad: set[int]) -> list[Placed]:
    placed: list[Placed] = []
    position, lost, counts = 0, 0, [0, 0, 0, 0]
    kinds = (Fork, Exec, Exit, Rename)
    for entry in ring.entries:
        record = entry.record
        if id(entry) in log.refused:
            assert isinstance(record, kinds)
            counts[kinds.index(type(record))] += 1
            lost += not isinstance(record, Rename)
            log.losses.append(Loss(LossCause.RENAME_DROPPED if isinstance(record, Rename) else LossCause.RING_FULL, ring.boot, [entry]))
            continue
        if isinstance(record, MarkRecord) and record.mark == Mark.CLOCK:
            values = (*record.values[:3], *counts[:4], record.values[7])
            record = entry.record = record._replace(values=values)
        data = bytearray(frame(encode_record(record)))
        pack_into("<Q", data, 8 + LOST_OFFSET, lost)
        one = Placed(entry, position, b"")
        if id(entry) in bad:
            data[9] = 99
            one.damaged = True
            log.missing.add(id(entry))
            log.losses.append(Loss(LossCause.UNDECODABLE, ring.boot, [entry]))
        one.data = bytes(data)
        position += len(data)
        placed.append(one)
        log.placed[id(entry)] = one
    return placed


def cut_everywhere(log: Log) -> list[list[int]]:
    """Cuts between all records of each ring."""
    return [list(range(len(placed) + 1)) for _, placed in log.rings]


def cut_nowhere(log: Log) -> list[list[int]]:
    """Batches as long as they can be: the join keeps no more than a few snapshots that wait for their marks."""
    return [sorted({0, len(placed), *cut_for_snapshots(placed)}) for _, placed in log.rings]


def cut_for_snapshots(placed: list[Placed]) -> list[int]:
    """Where a ring must be cut, so that no batch has more than three snapshots before it."""
    marks = [(n, one.entry.record) for n, one in enumerate(placed) if isinstance(one.entry.record, MarkRecord)]
    return [n for n, record in marks if record.mark == Mark.SNAPSHOT_BEGIN][3::3]


def cut_randomly(log: Log, rng: random.Random, mean: int = 8) -> list[list[int]]:
    """Batches of random length."""
    out = []
    for _, placed in log.rings:
        points = {rng.randrange(len(placed) + 1) for _ in range(len(placed) // mean + 1)}
        out.append(sorted({0, len(placed), *cut_for_snapshots(placed), *points}))
    return out


def batches(log: Log, cuts: list[list[int]], rng: random.Random) -> list[list[Batch]]:
    """For each events batch of each ring: the snapshots that belong before it, then itself. Header ticks differ with ``rng``."""
    out: list[list[Batch]] = []
    for (ring, placed), points in zip(log.rings, cuts, strict=True):
        for start, end in pairwise(points):
            group: list[Batch] = []
            for one in placed[start:end]:
                record, snapshot = one.entry.record, one.entry.snapshot
                if snapshot is None or snapshot.end is None or snapshot.snapshot_id in log.no_snapshot:
                    continue
                if isinstance(record, MarkRecord) and record.mark == Mark.SNAPSHOT_BEGIN:
                    group += split_snapshot(snapshot_batch(log, snapshot, one), rng.choice((300, 2_000, 1_000_000)))
            group.append(events_batch(log, ring, placed, start, end, rng))
            out.append(group)
    return out


def events_batch(log: Log, ring: Ring, placed: list[Placed], start: int, end: int, rng: random.Random) -> Batch:
    """The batch of ``placed[start:end]``; its clock pair is some moment between its last record and the next one."""
    last = placed[end - 1].entry
    until = placed[end].entry.at_ns if end < len(placed) else last.at_ns + 50_000_000
    boottime_ns = rng.choice((last.at_ns, until, rng.randint(last.at_ns, max(until, last.at_ns))))
    body = b"".join(one.data for one in placed[start:end])
    lost = sum(id(entry) in log.refused and not isinstance(entry.record, Rename) for entry in ring.entries[: last.index])
    return Batch(
        BatchKind.EVENTS,
        log.host.host_id,
        ring.boot.boot_id,
        ring.ring_id,
        placed[start].position,
        placed[end - 1].end,
        boottime_ns,
        boottime_ns + last.offset_ns,
        lost,
        0,
        b"simhost",
        body,
        drained=rng.random() < 0.7,
    )


def snapshot_batch(log: Log, snapshot: Snapshot, begin: Placed) -> Batch:
    """The snapshot as a batch of its own."""
    body = b"".join(frame(encode_record(record)) for record in (*(seen for seen, _ in snapshot.seen), *snapshot.users))
    end = snapshot.end
    assert end is not None
    return Batch(
        BatchKind.SNAPSHOT,
        log.host.host_id,
        begin.entry.ring.boot.boot_id,
        begin.entry.ring.ring_id,
        begin.end,
        begin.end,
        end.at_ns,
        end.at_ns + end.offset_ns,
        snapshot.snapshot_id,
        0,
        b"simhost",
        body,
    )


def drop_batches(log: Log, groups: list[list[Batch]], dropped: set[int]) -> list[list[Batch]]:
    """The groups without some events batches: holes. What was in them is noted as missing."""
    for number in dropped:
        batch = groups[number][-1]
        for ring, placed in log.rings:
            if ring.ring_id == batch.ring_id and ring.boot.boot_id == batch.boot_id:
                lost = [one.entry for one in placed if batch.start <= one.position < batch.end]
                log.missing.update(map(id, lost))
                log.holes.update(map(id, lost))
                log.losses.append(Loss(LossCause.LOG_HOLE, ring.boot, lost))
    return [group if number not in dropped else group[:-1] for number, group in enumerate(groups)]


def choose_refused(host: Host, rng: random.Random, mean: float) -> list[Entry]:
    """Runs of records that find the ring full, ``mean`` runs a ring; marks always find room."""
    out: dict[int, Entry] = {}
    for boot in host.boots:
        for ring in boot.rings:
            for _ in range(round(rng.random() * 2 * mean)):
                start = rng.randrange(len(ring.entries))
                for entry in ring.entries[start : start + rng.choice((1, 1, 2, 5, 20))]:
                    if not isinstance(entry.record, MarkRecord):
                        out[id(entry)] = entry
    return list(out.values())


def repeat(groups: list[list[Batch]], rng: random.Random) -> list[Batch]:
    """The batches in order, some of them again, and some that begin in an earlier batch."""
    out: list[Batch] = []
    sent: list[Batch] = []
    for group in groups:
        out += group
        sent += group
        while sent and rng.random() < 0.4:
            out.append(rng.choice(sent[-6:]))
        if len(sent) > 1 and rng.random() < 0.3:
            first, second = sent[-2:]
            if first.end == second.start and first[:4] == second[:4] and first.kind == BatchKind.EVENTS == second.kind:
                out.append(second._replace(start=first.start, body=first.body + second.body))
    return out


def is_short(record: object) -> bool:
    """Whether the record's arguments were cut short because the ring was full."""
    return isinstance(record, Exec) and bool(record.flags & Flag.ARGV_SHORT)
