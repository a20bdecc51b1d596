"""One worker of the fleet: messages in, rows to the store, then the hosts' states to their topic, then offsets to the group.

Kill it between any two steps: whoever gets its partitions finds the saved states and the committed offset, reads on from there,
and writes again what was written already, the same rows with the same keys and versions.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schemas.errors import Unavailable
from schemas.rows import Row
from streams.fleet.counts import Counts
from streams.fleet.partition import NOBODY, Message, Partition, SavedHost, Taken
from streams.fleet.storing import Portion, Storing
from streams.memory import MemoryEdge

SAVE_S = 5.0
"""Pause between two savings of states; longer when saving takes long."""
SAVE_SHARE = 4
"""A saving of s seconds is followed by a pause of at least this many times s."""
PAUSE_MAX_S = 30.0
"""But never longer: a saving may have taken long because the store was away."""
SLICE_BYTES = 16 * 1024 * 1024
"""Saved states that are held in memory at once while they are written."""
RETRY_S = 1.0
WAITING_ROWS_MAX = 50_000
"""Rows that may wait for the store before no more messages are joined."""


class Start(NamedTuple):
    """What is known of a partition when it is assigned: offset committed by the group (None if none), first and end of the log."""

    committed: int | None
    low: int
    end: int


class GroupEdge(Protocol):
    """The consumer group, which Faust speaks to."""

    async def commit(self, offsets: dict[int, int]) -> bool:
        """Commit; False when this worker is no member any more."""

    async def seek(self, partition: int, offset: int) -> None:
        """Read the partition from there on."""


class KafkaEdge(Protocol):
    """What is asked of Kafka beside the group: states, dead letters, where the log begins and ends."""

    def starts(self, partitions: Iterable[int]) -> dict[int, Start]:
        """Blocking. Raises Unavailable."""

    def read_states(self, partitions: Iterable[int]) -> dict[int, list[SavedHost]]:
        """Blocking: of each host the state that covers most. Raises Unavailable."""

    async def write_states(self, states: list[tuple[int, SavedHost]]) -> None:
        """Returns when the broker keeps them for good. Raises Unavailable."""

    async def write_dead(self, partition: int, message: Message, reason: str) -> None:
        """Returns when the broker keeps it for good. Raises Unavailable."""


@dataclass(slots=True, eq=False)
class _Held:
    """A partition in our hands. ``expected`` is the offset of the message that must come next; ``jumped_to`` the latest one that came
    in its stead since it was asked for again; ``marked`` says that it is kept that no host is in it."""

    partition: Partition
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    expected: int = 0
    committed: int | None = None
    gone: bool = False
    jumped_to: int | None = None
    marked: bool = False


class Abandoned(Exception):
    """The partition was taken away meanwhile: nothing of it is ours to write."""


class Worker:
    """See the module. Everything here runs in one event loop; only ``Storing`` has a thread of its own."""

    def __init__(
        self,
        group: GroupEdge,
        kafka: KafkaEdge,
        storing: Storing,
        refuse: Callable[[Message], str],
        say: Callable[[str], None],
        failed: Callable[[BaseException], None],
        memory: MemoryEdge | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``refuse`` says why a message is not taken, empty to take it; ``say`` tells a person one line; ``failed`` is told of bugs.
        ``memory`` is asked of hosts that nothing is known of.

        ``delays_s`` says of each host's key how long after it was made its latest batch was joined, by the host's clock and ours.
        """
        self.failed = failed
        self.counts = Counts()
        self.delays_s: dict[bytes, float] = {}
        self._memory, self._wall_ns = memory, wall_ns
        self.held: dict[int, _Held] = {}
        self._group = group
        self._kafka = kafka
        self._storing = storing
        self._refuse = refuse
        self._say = say
        self._parked: dict[int, Partition] = {}
        self._parked_generation = -1
        self._generation = -1
        self._saving = asyncio.Lock()
        self._progress = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- who has what --

    def assigned(self, partitions: set[int], generation: int) -> None:
        """These partitions, and no others, are ours from now on; their states are read before their first message is joined."""
        self._let_go()
        kept = self._parked if generation == self._parked_generation + 1 else {}
        self._generation, self._parked = generation, {}
        for number in partitions:
            self.held[number] = _Held(kept[number] if number in kept else Partition(number, self._refuse, self._memory))
        self._in_background(self._open_all(dict(self.held), kept.keys() & partitions))

    async def _open_all(self, held: dict[int, _Held], kept: set[int]) -> None:
        """Find out where these partitions go on, however long the broker is away; a new assignment ends it."""
        while any(not one.gone for one in held.values()):
            try:
                starts = await asyncio.to_thread(self._kafka.starts, sorted(held))
                states = await asyncio.to_thread(self._kafka.read_states, sorted(held.keys() - kept))
            except Unavailable as failure:
                self._say(f"{failure}; trying again")
                await asyncio.sleep(RETRY_S)
                continue
            for number, one in held.items():
                if not one.gone:
                    await self._open(one, starts[number], states.get(number), number in kept)
            return

    async def _open(self, held: _Held, start: Start, states: list[SavedHost] | None, kept: bool) -> None:
        """Take up the states of a partition and say where it goes on."""
        number = held.partition.number
        held.committed = start.committed
        held.expected = start.low if start.committed is None else max(start.committed, start.low)
        bad = [] if kept else held.partition.restore(states or [])
        for key, problem in bad:
            self._say(f"partition {number}: the saved state of host {key.decode('ascii', 'backslashreplace')} cannot be read: {problem}")
        if bad or not (kept or states):
            if held.expected > start.low:
                self.counts.rebuilt += 1
                self._say(f"partition {number}: states are missing, so the log is read again from offset {start.low} on")
                # Whoever goes on if we end while reading must begin there too, though some states will be saved by then.
                if not await self._group.commit({number: start.low}):
                    held.gone = True
                    held.ready.set()
                    return
                held.committed = held.expected = start.low
                await self._group.seek(number, start.low)
        elif start.committed is not None and start.committed < start.low:
            self._say(f"partition {number}: the log was cut up to {start.low} before {start.committed} was read; the losses will be told")
        held.ready.set()

    async def revoked(self, budget_s: float) -> None:
        """Our partitions go to others, or come back at once: save what can be saved in the time."""
        try:
            await asyncio.wait_for(self.save(), budget_s)
        except (TimeoutError, Unavailable, Abandoned) as failure:
            self._say(f"states were not saved before partitions were given up, whoever gets them reads on from older ones: {failure!r}")
        ready = [(number, one.partition) for number, one in self.held.items() if one.ready.is_set() and not one.gone]
        # What is given up unstored is joined again, so a state that is past it is of no use.
        self._parked = {number: partition for number, partition in ready if partition.all_stored}
        self._parked_generation = self._generation
        self._let_go()

    def _let_go(self) -> None:
        self._storing.give_up(set(self.held))
        self.delays_s.clear()
        for one in self.held.values():
            one.gone = True
            one.ready.set()
        self.held = {}
        self._progress.set()

    def positions(self) -> dict[int, int]:
        """Of each partition whose states were read, the offset of the message that comes next."""
        return {number: one.expected for number, one in self.held.items() if one.ready.is_set() and not one.gone}

    @property
    def progress(self) -> int:
        """Grows with each message that is given to us."""
        counts = self.counts
        return counts.messages + counts.repeated + counts.dead + counts.again + counts.jumps

    @property
    def trouble(self) -> str:
        """Why the store does not take rows now, empty if it does."""
        return self._storing.trouble

    @property
    def excused(self) -> bool:
        """Whether the store, which is known to be away, holds us up."""
        return bool(self._storing.trouble) or self._storing.waiting > WAITING_ROWS_MAX

    # -- messages --

    async def handle(self, number: int, generation: int, message: Message) -> None:
        """Join one message. Returns when there is room for the next; what it raises is a bug, after which nothing may be saved."""
        held = self.held.get(number)
        if held is None or generation != self._generation:
            return
        await held.ready.wait()
        if held.gone or not await self._in_order(held, message):
            return
        taken = await self._take(held, message)
        if taken is None:
            return
        if taken.repeated:
            self.counts.repeated += 1
        elif taken.reason:
            self.counts.dead += 1
            self.counts.refused += taken.refused
            self._bury(held, message, taken.reason)
        else:
            self._count(message, taken)
            self._store(held, message.offset, taken.rows)
        while self._storing.waiting > WAITING_ROWS_MAX and not held.gone:
            await self._next_progress()

    def _count(self, message: Message, taken: Taken) -> None:
        """Note what came of a message, and how late it was."""
        self.counts.joined(taken)
        if taken.batch is not None:
            self.delays_s[message.key] = (self._wall_ns() - taken.batch.realtime_ns) / 1e9

    async def _take(self, held: _Held, message: Message) -> Taken | None:
        """What comes of the message, waiting as long as the store's memory cannot be asked; None when it is no more ours."""
        said = False
        while not held.gone:
            try:
                return held.partition.take(message)
            except Unavailable as failure:
                if not said:
                    self._say(f"the store is asked of a host that nothing is known of here: {failure}; trying again")
                said = True
                await asyncio.sleep(RETRY_S)
        return None

    async def _in_order(self, held: _Held, message: Message) -> bool:
        """Whether it is the message that must come next; one that is later makes the partition be read again from where it should."""
        if message.offset < held.expected:
            self.counts.again += 1
            return False
        if message.offset > held.expected:
            # What had been fetched before we asked comes first, in order.
            fetched_before = held.jumped_to is not None and message.offset > held.jumped_to
            held.jumped_to = message.offset
            if not fetched_before:
                self.counts.jumps += 1
                await self._group.seek(held.partition.number, held.expected)
            return False
        held.jumped_to = None
        held.expected += 1
        return True

    def _store(self, held: _Held, offset: int, rows: list[Row]) -> None:
        if not rows:
            held.partition.stored(offset)
            return
        loop = asyncio.get_running_loop()

        def done() -> None:
            loop.call_soon_threadsafe(self._stored, held, offset)

        self._storing.put(Portion(held.partition.number, offset, rows, done))

    def _stored(self, held: _Held, offset: int) -> None:
        held.partition.stored(offset)
        self._progress.set()

    def _bury(self, held: _Held, message: Message, reason: str) -> None:
        self._say(f"partition {held.partition.number}, offset {message.offset} is put among the dead letters: {reason}")
        self._in_background(self._bury_until_done(held, message, reason))

    async def _bury_until_done(self, held: _Held, message: Message, reason: str) -> None:
        while not held.gone:
            try:
                await self._kafka.write_dead(held.partition.number, message, reason)
            except Unavailable:
                await asyncio.sleep(RETRY_S)
                continue
            self._stored(held, message.offset)
            return

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        """Run it beside all else; what goes wrong in it ends the worker."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self.failed(bug)

    async def _next_progress(self) -> None:
        self._progress.clear()
        await self._progress.wait()

    # -- safety --

    async def save(self) -> None:
        """Rows, then states, then offsets. Raises Unavailable when the broker does not take them now; nothing is lost then."""
        async with self._saving:
            ready = [one for one in self.held.values() if one.ready.is_set()]
            # A worker that hung and is no member any more must not write: the topic keeps what was written last.
            known = {one.partition.number: one.committed for one in ready if one.committed is not None and one.partition.unsaved()}
            if known and not await self._group.commit(known):
                raise Abandoned("the group does not know this worker any more")
            for held in ready:
                todo = held.partition.unsaved()
                while todo:
                    todo = await self._save_slice(held, todo)
                await self._mark(held)
            offsets = {one.partition.number: at for one in ready if not one.gone and (at := one.partition.committable()) is not None}
            changed = {number: at for number, at in offsets.items() if self.held[number].committed != at}
            if changed and await self._group.commit(changed):
                for number, at in changed.items():
                    if number in self.held:
                        self.held[number].committed = at
            self.counts.saves += 1

    async def _mark(self, held: _Held) -> None:
        """Of a partition in which no host's messages are, keep that it was read: else its states would be taken for lost."""
        at = held.partition.committable()
        if at and not (held.gone or held.marked or held.partition.hosts):
            await self._kafka.write_states([(held.partition.number, SavedHost(NOBODY, at, b"-"))])
            held.marked = True

    async def _save_slice(self, held: _Held, todo: list[bytes]) -> list[bytes]:
        """Save the first of these hosts, as many as are held in memory at once; gives the rest."""
        partition, states, size = held.partition, list[SavedHost](), 0
        while todo and size < SLICE_BYTES:
            states.append(partition.begin_saving(todo[0]))
            size += len(states[-1].state)
            todo = todo[1:]
            await asyncio.sleep(0)
        try:
            covers = max(state.covers for state in states)
            while not held.gone and not partition.stored_below(covers):
                await self._next_progress()
            if held.gone:
                raise Abandoned
            await self._kafka.write_states([(partition.number, state) for state in states])
        except BaseException:
            for state in states:
                partition.not_saved(state.key)
            raise
        for state in states:
            partition.saved(state.key)
        return todo
