"""The loop of ``tasktrail produce``: when to ship, what to do when something is away, what to tell, and the numbers of all that.

Nobody wakes us per event: the ring is looked at ten times a second, and emptied four times a second or when it fills.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

from producers.keeper import Keeper
from producers.recorder import Counters, Recorder
from producers.ship import Shipper

if TYPE_CHECKING:
    from tasktrail.metrics import Number

LOOK_S = 0.1
BUSY_S = 0.01
"""Pause between looks while the spool is sent."""
STEP_S = 0.25
"""Longest time that a record waits in the ring while all is well."""
WATCH_S = 1.0
FULL_ENOUGH = 16
"""A ring this part full is emptied at once."""
RETRY_S = 1.0
FLUSH_S = 3.0
"""How long the last batches may take when this is asked to stop; the rest goes into the spool."""


class Shipping:
    """Runs until SIGTERM or SIGINT; every failure that may pass is told in one line and waited out.

    reload  loads the recorder again after its programs were detached, None if that is not wanted
    """

    def __init__(self, shipper: Shipper, recorder: Recorder, say: Callable[[str], None], reload: Callable[[], None] | None) -> None:
        self._shipper = shipper
        self._recorder = recorder
        self._keeper = Keeper(recorder, shipper.here.now)
        self._say = say
        self._reload = reload
        self._counters: Counters = recorder.counters()
        self._stopping = False
        self._trouble = self._disk_trouble = ""
        self._stepped_at = self._watched_at = self._retry_at = 0.0
        self._dropped = self._delivered = 0
        self._busy = False
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Ship until asked to stop; then send or keep what is left."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._waker)
        self._tell_damage()
        while not self._stopping:
            now = time.monotonic()
            if now >= self._watched_at + WATCH_S:
                self._watched_at = now
                self._watch()
            self._look(now)
            self._busy = self._backlog()
            select.select([self._wake], [], [], BUSY_S if self._busy else LOOK_S)
        self._last()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _backlog(self) -> bool:
        """Whether the spool is being sent, and its batches arrive."""
        delivered, self._delivered = self._delivered, self._shipper.counts.delivered
        return self._delivered > delivered and self._shipper.spool.peek() is not None

    def _look(self, now: float) -> None:
        ring, backlog = self._recorder.ring, self._busy
        filled = (ring.producer() - ring.consumer()) * FULL_ENOUGH >= ring.size_bytes
        try:
            if now >= self._retry_at and (filled or now >= self._stepped_at + STEP_S or backlog):
                self._stepped_at = now
                self._shipper.step()
                self._disk_trouble = ""
            else:
                self._shipper.listen()
        except OSError as failure:
            self._retry_at = now + RETRY_S
            self._disk_trouble = f"the spool finds no room: {failure.strerror or failure}"
        self._tell(self._disk_trouble or self._shipper.state)

    def _tell(self, trouble: str) -> None:
        """Tell a trouble once, and its end."""
        if trouble and trouble.partition(" (")[0] != self._trouble.partition(" (")[0]:
            self._say(f"{trouble}; recording goes on, ring and spool hold what comes")
        if self._trouble and not trouble:
            self._say("all is well again; what was kept is being sent")
        self._trouble = trouble

    def _watch(self) -> None:
        keeper, spool = self._keeper, self._shipper.spool
        self._counters = self._recorder.counters()
        self._shipper.lost = (self._counters.lost, self._counters.skipped)
        keeper.watch(self._counters.lost + self._counters.skipped + spool.counts.dropped + spool.counts.damaged)
        for line in keeper.news():
            self._say(line)
        if not keeper.recording and self._reload is not None:
            self._reload()
        if spool.counts.dropped and not self._dropped:
            self._say("the spool is full: the oldest batches are thrown away, which will be in table losses")
        self._dropped = spool.counts.dropped

    def _tell_damage(self) -> None:
        counts = self._shipper.spool.counts
        if counts.damaged or counts.cut_bytes:
            self._say(f"the spool was damaged: {counts.damaged} batches cannot be read, {counts.cut_bytes} bytes at its end were cut off")

    def _last(self) -> None:
        try:
            self._shipper.stop(FLUSH_S)
            kept = self._shipper.spool.records
            self._say(
                f"stopped; {kept} batches wait in the spool for the next start" if kept else "stopped; all that was recorded was sent"
            )
        except OSError as failure:
            self._say(f"stopped, but the spool finds no room: {failure.strerror}; the ring holds the rest for the next start")

    def numbers(self) -> "Iterator[Number]":
        """For Prometheus; called from another thread, which only reads."""
        from tasktrail.metrics import Kind, Number

        shipper, keeper, counters, ring = self._shipper, self._keeper, self._counters, self._recorder.ring
        spool, done = shipper.spool, shipper.counts
        total = (
            ("producer_batches", "Batches that the brokers keep.", done.delivered),
            ("producer_bytes", "Bytes of those, before compression.", done.delivered_bytes),
            ("producer_spooled", "Batches that were put into the spool.", done.spooled),
            ("producer_resent", "Times that all on its way was sent again after a failure.", done.resent),
            ("spool_dropped", "Batches that a full spool threw away.", spool.counts.dropped),
            ("spool_dropped_bytes", "Bytes of those.", spool.counts.dropped_bytes),
            ("spool_damaged", "Batches in the spool that could not be read.", spool.counts.damaged),
            ("snapshots", "Snapshots that were taken.", keeper.snapshots),
            ("pins_put_back", "Pins of the recorder that somebody removed and that were put back.", keeper.pins_put_back),
            ("recorder_lost", "Records of fork, exec and exit that found no room in the ring.", counters.lost),
            ("recorder_skipped", "Times that the kernel did not run a program of the recorder.", counters.skipped),
            ("recorder_dropped_renames", "Renames left out while the ring was half full.", counters.dropped_rename),
            ("recorder_short_arguments", "Arguments cut short while the ring was half full.", counters.short_argv),
            ("masked", "Records in which arguments were masked.", self._recorder.masking.masked),
        )
        now = (
            ("producer_behind_seconds", "Seconds since all that was taken from the ring had arrived.", shipper.behind_s),
            ("producer_well", "1 while nothing stands in the way of shipping.", float(not self._trouble)),
            ("recording", "1 while the recorder's programs answer.", float(keeper.recording)),
            ("ring_bytes", "Size of the ring.", ring.size_bytes),
            ("ring_filled_bytes", "Bytes in the ring that are neither sent nor kept.", ring.producer() - ring.consumer()),
            ("spool_batches", "Batches in the spool.", spool.records),
            ("spool_bytes", "Bytes of the spool's segments.", spool.size_bytes),
        )
        yield from (Number(name, Kind.COUNTER, says, value) for name, says, value in total)
        yield from (Number(name, Kind.GAUGE, says, value) for name, says, value in now)
