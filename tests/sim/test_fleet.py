"""The fleet against the one host: the same batches through a cluster of workers that die and change give the same rows."""

import asyncio
import random

import pytest

from schemas.batch import Batch, encode_batch
from tests.sim.channel import batches, cut_randomly
from tests.sim.cluster import Cluster, Killed, Member, others
from tests.sim.oracle import store_of
from tests.sim.scenario import exact_log, flat, joined, lossy_log, seeds, told
from tests.sim.test_sim import unequal

LIVES_MAX = 120


def hosts_of(seed: int) -> list[list[Batch]]:
    """The batches of some hosts."""
    logs = []
    for number in range(4):
        log, rng = exact_log(1000 * seed + number)
        logs.append(flat(batches(log, cut_randomly(log, rng), rng)))
    logs.append(flat(lossy_log(1000 * seed + 9)[1]))
    return logs


def interleaved(logs: list[list[Batch]], rng: random.Random) -> list[Batch]:
    """All batches, each host's in order; some come twice."""
    todo = [list(log) for log in logs]
    out: list[Batch] = []
    while left := [log for log in todo if log]:
        log = rng.choice(left)
        out.append(log.pop(0))
        if rng.random() < 0.1:
            out.append(out[-1])
    return out


async def rebalance(cluster: Cluster, members: list[Member], rng: random.Random, deadly: bool) -> list[Member]:
    """The group changes: some members leave or died, some come, some are expelled without having been asked."""
    cluster.expelled = [member for member in members if rng.random() < 0.2]
    members = [member for member in members if member not in cluster.expelled]
    for member in members:
        if not member.dead and rng.random() < 0.7:
            await member.leave()
    members = [member for member in members if not member.dead and rng.random() < 0.8]
    while len(members) < rng.choice((1, 2, 3)) or not members:
        members.append(Member(cluster, rng, rng.randrange(LIVES_MAX) if deadly else 1 << 40))
    cluster.generation += 1
    shares: list[set[int]] = [set() for _ in members]
    for number in range(cluster.partitions):
        rng.choice(shares).add(number)
    for member, share in zip(members, shares, strict=True):
        member.assign(share)
    return members


async def run(cluster: Cluster, rng: random.Random, deadly: bool) -> None:
    """Work until everything is stored and committed. At first members die; in the end they do not."""
    members: list[Member] = []
    for turn in range(60):
        if rng.random() < 0.3 or not [member for member in members if not member.dead]:
            members = await rebalance(cluster, members, rng, deadly and turn < 50)
        for member in [*members, *cluster.expelled]:
            await member.turn(rng.randrange(12))
    last = Member(cluster, rng, 1 << 40)
    cluster.generation += 1
    last.assign(set(range(cluster.partitions)))
    while await last.turn(20) or cluster.committed != {number: len(messages) for number, messages in cluster.log.items()}:
        await others()


@pytest.mark.parametrize("seed", seeds(0.5))
def test_workers_that_die_and_change_give_the_rows_of_one_host(seed: int) -> None:
    with told(seed):
        logs, rng = hosts_of(seed), random.Random(seed)
        cluster = Cluster(partitions=3)
        for batch in interleaved(logs, rng):
            cluster.produce(batch)
        asyncio.run(run(cluster, rng, deadly=seed % 4 != 0))
        assert not [bug for member in cluster.members for bug in member.bugs if not isinstance(bug, Killed)]
        expected = [row for log in logs for row in joined(log)[0]]
        different = unequal(store_of(cluster.rows), store_of(expected))
        assert not different, different


def test_rare_things_happen() -> None:
    counts = {"deaths": 0, "repeated": 0, "again": 0, "jumps": 0, "refused commits": 0}
    for seed in (1, 2, 3):
        logs, rng = hosts_of(seed), random.Random(seed)
        cluster = Cluster(partitions=3)
        for batch in interleaved(logs, rng):
            cluster.produce(batch)
        asyncio.run(run(cluster, rng, deadly=True))
        for member in cluster.members:
            counts["deaths"] += member.dead
            counts["repeated"] += member.worker.counts.repeated
            counts["again"] += member.worker.counts.again
            counts["jumps"] += member.worker.counts.jumps
            counts["refused commits"] += member.refused
    assert all(counts.values()), counts


@pytest.mark.parametrize("seed", seeds(0.1))
def test_what_cannot_be_read_is_a_dead_letter_and_blocks_nothing(seed: int) -> None:
    with told(seed):
        logs, rng = hosts_of(seed), random.Random(seed)
        cluster = Cluster(partitions=3)
        stream = interleaved(logs, rng)
        poison = {rng.randrange(len(stream)) for _ in range(5)}
        for number, batch in enumerate(stream):
            if number in poison:
                key = str(batch.host_id).encode()
                cluster.put(key, encode_batch(batch)[: rng.randrange(200)])
                cluster.put(str(logs[0][0].boot_id).encode(), encode_batch(batch))
            cluster.produce(batch)
        asyncio.run(run(cluster, rng, deadly=True))
        assert len({(number, offset) for number, offset, _ in cluster.dead}) == 2 * len(poison)
        different = unequal(store_of(cluster.rows), store_of([row for log in logs for row in joined(log)[0]]))
        assert not different, different


@pytest.mark.parametrize("seed", seeds(0.1))
def test_without_states_the_log_is_read_again(seed: int) -> None:
    with told(seed):
        logs, rng = hosts_of(seed), random.Random(seed)
        cluster = Cluster(partitions=2)
        stream = interleaved(logs, rng)
        for batch in stream[: len(stream) // 2]:
            cluster.produce(batch)
        asyncio.run(run(cluster, rng, deadly=False))
        cluster.states.clear()
        for batch in stream[len(stream) // 2 :]:
            cluster.produce(batch)
        asyncio.run(run(cluster, rng, deadly=False))
        assert sum(member.worker.counts.rebuilt for member in cluster.members)
        different = unequal(store_of(cluster.rows), store_of([row for log in logs for row in joined(log)[0]]))
        assert not different, different
