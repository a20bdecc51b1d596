"""What of a recorder and its ring is used by those who read them (producers.recorder.Recorder and producers.ring.Ring have all of it)."""

from typing import Protocol

from schemas.events import Mark


class RingEdge(Protocol):
    """What of producers.ring.Ring is used to read it."""

    size_bytes: int

    def stretch(self, limit_bytes: int, start: int | None = None) -> tuple[int, int, bytes]:
        """Start, end and bytes of whole committed records from there, or the consumer's position, on."""

    def release(self, position: int) -> None:
        """Give the ring back up to that position."""

    def consumer(self) -> int:
        """The consumer's position."""

    def producer(self) -> int:
        """The producer's position."""


class ReadEdge(Protocol):
    """What of a recorder is used to read what it recorded."""

    ring_id: int

    @property
    def ring(self) -> RingEdge:
        """The mapped ring."""

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        """Encoded batches of this ring's snapshots that were not discarded and have a larger id than ``after``, oldest first."""

    def discard_snapshots(self, last_id: int) -> None:
        """Forget the snapshots up to that id."""


class KeptEdge(Protocol):
    """What of a recorder is used to look after it."""

    def mark(self, kind: Mark, *values: int) -> bool:
        """Put a mark into the ring; False if it has no room."""

    def clock(self) -> bool:
        """Put a clock mark with the counters into the ring."""

    def probe(self) -> bool:
        """Whether a rename of this process comes back as a record."""

    def exec_probe(self) -> bool:
        """Whether a fork, exec and exit come back as records."""

    def pin_again(self) -> list[str]:
        """Put back pins that somebody removed, and name them."""

    def refresh(self) -> bool:
        """Follow a loader that put newer programs in."""

    def snapshot(self) -> object:
        """Take a snapshot, keep it on disk until it is discarded, and mark it in the ring. Raises Unavailable when that is full."""


class RecorderEdge(ReadEdge, KeptEdge, Protocol):
    """What of a recorder is used by one who reads it and looks after it."""
