"""Several machines under one host_id: each gets the rows that it would get alone, and the clash is told."""

import asyncio
import copy
import itertools
import random
from collections.abc import Iterable
from uuid import UUID

import pytest

from schemas import topics
from schemas.batch import Batch, encode_batch
from schemas.rows import HostRow, ImageRow, LossCause, LossRow, Row
from streams.fleet.claims import FORMER_MAX, dump_claims, load_claims
from streams.fleet.partition import Message, Partition, SavedHost
from tests.sim.channel import batches, cut_everywhere, cut_randomly, lay
from tests.sim.cluster import Cluster
from tests.sim.life import Life
from tests.sim.oracle import store_of
from tests.sim.scenario import exact_log, flat, joined, seeds, told
from tests.sim.test_fleet import run
from tests.sim.test_sim import unequal

HOST_ID = UUID(int=77)
KEY = str(HOST_ID).encode()


class Machine:
    """One machine's producer: numbers its messages."""

    def __init__(self, machine: bytes, session: bytes) -> None:
        self.machine, self.session, self.number, self.before = machine, session, 0, 0

    def messages(self, log: Iterable[Batch]) -> list[tuple[bytes, dict[str, bytes]]]:
        """The batches as messages: value and headers."""
        out = []
        for batch in log:
            value = encode_batch(batch._replace(host_id=HOST_ID))
            self.number += 1
            headers = {topics.MACHINE: self.machine, topics.SESSION: self.session}
            out.append((value, headers | {topics.SEQUENCE: topics.sequence(self.number, self.before)}))
            self.before = topics.print_of(value)
        return out


def interleaved(rng: random.Random, *logs: list[tuple[bytes, dict[str, bytes]]]) -> list[tuple[bytes, dict[str, bytes]]]:
    """All messages, each machine's in their order; some come twice."""
    todo, out = [list(log) for log in logs], []
    while left := [log for log in todo if log]:
        out.append(rng.choice(left).pop(0))
        if rng.random() < 0.1:
            out.append(out[-1])
    return out


def taken(messages: list[tuple[bytes, dict[str, bytes]]], rng: random.Random) -> list[Row]:
    """The rows that a worker makes of them, its state saved and restored now and then."""
    partition, rows = Partition(0), []
    for offset, (value, headers) in enumerate(messages):
        result = partition.take(Message(offset, KEY, value, headers, time_ns=(offset + 1) * 10**9))
        assert not result.reason
        rows += result.rows
        partition.stored(offset)
        if rng.random() < 0.1:
            saved = partition.begin_saving(KEY)
            assert dump_claims(load_claims(saved.state)) == saved.state
            partition = Partition(0)
            assert not partition.restore([SavedHost(*saved)])
    return rows


def by_host(rows: Iterable[Row]) -> dict[UUID, list[Row]]:
    """Rows of images, and losses but for the clash itself."""
    out: dict[UUID, list[Row]] = {}
    for row in rows:
        if isinstance(row, ImageRow) or (isinstance(row, LossRow) and row.cause != LossCause.IDENTITY_CLASH):
            out.setdefault(row.host_id, []).append(row)
    return out


def clashes(rows: Iterable[Row]) -> set[UUID]:
    """The host_ids of which a clash is told."""
    return {row.host_id for row in rows if isinstance(row, LossRow) and row.cause == LossCause.IDENTITY_CLASH}


def alone(log: Iterable[Batch], host_id: UUID) -> list[Row]:
    """The rows of a machine that has the host_id for itself."""
    return joined(batch._replace(host_id=host_id) for batch in log)[0]


def check(rows: list[Row], logs: list[list[Batch]]) -> None:
    """Each log's rows are under a host_id of their own, as if it were alone; a clash is told of each."""
    found = by_host(rows)
    assert len(found) == len(logs) and HOST_ID in found
    left = list(logs)
    for host_id, some in found.items():
        fits = [log for log in left if not unequal(store_of(some), store_of(alone(log, host_id)))]
        assert len(fits) == 1, f"rows under {host_id} are of no machine"
        left = [log for log in left if log is not fits[0]]
    assert clashes(rows) == set(found)
    assert all(row.seen for row in rows), "a row of 1970 would be expired"


def check_reports(rows: list[Row]) -> None:
    """Table hosts says of each machine who it is and whom it claims to be."""
    found = by_host(rows)
    reports = {row.host_id: row for row in rows if isinstance(row, HostRow)}
    assert set(reports) == set(found) and {row.claims for row in reports.values()} == {HOST_ID}


@pytest.mark.parametrize("seed", seeds(0.3))
def test_cloned_machines_are_told_apart_by_what_they_are(seed: int) -> None:
    with told(seed):
        rng = random.Random(seed)
        logs = [flat(batches(log, cut_randomly(log, rng), rng)) for log, rng in (exact_log(100 * seed + number) for number in range(3))]
        machines = [Machine(b"machine %d" % number, rng.randbytes(8)) for number in range(3)]
        messages = [machine.messages(log) for machine, log in zip(machines, logs, strict=True)]
        rows = taken(interleaved(rng, *messages), rng)
        check(rows, logs)
        check_reports(rows)


def test_machines_stay_apart_though_workers_are_killed() -> None:
    killed = 0
    for seed in seeds(0.15):
        with told(seed):
            rng = random.Random(seed)
            logs = [flat(batches(log, cut_randomly(log, rng), rng)) for log, rng in (exact_log(100 * seed + number) for number in range(3))]
            machines = [Machine(b"machine %d" % number, rng.randbytes(8)) for number in range(3)]
            cluster = Cluster(partitions=2)
            for value, headers in interleaved(rng, *(machine.messages(log) for machine, log in zip(machines, logs, strict=True))):
                cluster.put(KEY, value, headers)
            asyncio.run(run(cluster, rng, deadly=True))
            killed += sum(member.dead for member in cluster.members)
            check(cluster.rows, logs)
    assert killed


