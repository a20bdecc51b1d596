"""Looking after a recorder: when marks, probes and snapshots are due."""

from dataclasses import dataclass, field

from producers.keeper import PROBE_PERIOD_NS, Keeper
from producers.snapshot import RingFull
from schemas.events import Mark

SECOND = 1_000_000_000


@dataclass
class FakeRecorder:
    """Notes what is asked of it."""

    done: list[str] = field(default_factory=list)
    marks: list[tuple[int, ...]] = field(default_factory=list)
    alive: bool = True
    full: bool = False
    no_disk: bool = False
    missing: list[str] = field(default_factory=list)
    newer: int = 0

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
        newer, self.newer = self.newer, 0
        return bool(newer)

    def snapshot(self) -> None:
        if self.full:
            raise RingFull("full")
        if self.no_disk:
            raise OSError("no space left on device")
        self.done.append("snapshot")


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
    assert watch.keeper.recording and not watch.recorder.marks and not watch.keeper.news()


def test_a_suspend_is_no_gap() -> None:
    watch = Watch()
    watch.seconds(60)
    # CLOCK_BOOTTIME counts the time asleep, so both clocks go on by the same.
    watch.boottime_ns += 8 * 3600 * SECOND
    assert watch.seconds(60)["snapshot"] == 1
    assert watch.keeper.recording and not watch.recorder.marks


def test_a_dead_recorder_is_noticed_within_two_heartbeats() -> None:
    watch = Watch()
    watch.seconds(61)
    watch.recorder.alive = False
    watched = 0
    while watch.keeper.recording:
        watch.seconds(1)
        watched += 1
    assert watched * SECOND <= 2 * PROBE_PERIOD_NS


def test_a_clock_that_is_set_is_marked_at_once() -> None:
    watch = Watch()
    watch.seconds(2)
    watch.offset_ns += 2_000_000
    assert watch.seconds(1) == {"clock": 1}
    watch.offset_ns += 900_000
    assert watch.seconds(1) == {}


def test_a_loss_brings_two_snapshots_at_once() -> None:
    watch = Watch()
    watch.seconds(3)
    assert [watch.seconds(1, lost=5).get("snapshot", 0) for _ in range(4)] == [1, 1, 0, 0]
    assert "snapshot" not in watch.seconds(1_000, lost=5)


def test_a_loss_that_goes_on_brings_no_more_snapshots_and_its_last_one_is_not_forgotten() -> None:
    watch = Watch()
    watch.seconds(30)
    watch.recorder.done.clear()
    for lost in range(1, 101):
        watch.boottime_ns += SECOND
        watch.keeper.watch(lost)
    assert 9 <= watch.recorder.done.count("snapshot") <= 11
    assert watch.seconds(25, lost=100)["snapshot"] == 2
    assert "snapshot" not in watch.seconds(1_000, lost=100)


def test_without_room_for_it_a_snapshot_stays_due() -> None:
    watch = Watch()
    watch.boottime_ns += SECOND
    assert not watch.keeper.watch(0, room=False)
    assert "snapshot" not in watch.recorder.done
    assert watch.keeper.watch(0) and not watch.keeper.watch(0)
    assert watch.recorder.done.count("snapshot") == 1


def test_the_snapshot_of_a_loader_is_told() -> None:
    watch = Watch()
    watch.seconds(5)
    watch.recorder.newer = 1
    assert watch.keeper.watch(0) and not watch.keeper.watch(0)


def test_what_cannot_be_done_is_told_once_and_keeps_nobody_from_the_rest() -> None:
    watch = Watch()
    watch.recorder.no_disk = True
    assert watch.seconds(60) == {"probe": 12, "exec probe": 1, "clock": 12}
    assert watch.keeper.trouble == "no space left on device"
    assert watch.keeper.news() == ["no space left on device; recording goes on, trying again"]
    watch.recorder.no_disk = False
    assert watch.seconds(1)["snapshot"] == 1
    assert not watch.keeper.trouble and not watch.keeper.news()


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
    assert watch.keeper.news() == ["the recorder's programs do not answer: a gap begins, it will be in table losses"]


def test_removed_pins_are_put_back_and_named() -> None:
    watch = Watch()
    watch.recorder.missing = ["link_fork"]
    watch.seconds(2)
    assert watch.keeper.pins_put_back == 1
    (told,) = watch.keeper.news()
    assert "link_fork" in told and not watch.keeper.news()
