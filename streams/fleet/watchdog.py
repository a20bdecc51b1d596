"""Whether a worker still gets on: messages wait, nothing stands in the way, and yet none is taken.

A consumer can stop fetching for good after a change of membership. Whoever notices leaves, and the next start goes on.
"""

from dataclasses import dataclass

STUCK_S = 20.0
"""For so long may nothing be taken though messages wait."""


@dataclass(slots=True)
class Watchdog:
    """Looked at now and then. ``stuck_s`` is how long is too long."""

    stuck_s: float = STUCK_S
    _progress: int = -1
    _since_s: float = 0.0

    def stuck(self, now_s: float, progress: int, waiting: int, excused: bool) -> bool:
        """Whether it is time to leave.

        now_s     a clock that never goes back
        progress  a number that grows with each message that is taken
        waiting   messages in our partitions that were not taken
        excused   something known holds us: the store is away, states are being read, the brokers do not answer
        """
        if progress != self._progress or not waiting or excused:
            self._progress, self._since_s = progress, now_s
        return now_s - self._since_s > self.stuck_s
