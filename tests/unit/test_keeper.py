"""Looking after a recorder: when marks, probes and snapshots are due."""

from dataclasses import dataclass, field
from uuid import UUID

from producers.keeper import Keeper
from schemas.batch import Batch, BatchKind
from schemas.errors import Unavailable
from schemas.events import Mark

SECOND = 1_000_000_000


@dataclass
class FakeRecorder:
    """Notes what is asked of it."""

    done: list[str] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    alive: bool = True
    full: bool = False
    missing: list[str] = field(default_factory=list)

    def mark(self, kind: Mark, *values: int) -> bool:
        self.marks.append((kind, *values))
        return not self.full

    def clock(self) -> bool:
        self.done.append("clock")
        return True

    def probe(self) -> bool:
        self.done.append("probe")
        return self.alive

    def exec_probe(self) -> bool:
        self.done.append("exec probe")
        return self.alive

    def pin_again(self) -> list[str]:
        missing, self.missing = self.missing, []
        return missing

    def refresh(self) -> bool:
        return False

    def snapshot(self) -> Batch:
        if self.full:
            raise Unavailable("full")
        self.done.append("snapshot")
        return Batch(BatchKind.SNAPSHOT, UUID(int=1), UUID(int=2), 3, 0, 0, 1, 1, 1, 0, b"h", b"")


@dataclass
class Watch:
    """A keeper and its clocks."""

    recorder: FakeRecorder = field(default_factory=FakeRecorder)
    boottime_ns: int = 100 * SECOND
    offset_ns: int = 1_700_000_000 * SECOND

    def __post_init__(self) -> None:
        self.keeper = Keeper(self.recorder, lambda: (self.boottime_ns, self.boottime_ns + self.offset_ns))

    def seconds(self, count: int, lost: int = 0) -> dict[str, int]:
        """What is done in so many seconds."""
        self.recorder.done.clear()
        for _ in range(count):
            self.boottime_ns += SECOND
            self.keeper.watch(lost)
        return {what: self.recorder.done.count(what) for what in self.recorder.done}


def test_an_hour_of_a_calm_host() -> None:
    watch = Watch()
    assert watch.seconds(1) == {"probe": 1, "exec probe": 1, "clock": 1, "snapshot": 1}
    assert watch.seconds(3600) == {"probe": 720, "exec probe": 60, "clock": 720, "snapshot": 1}


def test_a_clock_that_is_set_is_marked_at_once() -> None:
    watch = Watch()
    watch.seconds(2)
    watch.offset_ns += 2_000_000
    assert watch.seconds(1) == {"clock": 1}
    watch.offset_ns += 900_000
    assert watch.seconds(1) == {}


def test_after_a_loss_come_two_snapshots_and_not_more_for_a_loss_that_goes_on() -> None:
    watch = Watch()
    watch.seconds(30)
    assert watch.seconds(40, lost=5)["snapshot"] == 2
    watch.recorder.done.clear()
    for lost in range(6, 106):
        watch.boottime_ns += SECOND
        watch.keeper.watch(lost)
    assert 9 <= watch.recorder.done.count("snapshot") <= 11


def test_a_snapshot_that_finds_no_room_stays_due() -> None:
    watch = Watch()
    watch.recorder.full = True
    assert "snapshot" not in watch.seconds(10)
    watch.recorder.full = False
    assert watch.seconds(1)["snapshot"] == 1


def test_programs_that_do_not_answer_begin_a_gap_once_and_snapshots_follow_it() -> None:
    watch = Watch()
    watch.seconds(6)
    good_ns = watch.keeper.last_good_ns
    watch.recorder.alive = False
    watch.seconds(20)
    assert not watch.keeper.recording
    assert watch.recorder.marks == [(Mark.LINKS_LOST, good_ns)]
    watch.recorder.alive = True
    assert watch.seconds(30)["snapshot"] == 2
    assert watch.keeper.recording


def test_removed_pins_are_put_back_and_named() -> None:
    watch = Watch()
    watch.recorder.missing = ["link_fork"]
    watch.seconds(2)
    assert watch.keeper.pinned_again == ["link_fork"]
