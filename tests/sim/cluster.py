"""A simulated cluster around real workers: a log, a topic of states, a group's offsets and a store, all of which outlive any worker."""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field

from schemas.batch import Batch, encode_batch
from schemas.rows import Row
from streams.fleet.partition import Message, SavedHost, accept
from streams.fleet.storing import Portion
from streams.fleet.worker import Abandoned, Start, Worker


async def others() -> None:
    """Let all others in the loop have a turn."""
    turn = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turn.set_result, None)
    await turn


class Killed(BaseException):
    """The worker's process ended here."""


@dataclass
class Cluster:
    """What is kept for good.

    log          messages of each partition
    low          first offset of each partition that is still there
    states       records of the states' topic, in order
    committed    offsets of the group
    rows         rows in the order in which the store took them
    dead         dead letters: partition, offset, reason
    generation   of the group; older members are refused
    members      all that there ever were
    expelled     those that are no members any more and do not know it yet
    """

    partitions: int
    log: dict[int, list[Message]] = field(default_factory=dict)
    low: dict[int, int] = field(default_factory=dict)
    states: list[tuple[int, SavedHost]] = field(default_factory=list)
    committed: dict[int, int] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    dead: list[tuple[int, int, str]] = field(default_factory=list)
    generation: int = 0
    members: list["Member"] = field(default_factory=list)
    expelled: list["Member"] = field(default_factory=list)

    def produce(self, batch: Batch) -> None:
        """Put a batch where its host's batches go."""
        self.put(str(batch.host_id).encode(), encode_batch(batch))

    def put(self, key: bytes, value: bytes, headers: dict[str, bytes] | None = None) -> None:
        """Put a message where that key's messages go."""
        messages = self.log.setdefault(sum(key) % self.partitions, [])
        messages.append(Message(len(messages), key, value, headers or {}))


class Storing:
    """In place of the thread: rows are stored when the loop comes round, or when the simulated process lives no more, never."""

    def __init__(self, member: "Member") -> None:
        self.waiting, self.trouble = 0, ""
        self._member = member
        self._portions: list[Portion] = []

    def put(self, portion: Portion) -> None:
        """Queue rows."""
        self._portions.append(portion)
        self.waiting += len(portion.rows)
        asyncio.get_running_loop().call_soon(self._store)

    def give_up(self, partitions: set[int]) -> None:
        """Forget what waits for these partitions."""
        self._portions = [portion for portion in self._portions if portion.partition not in partitions]

    def _store(self) -> None:
        if self._portions and not self._member.dead and self._member.rng.random() < 0.8:
            portion = self._portions.pop(0)
            self._member.cluster.rows += portion.rows
            self.waiting -= len(portion.rows)
            if self._member.survives():
                portion.done()
        if self._portions and not self._member.dead:
            asyncio.get_running_loop().call_soon(self._store)


class Member:
    """A worker with its edges to the cluster. It dies after ``lives`` more steps, at that very step."""

    def __init__(self, cluster: Cluster, rng: random.Random, lives: int) -> None:
        self.cluster, self.rng, self.lives = cluster, rng, lives
        self.died = asyncio.Event()
        self.said: list[str] = []
        self.positions: dict[int, int] = {}
        self.generation = self.refused = 0
        self.bugs: list[BaseException] = []
        storing = Storing(self)
        cluster.members.append(self)
        self.worker = Worker(self, self, storing, accept, self.said.append, self.bugs.append)  # type: ignore[arg-type]

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self.died.is_set()

    def survives(self) -> bool:
        """One step more; whether the process lives on."""
        self.lives -= 1
        if self.lives < 0:
            self.died.set()
        return not self.dead

    async def living(self, work: Coroutine[None, None, bool]) -> bool:
        """What comes of the work; False when the process ends before the work does."""
        task = asyncio.ensure_future(work)
        death = asyncio.ensure_future(self.died.wait())
        await asyncio.wait((task, death), return_when=asyncio.FIRST_COMPLETED)
        death.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        try:
            return task.result()
        except (Killed, asyncio.CancelledError):
            return False

    def step(self) -> None:
        """One step more; what would come after it never happens if the process dies of it."""
        if not self.survives():
            raise Killed

    # -- the group --

    async def commit(self, offsets: dict[int, int]) -> bool:
        """Only members of the present generation commit."""
        self.step()
        if self.generation != self.cluster.generation:
            self.refused += 1
            return False
        self.cluster.committed.update(offsets)
        self.step()
        return True

    async def seek(self, partition: int, offset: int) -> None:
        """The next message is that one."""
        self.step()
        self.positions[partition] = offset

    # -- Kafka --

    def starts(self, partitions: Iterable[int]) -> dict[int, Start]:
        """Where the partitions begin and end."""
        cluster = self.cluster
        return {one: Start(cluster.committed.get(one), cluster.low.get(one, 0), len(cluster.log.get(one, ()))) for one in partitions}

    def read_states(self, partitions: Iterable[int]) -> dict[int, list[SavedHost]]:
        """The states that cover most."""
        found: dict[int, dict[bytes, SavedHost]] = {number: {} for number in partitions}
        for number, state in self.cluster.states:
            known = found.get(number, {}).get(state.key)
            if number in found and (known is None or known.covers <= state.covers):
                found[number][state.key] = state
        return {number: list(states.values()) for number, states in found.items()}

    async def write_states(self, states: list[tuple[int, SavedHost]]) -> None:
        """One by one, so that some may be written and others not."""
        for one in states:
            self.step()
            self.cluster.states.append(one)
        self.step()

    async def write_dead(self, partition: int, message: Message, reason: str) -> None:
        """Keep a dead letter."""
        self.step()
        self.cluster.dead.append((partition, message.offset, reason))
        self.step()

    # -- what drives it --

    def assign(self, partitions: set[int]) -> None:
        """As the group's leader would."""
        self.generation = self.cluster.generation
        self.positions = {number: self.cluster.committed.get(number, self.cluster.low.get(number, 0)) for number in partitions}
        self.worker.assigned(partitions, self.generation)

    async def deliver(self) -> bool:
        """The next message of some partition; whether there was one."""
        behind = [number for number, at in self.positions.items() if at < len(self.cluster.log.get(number, ()))]
        if not behind or self.dead:
            return False
        number = self.rng.choice(behind)
        at = self.positions[number]
        if self.rng.random() < 0.02 and at + 1 < len(self.cluster.log[number]):
            at += 1  # a client that skips a message
        elif at and self.rng.random() < 0.02:
            at -= 1  # or gives one again
        self.positions[number] = at + 1
        await self.worker.handle(number, self.generation, self.cluster.log[number][at])
        return True

    async def turn(self, messages: int) -> bool:
        """Some messages, then perhaps a saving; whether there was anything to do."""
        return await self.living(self._turn(messages))

    async def _turn(self, messages: int) -> bool:
        busy = False
        for _ in range(messages):
            busy = await self.deliver() or busy
            await others()
        if self.rng.random() < 0.5:
            with contextlib.suppress(Abandoned):  # it was expelled, and learns of it so
                await self.worker.save()
        return busy

    async def leave(self) -> bool:
        """Be told that the partitions go to others."""
        return await self.living(self._leave())

    async def _leave(self) -> bool:
        await self.worker.revoked(5.0)
        return True
