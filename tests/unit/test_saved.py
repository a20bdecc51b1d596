"""A state that was saved by an earlier program goes on: the bytes of such a one are kept here."""

import random
from pathlib import Path

from schemas.batch import Batch, batch_size, decode_batch
from schemas.rows import Row
from streams.join import HostState, apply, dump, load
from tests.sim.channel import batches, lay
from tests.sim.host import Host

VECTORS = Path(__file__).parent / "vectors"
SAVED_AFTER = 7
"""Batches of the log after which the state was saved."""


def log() -> list[Batch]:
    """A small host's log with losses, from the simulated host."""
    data, out = (VECTORS / "state_log.batches").read_bytes(), []
    while data:
        size = batch_size(data)
        out.append(decode_batch(data[:size]))
        data = data[size:]
    return out


def rest(state: HostState) -> list[Row]:
    """The rows of what follows in the log."""
    return [row for batch in log()[SAVED_AFTER:] for row in apply(state, batch)]


def test_a_state_of_version_2_gives_the_rows_that_the_whole_log_gives() -> None:
    state = HostState()
    before = [row for batch in log()[:SAVED_AFTER] for row in apply(state, batch)]
    assert before and len(state.living) > 4 and state.losses and state.waiting
    loaded = load((VECTORS / "state_version_2.json").read_bytes())
    expected = rest(state)
    assert expected and rest(loaded) == expected


def stormed(processes: int) -> HostState:
    """A host's state a moment after so many processes that ended at once, before the rows of their begin would be due."""
    host = Host(random.Random(1), pid_max=1 << 20)
    reader, _ = host.fork(host.init)
    host.start_recorder(reader)
    for _ in range(processes):
        child, _ = host.fork(host.init)
        host.exec(child, comm=b"true")
        host.exit(child, 0)
    placed = lay(host)
    state = HostState()
    for group in batches(placed, [[0, len(records)] for _, records in placed.rings], random.Random(2)):
        for batch in group:
            apply(state, batch)
    return state


def test_what_ended_in_a_storm_is_not_saved() -> None:
    # The latest few ends are kept, to know repeats of them; beyond these a storm leaves nothing.
    calm, storm = stormed(300), stormed(3_000)
    assert len(storm.waiting) > 1_000
    assert len(dump(storm)) < 1.2 * len(dump(calm))
