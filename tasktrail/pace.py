"""When ``tasktrail run`` takes what lies in the ring: within half a second while little happens; in a storm seldom and much at once, for
many small inserts cost the host more than few large ones, and what joining and storing takes is then taken from the storm."""

STEP_S = 0.4
"""Longest time that a record waits in the ring while all is calm; a row can be asked for within a second."""
REST = 4
"""After a step that took long, so many times its length is waited instead, up to REST_MAX_S."""
REST_MAX_S = 1.0
STORM_BYTES_S = 256 * 1024
"""The ring filling this fast is a storm: some 400 processes a second."""
STORM_S = 5.0
"""Longest time that a record waits in a storm. When it is over, what waits is taken at the next look."""
FULL_ENOUGH = 0.375
"""A ring filled so far is emptied at once: from a half on the kernel sends no more renames and shortens arguments."""


class Pace:
    """Says at each look whether to step. Times are seconds of a monotonic clock, positions those of the ring."""

    def __init__(self, ring_bytes: int) -> None:
        self._enough_bytes = ring_bytes * FULL_ENOUGH
        self._looked_at = self._rested_at = self._waited_at = 0.0
        self._seen = 0

    def due(self, now: float, producer: int, consumer: int) -> bool:
        """Whether to step. Ask at every look: how fast the ring fills is told by the look before."""
        storm = producer - self._seen >= STORM_BYTES_S * (now - self._looked_at)
        self._looked_at, self._seen = now, producer
        return producer - consumer >= self._enough_bytes or now >= self._waited_at or (now >= self._rested_at and not storm)

    def stepped(self, now: float, took_s: float, drained: bool) -> None:
        """A step has ended; where it left something in the ring, the next one need not wait for more."""
        self._rested_at = now + max(STEP_S - took_s, min(REST_MAX_S, REST * took_s)) * drained
        self._waited_at = now + STORM_S
