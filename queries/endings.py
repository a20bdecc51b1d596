"""How an image ended, in words."""

import signal
from typing import Protocol

from queries.times import show_duration
from schemas.rows import EndKind


class Ended(Protocol):
    """The columns that tell how an image ended."""

    @property
    def end_kind(self) -> int: ...
    @property
    def exit_code(self) -> int: ...
    @property
    def exit_signal(self) -> int: ...
    @property
    def core_dumped(self) -> int: ...
    @property
    def duration(self) -> int: ...


def signal_name(number: int) -> str:
    """``SIGKILL``; ``signal 34`` for those without a name (real-time signals)."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def ending(image: Ended) -> str:
    """``exit 0 after 2.1 s``, ``killed by SIGSEGV (core dumped) after 3 ms``, ``exec after 12 ms``, ``living``, …"""
    after = f" after {show_duration(image.duration)}"
    match image.end_kind:
        case EndKind.LIVING:
            return "living"
        case EndKind.EXIT if image.exit_signal:
            return f"killed by {signal_name(image.exit_signal)}{' (core dumped)' if image.core_dumped else ''}{after}"
        case EndKind.EXIT:
            return f"exit {image.exit_code}{after}"
        case EndKind.EXEC:
            return f"exec{after}"
        case EndKind.SUPERSEDED:
            return "ended unseen: its pid was given away"
        case EndKind.GONE:
            return "ended unseen: two snapshots did not find it"
        case _:
            return "ended by a reboot"


def short_ending(image: Ended) -> str:
    """One or two words of it, for a column."""
    match image.end_kind:
        case EndKind.LIVING:
            return "living"
        case EndKind.EXIT if image.exit_signal:
            return signal_name(image.exit_signal)
        case EndKind.EXIT:
            return f"exit {image.exit_code}"
        case _:
            return EndKind(image.end_kind).name.lower()
