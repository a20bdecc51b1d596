"""From a seed to a host, a log with or without losses, and the rows that the join makes of it."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import environ

from schemas.batch import Batch
from schemas.events import MarkRecord
from schemas.rows import Row
from streams.join import HostState, apply, dump, load
from tests.sim.channel import Log, batches, choose_refused, cut_randomly, drop_batches, lay
from tests.sim.life import Life

SEEDS = int(environ.get("SIM_SEEDS", "40"))
"""How many random worlds each property is tried on; ``SIM_FIRST`` is the first seed."""
FIRST = int(environ.get("SIM_FIRST", "0"))


def seeds(share: float = 1.0) -> range:
    """The seeds of one property."""
    return range(FIRST, FIRST + max(1, round(SEEDS * share)))


@contextmanager
def told(seed: int) -> Iterator[None]:
    """A failure says which seed made it."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"SEED={seed}")
        print(f"SEED={seed}")
        raise


def exact_log(seed: int, size: int = 0) -> tuple[Log, random.Random]:
    """A log from which nothing is missing."""
    rng = random.Random(seed)
    host = Life(rng, exact=True, size=size).run()
    return lay(host), rng


def lossy_log(seed: int) -> tuple[Log, list[list[Batch]], random.Random]:
    """A log with losses of every kind, and its batches."""
    rng = random.Random(seed)
    host = Life(rng, exact=False).run()
    refused = choose_refused(host, rng, rng.choice((0, 1, 4)))
    left = {id(entry) for entry in refused}
    entries = [entry for boot in host.boots for ring in boot.rings for entry in ring.entries]
    records = [entry for entry in entries if not isinstance(entry.record, MarkRecord) and id(entry) not in left]
    log = lay(host, refused, rng.sample(records, min(len(records), rng.choice((0, 0, 1, 3)))))
    if rng.random() < 0.3:
        log.no_snapshot = {snapshot.snapshot_id for boot in host.boots for snapshot in boot.snapshots if rng.random() < 0.3}
    groups = batches(log, cut_randomly(log, rng), rng)
    holes = {number for number in range(len(groups) - 1) if rng.random() < 0.05} if rng.random() < 0.4 else set()
    return log, drop_batches(log, groups, holes), rng


def flat(groups: list[list[Batch]]) -> list[Batch]:
    """All batches in order."""
    return [batch for group in groups for batch in group]


def joined(log: Iterable[Batch], save: random.Random | None = None, often: float = 1.0) -> tuple[list[Row], HostState]:
    """The rows of the batches and the state in the end; with ``save`` the state is saved and restored between batches."""
    state = HostState()
    rows: list[Row] = []
    for batch in log:
        rows += apply(state, batch)
        if save is not None and save.random() < often:
            saved = dump(state)
            state = load(saved)
            assert dump(state) == saved, "a state that was loaded is saved otherwise"
    return rows, state