def copied(seed: int, size: int) -> tuple[list[Batch], list[Batch], list[Batch]]:
    """A machine that is copied while it runs: what both have in common, and what each does after."""
    logs, entries = [], 0
    for number in (1, 2):
        # From one seed follows one life, up to where another one takes over.
        life = Life(random.Random(seed), exact=True, size=size)
        life.run()
        entries = sum(len(ring.entries) for boot in life.host.boots for ring in boot.rings)
        life.rng = life.host.rng = random.Random(10 * seed + number)
        for _ in range(size):
            life.step()
        life.settle()
        log = lay(life.host)
        logs.append(batches(log, cut_everywhere(log), random.Random(seed)))
    return flat(logs[0][:entries]), flat(logs[0][entries:]), flat(logs[1][entries:])


@pytest.mark.parametrize("seed", seeds(0.3))
def test_copies_of_a_running_machine_are_told_apart_by_what_they_send(seed: int) -> None:
    with told(seed):
        rng = random.Random(seed)
        common, one, other = copied(seed, 30)
        first = Machine(b"same", b"session")
        before = first.messages(common)
        second = copy.copy(first)
        logs = [first.messages(one), second.messages(other)]
        messages = before + interleaved(rng, *logs)
        # Whose first message comes first goes on with what was common; the other begins anew.
        goes_on = messages[len(before)] == logs[0][0]
        rows = taken(messages, rng)
        check(rows, [common + one, other] if goes_on else [common + other, one])
        check_reports(rows)


def test_a_producer_that_starts_again_is_the_same_machine() -> None:
    log, rng = exact_log(5)
    whole = flat(batches(log, cut_everywhere(log), rng))
    messages = []
    for number, begin in enumerate(range(0, len(whole), 50)):
        # The ring's last stretch comes again, for the producer was killed before it was released.
        messages += Machine(b"m", b"run %d" % number).messages(whole[max(0, begin - 5) : begin + 50])
    rows = taken(messages, rng)
    assert not clashes(rows)
    assert not unequal(store_of(rows), store_of(alone(whole, HOST_ID)))


def runs(seed: int, size: int) -> tuple[list[Batch], list[tuple[bytes, dict[str, bytes]]]]:
    """A host that starts anew some times, and whose producer does so every now and then: its batches, and its messages."""
    log, rng = exact_log(seed, size)
    whole, messages, number = flat(batches(log, cut_everywhere(log), rng)), list[tuple[bytes, dict[str, bytes]]](), 0
    for _, boot in itertools.groupby(whole, key=lambda batch: batch.boot_id):
        left = list(boot)
        while left:
            number, stretch = number + 1, rng.choice((3, 30, 400))
            messages += Machine(b"m", b"run %d" % number).messages(left[:stretch])
            left = left[stretch:]
    return whole, messages


def test_a_log_that_is_appended_to_itself_changes_nothing_and_what_cannot_be_told_is_dead() -> None:
    happened = {"boots": 0, "runs": 0, "dead": 0}
    for seed in seeds(0.3):
        with told(seed):
            whole, messages = runs(seed, 300)
            some = len(messages) * 9 // 10
            partition, rows, dead = Partition(0), list[Row](), set[bytes]()
            for offset, (value, headers) in enumerate([*messages[:some], *messages[:some], *messages]):
                result = partition.take(Message(offset, KEY, value, headers, time_ns=(offset + 1) * 10**9))
                assert not (result.reason and result.rows)
                rows += result.rows
                dead |= {value} if result.reason else set()
                assert not result.reason or offset >= some
            assert not clashes(rows)
            assert not unequal(store_of(rows), store_of(alone(whole, HOST_ID)))
            assert dead <= {value for value, _ in messages[:some]}, "what is dead was read before"
            happened["boots"] += len({batch.boot_id for batch in whole}) > 1
            happened["runs"] += len({headers[topics.SESSION] for _, headers in messages}) > FORMER_MAX
            happened["dead"] += bool(dead)
    assert all(happened.values()), happened


def test_without_any_fact_a_run_that_comes_back_is_another_machine() -> None:
    logs = [flat(batches(log, cut_everywhere(log), rng)) for log, rng in (exact_log(number) for number in (11, 12))]
    machines = [Machine(b"", b"run %d" % number) for number in range(2)]
    halves = [machine.messages(log) for machine, log in zip(machines, logs, strict=True)]
    cut = len(halves[0]) // 2
    rows = taken(halves[0][:cut] + halves[1][:10] + halves[0][cut:] + halves[1][10:], random.Random(1))
    assert len(clashes(rows)) == 2
    boots = [{batch.boot_id for batch in log} for log in logs]
    for some in by_host(rows).values():
        for row in some:
            assert isinstance(row, LossRow) or row.boot_id in boots[0] | boots[1]
    derived = next(host_id for host_id in clashes(rows) if host_id != HOST_ID)
    assert {row.boot_id for row in by_host(rows)[derived]} <= boots[0], "what came back has a name of its own"


def test_more_machines_than_can_be_kept_apart_are_not_taken() -> None:
    log, rng = exact_log(3)
    batch = flat(batches(log, cut_everywhere(log), rng))[0]
    partition = Partition(0)
    results = []
    for number in range(12):
        (value, headers), *_ = Machine(b"machine %d" % number, b"s").messages([batch])
        results.append(partition.take(Message(number, KEY, value, headers)))
    assert [bool(result.reason) for result in results] == [False] * 8 + [True] * 4
