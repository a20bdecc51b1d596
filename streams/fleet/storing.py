"""The thread that puts rows into the store, many messages' rows in one insert, so that no insert ever blocks the event loop."""

import threading
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from schemas.errors import TasktrailError, Unavailable
from schemas.rows import Row

ROWS_MAX = 10_000
"""Rows that are gathered for one insert; a message whose own rows are more goes alone."""
GATHER_S = 0.25
"""How long the first rows wait for others: the store likes few large inserts."""
RETRY_MAX_S = 5.0


class SinkEdge(Protocol):
    """What of streams.sinks.clickhouse.Sink is used here."""

    def write(self, rows: list[Row], token_base: str) -> None:
        """Store the rows; raises Unavailable when the store does not take them now, BadInput when it never will."""


class Portion(NamedTuple):
    """Rows of one message: where they come from, and what to call when they are stored (in this thread)."""

    partition: int
    offset: int
    rows: list[Row]
    done: Callable[[], None]


class Storing(threading.Thread):
    """Stores portions in their order, for ever trying again; the portions of partitions that were given up are let go.

    waiting      rows that are not stored yet
    stored       rows that are
    trouble      why the store does not take rows now, empty if it does
    """

    def __init__(self, sink: SinkEdge, topic: str, failed: Callable[[Exception], None]) -> None:
        """``topic`` names the rows' origin; ``failed`` is told, in this thread, what no retry can mend. The thread has ended then."""
        super().__init__(name="storing", daemon=True)
        self.waiting = self.stored = self.retries = 0
        self.trouble = ""
        self._sink = sink
        self._topic = topic
        self._failed = failed
        self._portions: deque[Portion] = deque()
        self._changed = threading.Condition()
        self._given_up: set[int] = set()
        self._stopping = False

    def put(self, portion: Portion) -> None:
        """Queue rows; those of one partition are stored in the order in which they were put."""
        with self._changed:
            self._given_up.discard(portion.partition)
            self._portions.append(portion)
            self.waiting += len(portion.rows)
            self._changed.notify()

    def give_up(self, partitions: set[int]) -> None:
        """Forget what waits for these partitions, and stop trying to store what is being tried of them."""
        with self._changed:
            self._given_up |= partitions
            kept = deque(portion for portion in self._portions if portion.partition not in partitions)
            self.waiting -= sum(len(portion.rows) for portion in self._portions) - sum(len(portion.rows) for portion in kept)
            self._portions = kept
            self._changed.notify()

    def stop(self) -> None:
        """End when the insert that is under way has ended; what waits is forgotten."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """The thread."""
        try:
            while portions := self._next():
                self._store(portions)
        except TasktrailError as failure:
            self._failed(failure)
        except Exception as bug:
            self._failed(bug)

    def _next(self) -> list[Portion]:
        """What goes into the next insert; empty when asked to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._portions or self._stopping)
            self._changed.wait_for(lambda: self._stopping or sum(len(one.rows) for one in self._portions) >= ROWS_MAX, GATHER_S)
            portions: list[Portion] = []
            rows = 0
            while self._portions and not self._stopping and (not portions or rows + len(self._portions[0].rows) <= ROWS_MAX):
                portions.append(self._portions.popleft())
                rows += len(portions[-1].rows)
            if portions or self._stopping:
                return portions
        return self._next()

    def _store(self, portions: list[Portion]) -> None:
        """Store them, trying again until it is done or they were given up."""
        pause_s = 0.1
        while portions:
            rows = [row for portion in portions for row in portion.rows]
            first, last = portions[0], portions[-1]
            try:
                self._sink.write(rows, f"{self._topic}/{first.partition}/{first.offset}-{last.partition}/{last.offset}")
            except Unavailable as failure:
                self.trouble = str(failure)
                self.retries += 1
                portions = self._still_wanted(portions, pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                continue
            self.trouble = ""
            self.stored += len(rows)
            with self._changed:
                self.waiting -= len(rows)
            for portion in portions:
                portion.done()
            return

    def _still_wanted(self, portions: list[Portion], pause_s: float) -> list[Portion]:
        """After a pause, or as soon as some of them were given up: those that are still to be stored."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or any(one.partition in self._given_up for one in portions), pause_s)
            kept = [] if self._stopping else [portion for portion in portions if portion.partition not in self._given_up]
            self.waiting -= sum(len(portion.rows) for portion in portions) - sum(len(portion.rows) for portion in kept)
        return kept
