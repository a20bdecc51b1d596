"""What a real store remembers of a host, for a join that has lost its state."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from schemas.limits import RETENTION_DAYS_MAX
from schemas.rows import HostRow
from store import migrate
from store.connection import Connection
from streams.join import HostState
from streams.memory import KnownMachine, Memory
from tests.contract.conftest import Store
from tests.sim.test_recall import World, check_from, world

OTHER = UUID(int=99)


@pytest.fixture(scope="module")
def worlds(store: Store) -> Iterator[list[World]]:
    """Simulated hosts whose rows are stored; their clocks are of some years ago."""
    migrate.apply(store.addresses["writer"], RETENTION_DAYS_MAX)
    made = [world(seed) for seed in (1, 3, 8, 11)]
    for it in made:
        store.write([*it.store.images.values(), *it.store.losses.values()])
    yield made
    migrate.apply(store.addresses["writer"])


@pytest.fixture
def memory(store: Store) -> Memory:
    """Asks as the writer does."""
    return Memory(lambda: Connection(store.addresses["writer"]))


def test_the_log_goes_on_from_any_point(memory: Memory, worlds: list[World]) -> None:
    checked = 0
    for it in worlds:
        for number in it.quiet:
            batch = it.batches[number]
            state = memory.recall(batch.host_id, batch, all_before=True)
            if state is not None:
                assert (state.ring_id, state.position, state.boot_id) == (batch.ring_id, batch.start, batch.boot_id)
                check_from(it, number, state)
                checked += 1
    assert checked > 8


def test_after_another_start_of_the_host_the_boot_before_is_known(memory: Memory, worlds: list[World]) -> None:
    last = worlds[0].batches[-1]
    state = memory.recall(last.host_id, last._replace(boot_id=OTHER))
    assert isinstance(state, HostState) and state.boot_id == last.boot_id
    living = {row.tgid for row in worlds[0].store.images.values() if row.boot_id == last.boot_id and not row.end_kind}
    assert set(state.living) == living != set()


def test_a_hole_between_what_was_stored_and_what_comes_is_seen(memory: Memory, worlds: list[World]) -> None:
    last = worlds[0].batches[-1]
    later = last._replace(start=last.end + 4096, end=last.end + 4096, body=b"")
    state = memory.recall(last.host_id, later)
    assert state is not None and state.position < later.start, "the join tells the hole when it takes the batch"
    known = memory.recall(last.host_id, later, all_before=True)
    assert known is not None and known.position == later.start


def test_of_a_stranger_nothing_is_known(memory: Memory, worlds: list[World]) -> None:
    assert memory.recall(OTHER, worlds[0].batches[0]) is None
    assert memory.machines(OTHER) == []


def test_machines_of_one_host_id_are_known_with_the_first_one_first(memory: Memory, store: Store) -> None:
    mine = HostRow(OTHER, b"web", UUID(int=1), OTHER, b"ab01", 2, *(0,) * 10, seen=2_000_000_000, version=5)
    clone = mine._replace(host_id=UUID(int=7), machine=b"ff", version=9)
    older = mine._replace(boot_id=UUID(int=2), machine=b"00", version=2)
    store.write([clone, mine, older])
    assert memory.machines(OTHER) == [KnownMachine(OTHER, b"\xab\x01"), KnownMachine(UUID(int=7), b"\xff")]
