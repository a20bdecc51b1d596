"""A state that was saved by an earlier program goes on: the bytes of such a one are kept here."""

from pathlib import Path

from schemas.batch import Batch, batch_size, decode_batch
from schemas.rows import Row
from streams.join import HostState, apply, load

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
