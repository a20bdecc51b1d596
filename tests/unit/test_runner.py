"""The loop of ``tasktrail run`` beside a store that fails, with parts that the test holds."""

from types import SimpleNamespace
from typing import Any, cast

from schemas.errors import Unavailable
from tasktrail.pace import STORM_BYTES_S
from tasktrail.runner import Runner


class World:
    """A ring that fills, and a store that takes nothing while it is full."""

    def __init__(self) -> None:
        self.now, self.full, self.steps, self.bytes_s = 1000.0, False, 0, 0.0
        self.produced = self.consumed = 0.0
        self.said: list[str] = []
        ring = SimpleNamespace(size_bytes=32 << 20, producer=lambda: int(self.produced), consumer=lambda: int(self.consumed))
        keeper = SimpleNamespace(news=list, recording=True)
        stream = SimpleNamespace(step=self._step, watch=lambda: None, keeper=keeper, progress=SimpleNamespace(drained=True, steps=0))
        self.runner = Runner(cast(Any, stream), cast(Any, SimpleNamespace(ring=ring)), None, self.said.append, None, None)

    def _step(self) -> bool:
        if self.full:
            raise Unavailable("the store is full")
        self.steps += 1
        self.consumed = self.produced
        return True

    def go_on(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.now += 0.1
            self.produced += self.bytes_s * 0.1
            self.runner.look(self.now)


def test_a_failure_is_over_when_a_step_was_made_and_not_before() -> None:
    world = World()
    world.go_on(1)
    assert world.steps > 1
    world.full = True
    world.go_on(1)
    assert [line.split(";")[0] for line in world.said] == ["the store is full"]
    world.bytes_s = 2 * STORM_BYTES_S  # where a step can wait
    world.go_on(3)
    assert len(world.said) == 1
    world.full = False
    world.go_on(6)
    assert len(world.said) == 2 and "all is well again" in world.said[1]
