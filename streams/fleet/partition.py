"""One partition of the log in a worker's hands: the joins of its hosts, and up to which offset all of it is safe.

Pure: no clock, no I/O. An offset may be committed when nothing below it is needed again: each message's rows are stored, what could
not be read is among the dead letters, and the states that are saved cover it. So whoever goes on from the committed offset with the
saved states, skipping what a state covers already, gives the same rows as one that never stopped.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from schemas import topics
from schemas.batch import Batch, decode_batch
from schemas.errors import DecodeError
from schemas.identity import NIL
from schemas.rows import Row
from streams.fleet.claims import Claimant, Claims, dump_claims, load_claims, sender_of
from streams.hosts import REPORT_NS, host_row
from streams.join import apply, claimed
from streams.memory import MemoryEdge

NOBODY = b""
"""No host's key: under it is kept how far a partition was read in which no host's messages are, so that no state is missed there."""


class Message(NamedTuple):
    """One message of the log: the batch of a host.

    offset   its place in the partition
    key      text of the host_id
    value    the encoded batch
    headers  what the producer said beside it
    time_ns  wall clock of the broker when it arrived, 0 if not known
    """

    offset: int
    key: bytes
    value: bytes
    headers: dict[str, bytes]
    time_ns: int = 0


class SavedHost(NamedTuple):
    """A host's state (streams.fleet.claims) as it is kept: it covers the messages of this host below ``covers``."""

    key: bytes
    covers: int
    state: bytes


class Taken(NamedTuple):
    """What came of a message.

    rows      to be stored, then ``stored(offset)`` must be called, also when there are none
    reason    why it is a dead letter, to be kept as such before ``stored(offset)``; empty if it is none
    repeated  a saved state covers it already: nothing is to be done
    refused   it is a dead letter for who sent it, not for what it is
    batch     what was joined
    """

    rows: list[Row]
    reason: str = ""
    repeated: bool = False
    refused: bool = False
    batch: Batch | None = None


@dataclass(slots=True)
class _Host:
    """One host_id: its joins, the offset that these cover, and the first message that the saved state does not cover."""

    claims: Claims
    covers: int = 0
    unsaved: int | None = None


def accept(message: Message) -> str:
    """The reason not to take a message: it is of a version that is not known here. Empty to take it."""
    version = message.headers.get(topics.VERSION, topics.MESSAGE_VERSION)
    return (
        "" if version == topics.MESSAGE_VERSION else f"message of version {version[:16]!r}, this program reads {topics.MESSAGE_VERSION!r}"
    )


@dataclass(slots=True)
class Partition:
    """See the module.

    refuse  says why a message is not taken, as when its signature is wrong; empty to take it
    memory  is asked of hosts that nothing is known of; None for none
    """

    number: int
    refuse: Callable[[Message], str] = accept
    memory: MemoryEdge | None = None
    hosts: dict[bytes, _Host] = field(default_factory=dict)
    next_offset: int | None = None
    _unstored: dict[int, None] = field(default_factory=dict)
    _saving: dict[bytes, int] = field(default_factory=dict)

    def restore(self, saved: list[SavedHost]) -> list[tuple[bytes, str]]:
        """Take up states that were saved; gives keys and reasons of those that cannot be read, whose hosts begin anew."""
        bad = []
        for host in saved:
            if host.key == NOBODY:
                continue
            try:
                self.hosts[host.key] = _Host(load_claims(host.state), host.covers)
            except DecodeError as broken:
                bad.append((host.key, broken.problem))
        return bad

    def take(self, message: Message) -> Taken:
        """Join a message, the next one of the partition. Raises Unavailable when the memory cannot be asked: take it again then.
        Any other exception is a bug here, and the states are void then."""
        offset = message.offset
        self.next_offset = offset + 1
        host = self.hosts.get(message.key)
        if host is not None and offset < host.covers:
            return Taken([], repeated=True)
        self._unstored[offset] = None
        reason = self.refuse(message)
        if reason:
            return Taken([], reason, refused=True)
        try:
            batch = decode_batch(message.value)
        except DecodeError as broken:
            return Taken([], broken.problem)
        if str(batch.host_id).encode() != message.key:
            return Taken([], f"the batch is of host {batch.host_id}, the message's key is another's")
        if host is None:
            host = self.hosts[message.key] = _Host(self._claims(batch.host_id))
        rows = self._join(host.claims, message, batch)
        if rows is None:
            return Taken([], f"it may be a repeat or another machine's: {len(host.claims.claimants)} machines have this host_id")
        host.covers = offset + 1
        if host.unsaved is None:
            host.unsaved = offset
        return Taken(rows, batch=batch)

    def _claims(self, host_id: UUID) -> Claims:
        """The machines of a host_id that nothing is known of here, as far as the store remembers them."""
        known = self.memory.machines(host_id) if self.memory is not None else []
        return Claims([Claimant(one.host_id, one.machine) for one in known])

    def _join(self, claims: Claims, message: Message, batch: Batch) -> list[Row] | None:
        """The rows that follow from the batch of one of the machines; None if it cannot be told of which."""
        known = len(claims.claimants)
        claimant = claims.claimant(sender_of(message.headers), topics.print_of(message.value), batch)
        if claimant is None:
            return None
        if self.memory is not None and claimant.state.host_id == NIL:
            claimant.state = self.memory.recall(claimant.host_id, batch) or claimant.state
        rows = apply(claimant.state, batch._replace(host_id=claimant.host_id))
        machines = len(claims.claimants)
        if known and machines > known:
            rows += claimed(claims.claimants[0].state, claimant.state, batch)
        if message.time_ns and (not claimant.told_ns or message.time_ns >= claimant.told_ns + REPORT_NS):
            claimant.told_ns = message.time_ns
            rows.append(host_row(claimant.state, batch, message.time_ns, claimant.machine, machines))
        return rows

    def stored(self, offset: int) -> None:
        """The message's rows are stored, or it is among the dead letters."""
        self._unstored.pop(offset, None)

    @property
    def all_stored(self) -> bool:
        """Whether nothing that was given out is still to be stored."""
        return not self._unstored

    def stored_below(self, offset: int) -> bool:
        """Whether nothing of the messages below the offset is still to be stored."""
        return all(unstored >= offset for unstored in self._unstored)

    def unsaved(self) -> list[bytes]:
        """Keys of the hosts whose states have changed since they were saved."""
        return [key for key, host in self.hosts.items() if host.unsaved is not None]

    def begin_saving(self, key: bytes) -> SavedHost:
        """The host's state as it is now. It may be kept only when all rows that were given out until now are stored."""
        host = self.hosts[key]
        if host.unsaved is not None:
            self._saving.setdefault(key, host.unsaved)
            host.unsaved = None
        return SavedHost(key, host.covers, dump_claims(host.claims))

    def saved(self, key: bytes) -> None:
        """The state that was begun to be saved is kept for good."""
        self._saving.pop(key, None)

    def not_saved(self, key: bytes) -> None:
        """It could not be kept; it is to be saved again."""
        first = self._saving.pop(key, None)
        host = self.hosts[key]
        if first is not None:
            host.unsaved = first if host.unsaved is None else min(first, host.unsaved)

    def committable(self) -> int | None:
        """The offset from which whoever comes next may go on, None if no message was seen."""
        if self.next_offset is None:
            return None
        unsaved = (host.unsaved for host in self.hosts.values() if host.unsaved is not None)
        return min((self.next_offset, *self._unstored, *self._saving.values(), *unsaved))
