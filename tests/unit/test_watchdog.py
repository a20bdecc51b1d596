"""When a worker leaves by itself: messages wait, nothing holds it, and none is taken."""

from streams.fleet.watchdog import STUCK_S, Watchdog


def looks(watchdog: Watchdog, *seen: tuple[float, int, int, bool]) -> list[bool]:
    return [watchdog.stuck(*one) for one in seen]


def test_messages_that_wait_without_progress_are_noticed() -> None:
    after = STUCK_S + 1
    assert looks(Watchdog(), (0, 5, 10, False), (STUCK_S, 5, 10, False), (after, 5, 10, False)) == [False, False, True]


def test_progress_nothing_waiting_or_an_excuse_begin_anew() -> None:
    for middle in ((STUCK_S, 6, 10, False), (STUCK_S, 5, 0, False), (STUCK_S, 5, 10, True)):
        progress = middle[1]
        assert looks(Watchdog(), (0, 5, 10, False), middle, (2 * STUCK_S - 1, progress, 10, False)) == [False] * 3
        assert looks(Watchdog(), (0, 5, 10, False), middle, (2 * STUCK_S + 1, progress, 10, False))[-1]


def test_a_clock_that_starts_anywhere_alarms_nobody() -> None:
    assert not Watchdog().stuck(1e9, 0, 10, False)
