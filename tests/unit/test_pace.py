"""When ``tasktrail run`` takes what lies in the ring, by a clock and a ring that the tests move."""

from dataclasses import dataclass

import pytest

from tasktrail.pace import FULL_ENOUGH, REST_MAX_S, STEP_S, STORM_BYTES_S, STORM_S, Pace

LOOK_S = 0.1
RING_BYTES = 32 << 20


@dataclass
class World:
    """A clock, and a ring that fills as it goes on."""

    pace: Pace
    bytes_s: float = 1000.0
    now: float = 1000.0
    producer: float = 5e9
    consumer: float = 5e9

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        self.producer += seconds * self.bytes_s

    def due(self) -> bool:
        return self.pace.due(self.now, int(self.producer), int(self.consumer))

    def step(self, took_s: float = 0.0, left: float = 0.0) -> None:
        """A step that begins now and leaves so many bytes."""
        self.go_on(took_s)
        self.consumer = self.producer - left
        self.pace.stepped(self.now, took_s, drained=not left)

    def waited(self) -> float:
        """Seconds until a step is due, looking as the runner does."""
        began = self.now
        while not self.due():
            self.go_on(LOOK_S)
            assert self.now - began < 60, "no step"
        return self.now - began


@pytest.fixture
def world() -> World:
    """After the first step, which took no time."""
    made = World(Pace(RING_BYTES))
    made.due()
    made.go_on(LOOK_S)
    assert made.due(), "the first step does not wait for anything"
    made.step()
    return made


def test_rows_come_soon_while_little_happens(world: World) -> None:
    assert world.waited() == pytest.approx(STEP_S)
    world.step(took_s=0.05)
    assert world.waited() == pytest.approx(STEP_S - 0.05, abs=LOOK_S)


def test_a_long_step_is_followed_by_a_long_rest(world: World) -> None:
    world.step(took_s=0.2)
    assert world.waited() == pytest.approx(0.8)
    world.step(took_s=20.0)
    assert world.waited() == pytest.approx(REST_MAX_S)


def test_a_storm_is_taken_in_large_pieces_but_not_without_end(world: World) -> None:
    world.bytes_s = 1.1 * STORM_BYTES_S
    for _ in range(3):
        assert world.waited() == pytest.approx(STORM_S)
        world.step(took_s=0.3)


def test_when_the_storm_is_over_what_waits_is_taken(world: World) -> None:
    world.bytes_s = 2 * STORM_BYTES_S
    for _ in range(20):
        assert not world.due()
        world.go_on(LOOK_S)
    world.bytes_s = 1000.0
    assert world.waited() <= 2 * LOOK_S


def test_a_ring_that_fills_is_emptied_whatever_goes_on(world: World) -> None:
    world.bytes_s = 100 * STORM_BYTES_S
    world.go_on(LOOK_S)
    assert not world.due()
    world.waited()
    assert FULL_ENOUGH * RING_BYTES <= world.producer - world.consumer < 0.5 * RING_BYTES, "from a half on the kernel leaves things out"


def test_a_backlog_is_gone_through_without_a_rest_once_it_is_calm(world: World) -> None:
    world.step(took_s=0.5, left=3e6)
    assert world.waited() <= LOOK_S
    world.bytes_s = 2 * STORM_BYTES_S
    world.step(took_s=0.5, left=3e6)
    world.go_on(LOOK_S)
    assert not world.due()


def test_what_came_during_a_step_is_no_storm_when_it_came_slowly(world: World) -> None:
    world.bytes_s = 0.5 * STORM_BYTES_S
    world.step(took_s=4.0)
    assert world.waited() == pytest.approx(REST_MAX_S)
