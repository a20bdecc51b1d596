"""The log joined again over what a faulty join had stored."""

from collections.abc import Iterator
from itertools import islice

import pytest

from broker.memory import MemoryBroker, MemoryLogReader, MemorySender
from queries.rows import NEWEST, fetch
from schemas import topics
from schemas.batch import encode_batch
from schemas.limits import RETENTION_DAYS_MAX
from schemas.rows import HostRow, ImageRow
from store import migrate
from store.connection import Connection
from streams.fleet.partition import accept
from streams.fleet.replay import Replay
from streams.memory import Memory
from tests.contract.conftest import Store
from tests.sim.oracle import store_of
from tests.sim.test_recall import World, content, world

MINUTE_MS = 60_000


class Fleet:
    """A log in which a message comes each minute, and a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broker = MemoryBroker()
        self.broker.create_topics(topics.topics(3), 1)
        self.reader = MemoryLogReader(self.broker)
        self.begin_ms = self.broker.time_ms

    def produce(self, it: World) -> None:
        """The world's batches, all but none of them."""
        sender = MemorySender(self.broker)
        for batch in it.batches:
            sender.send(topics.EVENTS, str(batch.host_id).encode(), encode_batch(batch))
            sender.flush(0)
            self.broker.time_ms += MINUTE_MS

    def replay(self, from_ms: int, correction: int) -> Replay:
        """Store the rows again."""
        work = Replay(self.reader, Memory(lambda: Connection(self.store.addresses["writer"])), accept, correction)
        for rows in work.rows(range(3), from_ms, self.broker.time_ms):
            assert not [row for row in rows if isinstance(row, HostRow)]
            if rows:
                self.store.write(rows)
        return work

    def images(self, it: World) -> dict[object, ImageRow]:
        """What is stored of the world, as it is compared."""
        with Connection(self.store.addresses["reader"]) as connection:
            rows = fetch(connection, ImageRow, f"WHERE host_id = {{host_id:UUID}} {NEWEST}", {"host_id": it.batches[0].host_id})
            return {key: content(it.log, False, row) for key, row in store_of(rows).images.items()}


@pytest.fixture
def fleet(store: Store) -> Iterator[Fleet]:
    """An empty log; simulated clocks are of some years ago."""
    migrate.apply(store.addresses["writer"], RETENTION_DAYS_MAX)
    yield Fleet(store)
    migrate.apply(store.addresses["writer"])


def killed(fleet: Fleet, messages: int) -> None:
    """A replay that ends after so many messages, their rows stored."""
    work = Replay(fleet.reader, Memory(lambda: Connection(fleet.store.addresses["writer"])), accept, 1)
    for rows in islice(work.rows(range(3), fleet.begin_ms, fleet.broker.time_ms), messages):
        if rows:
            fleet.store.write(rows)


def spoiled(it: World) -> list[ImageRow]:
    """Rows as a join might have made them that did not know arguments."""
    return [row._replace(argv=(b"wrong",)) for row in it.store.images.values()]


@pytest.mark.parametrize("seed", [2, 5])
def test_what_was_stored_wrongly_is_put_right(fleet: Fleet, seed: int) -> None:
    it = world(seed)
    good = {key: content(it.log, False, row) for key, row in it.store.images.items()}
    fleet.produce(it)
    fleet.store.write(spoiled(it))
    assert fleet.images(it) != good
    killed(fleet, len(it.batches) // 2)
    work = fleet.replay(fleet.begin_ms, 1)
    assert work.done.messages == len(it.batches) and not work.done.refused
    assert fleet.images(it) == good
    fleet.store.write([row._replace(version=row.version + 1) for row in spoiled(it)])
    fleet.replay(fleet.begin_ms, 2)
    assert fleet.images(it) == good, "a second time needs a larger correction"


def test_a_stretch_of_the_log_puts_right_what_began_in_it_and_spoils_nothing(fleet: Fleet) -> None:
    it = world(7)
    fleet.produce(it)
    fleet.store.write([*it.store.images.values()])
    before = fleet.images(it)
    number = sorted(it.quiet)[-1]
    fleet.replay(fleet.begin_ms + number * MINUTE_MS, 1)
    assert fleet.images(it) == before
