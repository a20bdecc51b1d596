"""A recorder on this kernel whose ring is read straight into the join: what the rows say, without a store."""

from collections import Counter

from kernel_tools import Live, wait_until

from producers import host, recording
from schemas import limits
from schemas.batch import decode_batch, frames
from schemas.rows import ImageRow, LossRow, Row
from streams.join import HostState, apply
from streams.join.log import TICK_MARGIN_NS


class Joined:
    """A recorder with a join behind it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.state = HostState()
        self.rows: dict[tuple[object, ...], ImageRow] = {}
        self.losses: list[LossRow] = []
        self.kinds: Counter[int] = Counter()
        """How many records of each kind were read."""
        self._host = host.here(live.chosen.state_dir)
        for encoded in live.recorder.pending_snapshots():
            self._take(apply(self.state, decode_batch(encoded)))

    def read(self) -> None:
        """Join what lies finished in the ring."""
        while (batch := recording.next_batch(self.live.recorder, self._host)).body:
            self._take(apply(self.state, batch))
            self.kinds.update(batch.body[at] for at, _ in frames(batch.body))
            self.live.recorder.ring.release(batch.end)

    def settle(self) -> None:
        """Until the rows of what lives now are given out, and those of the programs that it is about to run.

        Popen returns when the new program's close-on-exec files close (begin_new_exec), which is before the kernel tells of the exec.
        """
        asked_ns = host.now().boottime_ns
        due_ns = asked_ns + limits.FOLD_NS + TICK_MARGIN_NS

        def due() -> bool:
            self.read()
            batch = recording.next_batch(self.live.recorder, self._host)
            self._take(apply(self.state, batch))
            begun = (image.process for _, image in self.state.waiting if image.due_ns)
            waiting = any(process is not None and process.start_ns <= asked_ns for process in begun)
            return batch.drained and batch.boottime_ns > due_ns and not waiting

        wait_until(due, "rows being due")

    def snapshot(self) -> None:
        """Take a snapshot and join it, with all that happened before."""
        self.read()
        self._take(apply(self.state, self.live.recorder.snapshot()))
        self.read()

    def _take(self, rows: list[Row]) -> None:
        for row in rows:
            if isinstance(row, LossRow):
                self.losses.append(row)
                continue
            key = (row.task_id, row.exec_id)
            if key not in self.rows or self.rows[key].version <= row.version:
                self.rows[key] = row

    @property
    def images(self) -> list[ImageRow]:
        """The newest row of each image."""
        return list(self.rows.values())

    def told(self) -> list[LossRow]:
        """What is missing, but for the time before the recorder was loaded."""
        return [loss for loss in self.losses if loss.begin_boottime]

    def newest(self, tgid: int) -> ImageRow:
        """The newest image of the newest process of that pid, living or ended, as it is known now."""
        found = [row for row in self.images if row.tgid == tgid]
        assert found, f"no row of {tgid}"
        return max(found, key=lambda row: (row.start_boottime, row.exec_id))
