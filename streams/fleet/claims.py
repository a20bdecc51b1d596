"""Who speaks for a host: each machine that sends batches under one host_id has a join of its own, so their chains never mix.

A host_id is made once per installation. An image that is cloned after that gives it to two machines, and so does a virtual machine's
snapshot that is resumed twice, with boot, processes, ring and producer. Three facts tell them apart, none of which a clock touches:

* the machine's fingerprint (schemas.topics.MACHINE);
* within one run of the producer, messages are numbered and each names the one before it, so two copies of a producer contradict
  each other with their first messages;
* a run that was followed by another one of the same machine does not come back with anything new.

Where the log is read from its begin again, or was copied and appended to itself, old messages come back. They are known by their
numbers and prints, or bring nothing that was not read. What may be such a repeat or a copy's message is not taken, and is told.

The machine that was there first keeps the host_id; each other one gets a host_id of its own that follows from what it sends.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

from schemas import topics
from schemas.batch import Batch
from schemas.errors import DecodeError
from schemas.identity import NIL, Name
from streams.join import HostState, dump, load

CLAIMANTS_MAX = 8
"""Machines under one host_id that are kept apart; messages of more are not taken."""
PRINTS_NEAR, PRINTS_STEP, PRINTS_MAX = 256, 64, 512
"""The prints of a run's last messages that are remembered, to tell a repeat from a contradiction: all of the near ones, before them of
one in so many, and how many in all."""
FORMER_MAX = 8
_SIZE = struct.Struct("<I")


class Sender(NamedTuple):
    """What a message says of who sent it, by its headers; ``number`` is 0 where it says nothing."""

    machine: bytes
    session: bytes
    number: int
    before: int


def sender_of(headers: Mapping[str, bytes]) -> Sender:
    """Who sent the message with these headers."""
    number, before = topics.read_sequence(headers.get(topics.SEQUENCE, b""))
    return Sender(headers.get(topics.MACHINE, b"")[:64], headers.get(topics.SESSION, b"")[:64], number, before)


@dataclass(slots=True)
class Claimant:
    """One machine of a host_id.

    host_id   what its rows bear
    machine   its fingerprint
    session   its producer's latest run
    number    of that run's latest message
    prints    number → print of that run's messages, newest last
    former    runs before, each with the number of its latest message, newest last
    told_ns   when it was reported last
    state     its join
    """

    host_id: UUID = NIL
    machine: bytes = b""
    session: bytes = b""
    number: int = 0
    prints: dict[int, int] = field(default_factory=dict)
    former: dict[bytes, int] = field(default_factory=dict)
    told_ns: int = 0
    state: HostState = field(default_factory=HostState)

    def heard(self, sender: Sender, mark: int) -> None:
        """A message of it came that is newer than all before."""
        self.machine = self.machine or sender.machine
        if sender.session != self.session:
            if self.session:
                self.former[self.session] = self.number
                self.former = dict([*self.former.items()][-FORMER_MAX:])
            self.session = sender.session
            self.prints.clear()
        self.number = sender.number
        if sender.number:
            self.prints[sender.number] = mark
            gone = sender.number - PRINTS_NEAR
            if gone % PRINTS_STEP:
                self.prints.pop(gone, None)
            while len(self.prints) > PRINTS_MAX:
                del self.prints[next(iter(self.prints))]

    @property
    def newest_print(self) -> int | None:
        """Print of its latest message."""
        return self.prints.get(self.number)

    def has_read(self, batch: Batch) -> bool:
        """Whether its join has all that is in the batch: the same boot, and no further in it."""
        state = self.state
        if batch.boot_id != state.boot_id:
            return False
        return batch.ring_id < state.ring_id or (batch.ring_id == state.ring_id and batch.end <= state.position)

    def goes_on_with(self, batch: Batch) -> bool:
        """Whether the batch begins where its join ends."""
        state = self.state
        return (batch.boot_id, batch.ring_id, batch.start) == (state.boot_id, state.ring_id, state.position)


@dataclass(slots=True)
class Claims:
    """The machines of one host_id, the one that came first before the others."""

    claimants: list[Claimant] = field(default_factory=list)

    def claimant(self, sender: Sender, mark: int, batch: Batch) -> Claimant | None:
        """Whose message it is, one that was not there before included; None when it cannot be told."""
        if not self.claimants:
            self.claimants.append(Claimant(batch.host_id, sender.machine))
        # A fingerprint that is not there contradicts none.
        alike = [one for one in self.claimants if one.machine == sender.machine or not (one.machine and sender.machine)]
        running = [one for one in alike if one.session == sender.session]
        if running and not sender.number:
            return running[0]
        if running:
            return self._within_run(running, sender, mark, batch)
        if former := [one for one in alike if sender.session in one.former]:
            # Brokers may have kept its last messages back until the next run's; they bring nothing new then.
            if former[0].has_read(batch):
                return former[0]
            return None if 0 < sender.number <= former[0].former[sender.session] else self._another(sender, mark, batch)
        return self._next_run(alike, sender, mark, batch)

    def _next_run(self, alike: list[Claimant], sender: Sender, mark: int, batch: Batch) -> Claimant | None:
        """Of a run that is not known: a machine that was there begins it, or another machine, or it is so old that it is forgotten."""
        found = alike if len(alike) == 1 else [one for one in alike if one.goes_on_with(batch)]
        if not found:
            return self._another(sender, mark, batch)
        if batch.boot_id in found[0].state.past_boots:
            return None  # no run begins in a boot that is over
        if not found[0].has_read(batch):
            found[0].heard(sender, mark)
        return found[0]

    def _within_run(self, running: list[Claimant], sender: Sender, mark: int, batch: Batch) -> Claimant | None:
        """Of those that are in this run: more than one if its producer was copied while it ran."""
        for one in running:
            if one.prints.get(sender.number) == mark:
                return one  # it came before
        ahead = [one for one in running if sender.number > one.number]
        follows = [one for one in ahead if one.newest_print == sender.before]
        if not follows and len(running) > 1:
            follows = [one for one in ahead if one.goes_on_with(batch)]
        if not follows and len(running) == 1:
            follows = ahead  # what came between was lost; the join tells what of it
        if follows:
            follows[0].heard(sender, mark)
            return follows[0]
        if all(sender.number in one.prints for one in running):
            return self._another(sender, mark, batch)
        # It may be a repeat of what is not remembered, or a copy's.
        return None

    def _another(self, sender: Sender, mark: int, batch: Batch) -> Claimant | None:
        if len(self.claimants) >= CLAIMANTS_MAX:
            return None
        name = b"tasktrail claimant\0" + batch.host_id.bytes + sender.machine
        if not sender.machine or any(one.machine == sender.machine for one in self.claimants):
            name += b"\0" + sender.session + mark.to_bytes(4, "little")
        made = Claimant(Name(hashlib.sha256(name).digest()), sender.machine)
        made.heard(sender, mark)
        self.claimants.append(made)
        return made


def dump_claims(claims: Claims) -> bytes:
    """As bytes: the length of a line of JSON that says who they are, the line, and of each the state after its length."""
    told = [
        {
            "host_id": one.host_id.hex, "machine": one.machine.hex(), "session": one.session.hex(), "number": one.number,
            "prints": list(one.prints.items()), "former": [session.hex() for session in one.former], "told_ns": one.told_ns,
            "ends": list(one.former.values()),
        }
        for one in claims.claimants
    ]  # fmt: skip
    parts = [json.dumps(told, separators=(",", ":")).encode(), *(dump(one.state) for one in claims.claimants)]
    return b"".join(_SIZE.pack(len(part)) + part for part in parts)


def load_claims(data: bytes) -> Claims:
    """What was dumped. Raises DecodeError for anything else."""
    line, *states = _parts(data)
    try:
        told: list[dict[str, Any]] = json.loads(line)
        if not 0 < len(told) == len(states) <= CLAIMANTS_MAX:
            raise ValueError(f"{len(told)} machines and {len(states)} states")
        return Claims([_claimant(one, load(state)) for one, state in zip(told, states, strict=True)])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as broken:
        raise DecodeError(f"saved state cannot be read ({type(broken).__name__}: {broken})") from broken


def _parts(data: bytes) -> list[bytes]:
    parts, at = [], 0
    while at < len(data):
        if at + _SIZE.size > len(data):
            raise DecodeError("saved state ends within a length")
        (size,) = _SIZE.unpack_from(data, at)
        at += _SIZE.size
        if at + size > len(data):
            raise DecodeError(f"saved state has {len(data) - at} bytes where {size} should be")
        parts.append(data[at : at + size])
        at += size
    return parts or [b""]


def _claimant(told: dict[str, Any], state: HostState) -> Claimant:
    prints = {int(number): int(mark) for number, mark in told["prints"]}
    if len(prints) > PRINTS_MAX or any(after <= before for before, after in pairwise(prints)):
        raise ValueError("numbers of messages out of order")
    former = [bytes.fromhex(session) for session in told["former"]]
    ends = [int(number) for number in told.get("ends", [0] * len(former))]  # states from before do not have it
    return Claimant(
        UUID(told["host_id"]), bytes.fromhex(told["machine"]), bytes.fromhex(told["session"]), int(told["number"]), prints,
        dict([*zip(former, ends, strict=True)][-FORMER_MAX:]), int(told["told_ns"]), state,
    )  # fmt: skip
