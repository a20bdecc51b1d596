"""Hosts that are not there: each ships the bundled recording as its own, with a name, a host_id and a boot_id of its own.

    python -m deploy.local.hosts 127.0.0.1:9092 web-21 web-22 web-23

A host boots, does in two minutes what the recorded one did in two minutes, is idle for a while, and boots again; no two at the same
time. Its clock is right: the wall clock in the recording is moved to now. What is shipped is what a real host ships, batch by batch;
there is no spool, so a host whose batches do not arrive boots again.
"""

import hashlib
import heapq
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple
from uuid import UUID, uuid4, uuid5

from broker.cluster import cluster
from broker.connection import Sender
from broker.edges import SenderEdge
from queries.recordings import batches
from schemas import events, topics
from schemas.batch import Batch, BatchKind, encode_batch, frames
from schemas.errors import TasktrailError
from tasktrail.demo import RECORDING, open_recording

FAMILY = UUID("5f6e1f04-7c3a-4d55-9c7e-0d3f4a1b2c90")
"""Names of hosts become host_ids in it: a host is the same one after the fleet was stopped and started."""
IDLE_S = 60.0
APART_S = 3.0
"""A host begins, and idles, this much later than the one before it."""
TICK_S = 5.0
"""An idle host says this often that nothing happened, as the clock marks of a real one do."""
RETRY_S = 1.0
LOOK_S = 0.2
_SECOND_NS = 1_000_000_000
_MARK_AT = events.HEAD.size
"""Where a mark says which one it is."""
_REALTIME_AT = events.HEAD.size + 16
"""Where in a clock mark the wall clock stands: the second of its values, of 8 bytes each, which begin 8 bytes after that."""


class Identity(NamedTuple):
    """Who a batch is said to come from."""

    host_id: UUID
    boot_id: UUID
    hostname: bytes


def moved(body: bytes, shift_ns: int) -> bytes:
    """The body with the wall clock in its clock marks moved."""
    changed = bytearray(body)
    for at, _ in frames(body):
        if body[at] == events.Kind.MARK and body[at + _MARK_AT] == events.Mark.CLOCK:
            place = at + _REALTIME_AT
            realtime_ns = int.from_bytes(body[place : place + 8], "little")
            changed[place : place + 8] = (realtime_ns + shift_ns).to_bytes(8, "little")
    return bytes(changed)


def boot(recording: Sequence[Batch], who: Identity, realtime_ns: int, idle_s: float) -> Iterator[tuple[int, Batch]]:
    """One boot of a host: nanoseconds after its begin, and the batch that is shipped then.

    The recording's first batch counts as made at ``realtime_ns``. After its last one the host is idle.
    """
    first, last = recording[0], recording[-1]
    shift_ns = realtime_ns - first.realtime_ns
    last = last._replace(kind=BatchKind.EVENTS, start=last.end, body=b"", drained=True)
    steps = [int(number * TICK_S * _SECOND_NS) for number in range(1, int(idle_s / TICK_S) + 1)]
    idle = (last._replace(boottime_ns=last.boottime_ns + step, realtime_ns=last.realtime_ns + step) for step in steps)
    for batch in (*recording, *idle):
        body = moved(batch.body, shift_ns) if batch.kind == BatchKind.EVENTS else batch.body
        named = batch._replace(host_id=who.host_id, boot_id=who.boot_id, hostname=who.hostname)
        yield batch.boottime_ns - first.boottime_ns, named._replace(realtime_ns=batch.realtime_ns + shift_ns, body=body)


@dataclass(eq=False)
class Host:
    """A host, and what it ships next.

    number  its place among the hosts
    failed  a batch did not arrive: it boots again
    """

    name: str
    number: int
    recording: Sequence[Batch]
    failed: bool = False
    _headers: dict[str, bytes] = field(default_factory=dict)
    _coming: Iterator[tuple[int, Batch]] = field(default_factory=lambda: iter(()))
    _next: Batch | None = None
    _begun: float = 0.0

    def due(self, now: float) -> float:
        """When it ships next, on the monotonic clock; boots if there is nothing left to ship."""
        step = None if self.failed else next(self._coming, None)
        if step is None:
            self.failed = False
            self._begun = now
            machine = hashlib.sha256(self.name.encode()).digest()[:8]
            self._headers = {topics.VERSION: topics.MESSAGE_VERSION, topics.SESSION: os.urandom(8), topics.MACHINE: machine}
            who = Identity(uuid5(FAMILY, self.name), uuid4(), self.name.encode())
            self._coming = boot(self.recording, who, time.time_ns(), IDLE_S + self.number * APART_S)
            step = next(self._coming)
        after_ns, self._next = step
        return self._begun + after_ns / _SECOND_NS

    def ship(self, sender: SenderEdge) -> bool:
        """Send the batch that is due; False if it found no room and is to be tried again."""
        assert self._next is not None

        def told(error: TasktrailError | None) -> None:
            self.failed = self.failed or error is not None

        key = str(self._next.host_id).encode()
        return sender.send(topics.EVENTS, key, encode_batch(self._next), self._headers, on_done=told)


def play(hosts: Sequence[Host], sender: SenderEdge, stopping: Sequence[object]) -> None:
    """Let them live until ``stopping`` holds something."""
    now = time.monotonic()
    waiting = [(now + host.number * APART_S, host.number) for host in hosts]
    heapq.heapify(waiting)
    while not stopping:
        sender.poll(0)
        now = time.monotonic()
        if waiting[0][0] > now:
            select.select([], [], [], min(LOOK_S, waiting[0][0] - now))
            continue
        host = hosts[heapq.heappop(waiting)[1]]
        shipped = host._next is None or host.failed or host.ship(sender)
        heapq.heappush(waiting, (host.due(now) if shipped else now + RETRY_S, host.number))


def main() -> None:
    """Play the hosts that are named until SIGTERM or SIGINT."""
    stopping: list[object] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    with open_recording() as file:
        recording = list(batches(file, RECORDING))
    hosts = [Host(name, number, recording) for number, name in enumerate(sys.argv[2:])]
    sender = Sender(cluster(sys.argv[1]))
    print(f"{len(hosts)} hosts ship to {sys.argv[1]}", flush=True)
    play(hosts, sender, stopping)
    sender.close()


if __name__ == "__main__":
    main()
