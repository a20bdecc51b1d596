"""Workers that die, hang, come and go while messages come: the rows are those of the embedded join, and no message is left lying."""

import random
import time

import pytest

from tests.e2e.running import wait_until
from tests.fleet.streaming import SESSION_S, Fleet, known, pause


@pytest.mark.parametrize("seed", range(5))
def test_workers_killed_at_any_moment_lose_nothing(fleet: Fleet, seed: int) -> None:
    sent, rng = known(100 + seed), random.Random(seed)
    living = [fleet.start_worker(), fleet.start_worker()]
    fleet.ready(living[0])
    load = fleet.load(sent.messages, 15)
    for _ in range(3):
        # From reading states to committing offsets: whatever it is doing.
        pause(rng.uniform(0, 5))
        victim = living.pop(rng.randrange(len(living)))
        victim.kill()
        living.append(fleet.start_worker())
    load.all_sent()
    fleet.check(sent)
    assert all(worker.lives() for worker in living), fleet.said()


def test_workers_that_come_and_go_under_load_lose_nothing_and_leave_nothing_lying(fleet: Fleet) -> None:
    sent, rng = known(110), random.Random(110)
    living = [fleet.start_worker()]
    fleet.ready(living[0])
    load = fleet.load(sent.messages[:-100], 40)
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if len(living) < 3 and rng.random() < 0.6:
            living.append(fleet.start_worker())
        elif len(living) > 1:
            leaver = living.pop(rng.randrange(len(living)))
            if rng.random() < 0.5:
                leaver.kill()
            else:
                leaver.process.terminate()
        pause(rng.uniform(2, 5))
    load.all_sent()
    fleet.caught_up()
    # From now on nobody comes or goes: each message is committed soon after it was sent.
    longest_s = 0.0
    for begin in range(-100, 0, 25):
        begun = time.monotonic()
        fleet.produce(sent.messages[begin : begin + 25 or None])
        fleet.caught_up(30)
        longest_s = max(longest_s, time.monotonic() - begun)
    print(f"longest time from sent to committed: {longest_s:.1f} s")
    fleet.check(sent)
    assert all(worker.lives() for worker in living), fleet.said()


def test_a_worker_that_hung_longer_than_the_session_does_no_harm(fleet: Fleet) -> None:
    sent = known(120)
    workers = fleet.start_worker(), fleet.start_worker()
    fleet.ready(*workers)
    third = len(sent.messages) // 3
    load = fleet.load(sent.messages[:third], 5)
    busy = wait_until(lambda: [one for one in workers if one.number("worker_messages")], f"a message: {fleet.said()}", 240)
    hanging = busy[0]
    hanging.freeze()
    load.all_sent()
    fleet.produce(sent.messages[third : 2 * third])
    # Only when the group has given all that was the other's to the one that lives can this be.
    fleet.caught_up(10 * SESSION_S + 60)
    hanging.thaw()
    load = fleet.load(sent.messages[2 * third :], 5)
    load.all_sent()
    fleet.check(sent)
    fleet.ready(*workers)


def test_sigterm_ends_a_worker_soon_and_all_that_was_safe_is_committed(fleet: Fleet) -> None:
    sent = known(130)
    first = fleet.start_worker()
    fleet.ready(first)
    load = fleet.load(sent.messages, 10)
    wait_until(lambda: first.number("worker_rows_stored") > 100, "rows in the store", 240)
    taken = first.number("worker_messages")
    assert first.stop(15) == 0, first.said()
    before = sum((fleet.uncommitted() or {}).values())
    load.all_sent()
    assert "without saving" not in first.said()
    second = fleet.start_worker()
    fleet.check(sent)
    # What the first had joined and saved, the second did not join again.
    assert second.number("worker_messages") <= len(sent.messages) - taken, (taken, before)
    assert second.number("worker_repeated") == 0


def test_sigterm_while_the_group_changes_ends_a_worker_soon(fleet: Fleet) -> None:
    sent = known(140)
    workers = [fleet.start_worker() for _ in range(3)]
    fleet.ready(workers[0])
    load = fleet.load(sent.messages, 10)
    workers[0].kill()
    leaving = fleet.start_worker()
    fleet.ready(workers[1])
    assert workers[1].stop(15) == 0, workers[1].said()
    assert workers[2].lives() and leaving.lives()
    load.all_sent()
    fleet.check(sent)
