"""The loop of ``tasktrail run``: when to step, what to do when something is away, what to tell.

Nobody wakes us per event. The ring is looked at ten times a second, emptied when its pace says so, and everything else
(self-probes, marks, snapshots, status) happens about once a second.
"""

import gc
import json
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from producers.recorder import Recorder
from schemas.errors import TasktrailError, Unavailable
from store.layout import write_private
from store.server import Server
from streams.embedded import Embedded
from tasktrail.pace import Pace

LOOK_S = 0.1
WATCH_S = 1.0
RETRY_MAX_S = 5.0
COLLECT_STEPS = 50
"""Each insert leaves some three hundred objects of the driver in cycles; looking at what is new since the last time costs little."""
COLLECT_S = 600.0


class Runner:
    """Runs until SIGTERM or SIGINT; every failure that may pass is told in one line and waited out, with the ring holding on.

    stream    what is stepped
    server    the embedded ClickHouse, None with another server
    say       tells a person one line
    reload    loads the recorder again after its programs were detached, None if that is not wanted
    status    file that the status goes to, None for none
    """

    def __init__(
        self,
        stream: Embedded,
        recorder: Recorder,
        server: Server | None,
        say: Callable[[str], None],
        reload: Callable[[], None] | None,
        status: Path | None,
    ) -> None:
        self._stream = stream
        self._recorder = recorder
        self._server = server
        self._say = say
        self._reload = reload
        self._status_path = status
        self._stopping = False
        self._trouble = ""
        self._retry_s = 0.0
        self._retry_at = 0.0
        self._pace = Pace(recorder.ring.size_bytes)
        self._watched_at = self._collected_at = 0.0
        self._collected_steps = 0
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._rate = _Rate()

    def run(self) -> None:
        """Step until asked to stop; then take what is in the ring to the store a last time."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.set_wakeup_fd(self._waker)
        # The join leaves no cycles behind, only the driver does; the collector runs when we choose.
        gc.disable()
        gc.freeze()
        while not self._stopping:
            if not self.look(time.monotonic()):
                select.select([self._wake], [], [], LOOK_S)
        self._last_step()

    def look(self, now: float) -> bool:
        """One round of the loop, at ``now`` seconds of a monotonic clock; returns whether there is more to do at once."""
        busy = now >= self._retry_at and self._turn(now)
        self._collect(now)
        return busy

    def _collect(self, now: float) -> None:
        """Free what hangs together in cycles: often among what is new, now and then everywhere."""
        if now >= self._collected_at + COLLECT_S:
            self._collected_at = now
            gc.collect()
        elif self._stream.progress.steps >= self._collected_steps + COLLECT_STEPS:
            self._collected_steps = self._stream.progress.steps
            gc.collect(1)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _turn(self, now: float) -> bool:
        """One look; returns whether there is more to do at once."""
        try:
            if self._server is not None and self._server.revive():
                self._say("the store's server had ended and was started again; nothing is lost")
            if now >= self._watched_at + WATCH_S:
                self._watched_at = now
                self._watch(now)
            busy = False
            ring = self._recorder.ring
            # What failed is tried again as soon as its time has come: until a step is made nobody may say that all is well.
            if self._pace.due(now, ring.producer(), ring.consumer()) or self._trouble:
                began = time.monotonic()
                moved, drained, took_s = self._stream.step(), self._stream.progress.drained, time.monotonic() - began
                self._pace.stepped(now + took_s, took_s, drained)
                busy = moved and not drained
            self._well()
            return busy
        except (Unavailable, OSError) as failure:
            self._trouble_with(failure, now)
            return False

    def _watch(self, now: float) -> None:
        self._stream.watch()
        keeper = self._stream.keeper
        for line in keeper.news():
            self._say(line)
        if not keeper.recording and self._reload is not None:
            self._reload()
        self._write_status(now)

    def _trouble_with(self, failure: Exception, now: float) -> None:
        """Tell a failure once, try again later and later; the ring holds what comes meanwhile."""
        text = str(failure)
        if text != self._trouble:
            self._say(f"{text}; recording goes on, the ring holds, trying again")
        self._trouble = text
        self._retry_s = min(RETRY_MAX_S, max(2 * self._retry_s, 0.25))
        self._retry_at = now + self._retry_s
        self._write_status(now)

    def _well(self) -> None:
        if self._trouble:
            self._say("all is well again; what was in the ring is being stored")
        self._trouble, self._retry_s = "", 0.0

    def _last_step(self) -> None:
        try:
            while self._stream.step() and not self._stream.progress.drained:
                pass
            self._say("stopped; the recorder goes on in the kernel, the next run picks up where this one ended")
        except (TasktrailError, OSError) as failure:
            self._say(f"stopped, but the last rows are not stored yet: {failure}; the ring holds them for the next run")

    def _write_status(self, now: float) -> None:
        if self._status_path is None:
            return
        try:
            write_private(self._status_path, json.dumps(self._status(now)).encode(), 0o644)
        except OSError:
            return  # a full disk: the trouble is told by whoever needs the room

    def _status(self, now: float) -> dict[str, object]:
        """What ``tasktrail status`` shows."""
        stream, ring = self._stream, self._recorder.ring
        state, progress, counters = stream.state, stream.progress, self._recorder.counters()
        boottime_ns = stream.host.now()[0]
        fill = ring.producer() - ring.consumer()
        events_rate, rows_rate = self._rate.of(now, state.events, progress.rows)
        reader = self._server.address("reader") if self._server is not None else None
        return {
            "time": time.time(),
            "pid": os.getpid(),
            "recording": stream.keeper.recording,
            "recording_since": (state.wall_ns(state.recording_since_ns) / 1e9) if state.recording_since_ns else None,
            "events": state.events,
            "events_per_second": events_rate,
            "rows_per_second": rows_rate,
            "living": len(state.living),
            "lost": counters.lost,
            "skipped": counters.skipped,
            "dropped_rename": counters.dropped_rename,
            "short_argv": counters.short_argv,
            "masked": self._recorder.masking.masked,
            "ring_bytes": ring.size_bytes,
            "ring_fill": fill / ring.size_bytes,
            "lag_seconds": max(0.0, (boottime_ns - state.now_ns) / 1e9) if fill else 0.0,
            "state_bytes": progress.state_bytes,
            "tcp_port": reader.port if reader else None,
            "http_port": reader.http_port if reader else None,
            "message": self._trouble or stream.keeper.trouble,
        }


class _Rate:
    """Events and rows a second between two readings."""

    def __init__(self) -> None:
        self._last: tuple[float, int, int] | None = None

    def of(self, now: float, events: int, rows: int) -> tuple[float, float]:
        """Rates since the reading before."""
        last, self._last = self._last, (now, events, rows)
        if last is None or now <= last[0]:
            return 0.0, 0.0
        passed = now - last[0]
        return max(0, events - last[1]) / passed, max(0, rows - last[2]) / passed
