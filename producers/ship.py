"""One host, from the kernel's ring to the log of the fleet: batches in the ring's order, each delivered or kept before the ring lets go.

While the brokers answer, a batch goes straight from the ring into the sender, and the ring is released up to it when it has arrived.
While they do not, the ring holds on; when it has held for long, or is a quarter full, what it holds goes into the spool, and what
comes later goes behind that. On their return the spool is sent from its begin. A host's batches are never out of order, since a join
takes what comes too late for a repeat. What was on its way when this process was killed is sent again, and changes nothing.

What a full spool throws away is told by an empty batch that stands where it was: from the hole before it the join makes a loss with
its interval (LossCause.LOG_HOLE), though nothing of that ring or boot may follow. No line here waits for the brokers.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from broker.edges import SenderEdge
from producers.edges import ReadEdge
from producers.spool import Spool
from schemas import topics
from schemas.batch import HEADER, Batch, BatchKind, decode_batch, encode_batch, split_snapshot
from schemas.errors import DecodeError, TasktrailError
from schemas.limits import BATCH_BYTES_MAX
from schemas.signing import signature

SPOOL_AFTER_S = 5.0
"""What the ring has held for this long goes into the spool: a ring does not outlive a boot."""
SPOOL_FILL = 4
"""A ring of which this part is full goes into the spool."""
SILENT_S = 10.0
"""When nothing has arrived for this long though something is on its way, the brokers count as silent."""
RETRY_S = (0.5, 10.0)
"""Shortest and longest pause after a failure."""
TOPIC_ANSWER_S = 0.5
"""How long the first question, whether the topic is there, may hold everything up."""


@dataclass(frozen=True, slots=True)
class Here:
    """Who ships.

    now        (boottime_ns, realtime_ns) read together
    monotonic  seconds, for pauses
    headers    what is said beside each message
    key        what messages are signed with, empty for not at all
    """

    host_id: UUID
    boot_id: UUID
    hostname: bytes
    now: Callable[[], tuple[int, int]]
    monotonic: Callable[[], float]
    headers: Mapping[str, bytes]
    key: bytes = b""


@dataclass(slots=True)
class Counts:
    """What was done since the start: messages and bytes that arrived, records put into the spool, times that all on its way was sent
    again after a failure."""

    delivered: int = 0
    delivered_bytes: int = 0
    spooled: int = 0
    resent: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """A message on its way, and what may be let go when it and all before it have arrived.

    number    its record in the spool
    batch     of a stretch that the ring still holds: the batch without its body
    part      of a snapshot that is not in the spool: the encoded message
    snapshot  id of the snapshot whose last part it is
    """

    size: int
    number: int | None = None
    batch: Batch | None = None
    part: bytes = b""
    snapshot: int = 0
    done: bool = False


def key_of(payload: bytes) -> bytes:
    """The message's key: text of the host_id in the batch's header."""
    return str(UUID(bytes=HEADER.unpack_from(payload)[6])).encode()


@dataclass(slots=True)
class Shipper:
    """See the module. ``step`` is the whole of it; ``stop`` is the last one.

    sender  makes a sender, again when one has broken
    lost    counts of the recorder, for the batches' headers: records lost, programs skipped
    trouble what stands in the way now, empty if nothing does
    """

    recorder: ReadEdge
    sender: Callable[[], SenderEdge]
    spool: Spool
    here: Here
    lost: tuple[int, int] = (0, 0)
    counts: Counts = field(default_factory=Counts)
    trouble: str = ""
    caught_up_at: float = field(init=False)
    _sender: SenderEdge = field(init=False)
    _flights: deque[_Flight] = field(default_factory=deque)
    _parts: deque[tuple[bytes, int]] = field(default_factory=deque)
    _snapshots_taken: int = 0
    _taken: int = field(init=False)
    _topic_found: bool = False
    _failure: TasktrailError | None = None
    _pause_s: float = 0.0
    _paused_until: float = 0.0
    _held_since: float = field(init=False)
    _delivered_at: float = field(init=False)
    _tick: bool = False
    _number: int = 0
    _print: int = 0

    def __post_init__(self) -> None:
        self._sender = self.sender()
        self._taken = self.recorder.ring.consumer()
        self._held_since = self._delivered_at = self.caught_up_at = self.here.monotonic()

    # -- one turn --

    def step(self) -> None:
        """Hear what has arrived, send what is kept, take what is new. Raises OSError when the spool finds no room: the ring holds on."""
        self.listen()
        now = self.here.monotonic()
        if now >= self._paused_until and self._topic_is_there(now) and self._send_spooled() and self._send_parts():
            self._take()
        if self._must_spool(now):
            self._spool_ring()

    def listen(self) -> None:
        """Hear what has arrived or failed. To be called often: it is cheap."""
        self._sender.poll(0)
        self._settle()
        if self._failure is not None or self._sender.broken:
            self._start_over()
        ring, now = self.recorder.ring, self.here.monotonic()
        if not self._flights and not self.trouble and self.spool.peek() is None:
            self.caught_up_at = now
        if ring.consumer() == ring.producer():
            self._held_since = now

    def _settle(self) -> None:
        """Let go of what has arrived without anything before it missing."""
        flights = self._flights
        while flights and flights[0].done:
            flight = flights.popleft()
            self.counts.delivered += 1
            self._delivered_at = self.here.monotonic()
            self.counts.delivered_bytes += flight.size
            self._pause_s, self.trouble = 0.0, ""
            if flight.number is not None:
                self.spool.delivered(flight.number)
            elif flight.batch is not None and flight.batch.end > self.recorder.ring.consumer():
                self.recorder.ring.release(flight.batch.end)
                self._held_since = self.here.monotonic()
            if flight.snapshot:
                self.recorder.discard_snapshots(flight.snapshot)

    def _start_over(self) -> None:
        """A message failed: what came behind it may not arrive before it, so all on its way is given up and sent again, after a pause."""
        self._sender.purge()
        self._settle()
        self.trouble = str(self._failure or self._sender.broken)
        if self._sender.broken:
            self._sender.close()
            self._sender = self.sender()
        self.counts.resent += 1
        self._failure = None
        self._flights.clear()
        self._parts.clear()
        self._snapshots_taken = 0
        self._taken = self.recorder.ring.consumer()
        self.spool.rewind()
        self._pause(self.here.monotonic())

    def _pause(self, now: float) -> None:
        self._pause_s = min(RETRY_S[1], max(RETRY_S[0], 2 * self._pause_s))
        self._paused_until = now + self._pause_s

    def _topic_is_there(self, now: float) -> bool:
        """Asked once: a broker may make a topic that somebody sends to, with settings of its own."""
        if not self._topic_found:
            try:
                self._sender.partitions(topics.EVENTS, TOPIC_ANSWER_S)
                self._topic_found, self.trouble = True, ""
            except TasktrailError as failure:
                self.trouble = str(failure)
                self._pause(now)
        return self._topic_found

    # -- sending --

    def _send(self, payload: bytes, flight: _Flight) -> bool:
        """Into the sender's queue; False when that is full."""

        def told(error: TasktrailError | None) -> None:
            if error is None:
                flight.done = True
            elif self._failure is None:
                self._failure = error

        try:
            if not self._sender.send(topics.EVENTS, key_of(payload), payload, self._headers(payload), on_done=told):
                return False
        except TasktrailError as failure:
            self._failure = failure
            return False
        self._flights.append(flight)
        self._number += 1
        self._print = topics.print_of(payload)
        return True

    def _headers(self, payload: bytes) -> dict[str, bytes]:
        """What stands beside the message that is sent next."""
        sequence = topics.sequence(self._number + 1, self._print)
        headers = {topics.VERSION: topics.MESSAGE_VERSION, topics.SEQUENCE: sequence, **self.here.headers}
        if self.here.key:
            headers[topics.SIGNATURE] = signature(self.here.key, key_of(payload), headers, payload)
        return headers

    def _send_spooled(self) -> bool:
        """Whether all that is in the spool is on its way."""
        while (record := self.spool.peek()) is not None:
            number, payload = record
            if not self._send(payload, _Flight(len(payload), number)):
                return False
            self.spool.advance()
        return True

    def _send_parts(self) -> bool:
        """Whether all parts of the snapshots that were taken up are on their way."""
        while self._parts:
            payload, snapshot_id = self._parts[0]
            if not self._send(payload, _Flight(len(payload), part=payload, snapshot=snapshot_id)):
                return False
            self._parts.popleft()
        return True

    def _take(self) -> None:
        """What is new in the ring goes into the sender, as far as that has room."""
        while True:
            batch = self._next_batch()
            if batch.start == batch.end and not self._tick:
                return
            self._take_up_snapshots(batch.end)
            if not self._send_parts():
                return
            payload = encode_batch(batch)
            if not self._send(payload, _Flight(len(payload), batch=batch._replace(body=b""))):
                return
            self._taken = batch.end
            # When no more comes, one empty batch says so: the join then need not wait for a later record to write rows that are due.
            self._tick = batch.end > batch.start
            if batch.drained:
                return

    def _next_batch(self) -> Batch:
        """The next stretch of the ring; empty if there is none."""
        boottime_ns, realtime_ns = self.here.now()
        ring, here = self.recorder.ring, self.here
        start, end, body = ring.stretch(BATCH_BYTES_MAX, self._taken)
        drained = end == ring.producer()
        identity = (here.host_id, here.boot_id, self.recorder.ring_id)
        return Batch(BatchKind.EVENTS, *identity, start, end, boottime_ns, realtime_ns, *self.lost, here.hostname, body, drained)

    def _take_up_snapshots(self, position: int) -> None:
        """Snapshots that began before ``position`` go before the stretch that ends there, which may hold their end marks. A snapshot's
        file is there before its mark is, so this is asked after the stretch was read. Later ones wait: a join keeps only a few."""
        for encoded in self.recorder.pending_snapshots(self._snapshots_taken):
            try:
                snapshot = decode_batch(encoded)
                parts = split_snapshot(snapshot, BATCH_BYTES_MAX)
            except DecodeError:
                continue  # its end mark finds nothing, and another snapshot follows anyway
            if snapshot.start > position:
                return
            self._snapshots_taken = snapshot.lost
            self._parts.extend((encode_batch(part), snapshot.lost if part is parts[-1] else 0) for part in parts)

    # -- keeping --

    def _must_spool(self, now: float) -> bool:
        """Whether the ring has held what it holds for too long, or holds too much."""
        ring = self.recorder.ring
        held = ring.producer() - ring.consumer()
        return bool(held) and (held * SPOOL_FILL >= ring.size_bytes or now - self._held_since > SPOOL_AFTER_S)

    def _spool_ring(self) -> None:
        """All that the ring holds goes into the spool, what is on its way already included, and the ring is released.

        Raises OSError when the disk does not take all of it; what it took counts.
        """
        kept: list[tuple[_Flight, int]] = []
        position, snapshot_id = self.recorder.ring.consumer(), 0
        try:
            for flight in self._flights:
                if flight.number is None and (flight.part or (flight.batch and flight.batch.end > flight.batch.start)):
                    kept.append((flight, self.spool.append(flight.part or self._again(flight.batch))))
                    self.spool.skip_to(kept[-1][1] + 1)
                    snapshot_id = max(snapshot_id, flight.snapshot)
                    position = max(position, flight.batch.end if flight.batch else 0)
            while (batch := self._next_batch()).end > batch.start:
                self._take_up_snapshots(batch.end)
                while self._parts:
                    self.spool.append(self._parts[0][0])
                    self.counts.spooled += 1
                    snapshot_id = max(snapshot_id, self._parts.popleft()[1])
                self.spool.append(encode_batch(batch))
                self.counts.spooled += 1
                self._taken = position = batch.end
        finally:
            self.spool.sync()
            for flight, number in kept:
                flight.number, flight.batch, flight.part, flight.snapshot = number, None, b"", 0
            self.counts.spooled += len(kept)
            self.recorder.ring.release(position)
            if snapshot_id:
                self.recorder.discard_snapshots(snapshot_id)
            self._held_since = self.here.monotonic()

    def _again(self, batch: Batch | None) -> bytes:
        """The message that was made of a stretch, which the ring still holds."""
        assert batch is not None
        start, end, body = self.recorder.ring.stretch(batch.end - batch.start, batch.start)
        assert (start, end) == (batch.start, batch.end)
        return encode_batch(batch._replace(body=body))

    def stop(self, flush_s: float) -> None:
        """Send what can be sent in that time; the rest goes into the spool, since the ring does not outlive a boot."""
        self.step()
        self._sender.flush(flush_s)
        self._settle()
        ring = self.recorder.ring
        if ring.consumer() < ring.producer():
            self._spool_ring()
        self.close()

    def close(self) -> None:
        """Let go of sender and spool."""
        self._sender.close()
        self.spool.close()

    @property
    def behind_s(self) -> float:
        """Seconds since all that was taken had arrived."""
        return self.here.monotonic() - self.caught_up_at

    @property
    def state(self) -> str:
        """What stands in the way of shipping: our own trouble, or what the sender says, or that nothing is heard from the brokers."""
        silent = self.spool.records > 0 and self.here.monotonic() - self._delivered_at > SILENT_S
        return self.trouble or self._sender.trouble or ("Kafka does not answer" if silent else "")
