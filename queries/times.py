"""Moments as people write and read them: local time, to and from nanoseconds since 1970."""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas.errors import BadInput

NS = 1_000_000_000
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(\.\d{1,9})?)?")
_AGO = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?:in)?)?(?:(\d+)s)?(?: ago)?")
_CURE = "write it like 10:32, 10:32:05, 2026-11-25T10:32, or 2h for two hours ago"


class Moment(NamedTuple):
    """What a text means: ``10:32`` is a minute, ``10:32:05`` a second. Nanoseconds since 1970, the end not included."""

    begin_ns: int
    end_ns: int


def to_ns(moment: datetime) -> int:
    """Nanoseconds since 1970 of an aware datetime, exact to the microsecond that it holds."""
    seconds = int(moment.replace(microsecond=0).timestamp())
    return seconds * NS + moment.microsecond * 1000


def _span(begin_ns: int, length_ns: int) -> Moment:
    return Moment(begin_ns, begin_ns + max(1, length_ns))


def parse_moment(text: str, now: datetime) -> Moment:
    """The moment that the text means, seen from ``now`` (aware; its zone is only used for texts that name none).

    A clock time alone is today's, or yesterday's if that is still to come. Raises BadInput.
    """
    text = text.strip()
    clock = _CLOCK.fullmatch(text)
    try:
        if clock:
            hour, minute, second, part = clock.groups()
            day = now.replace(hour=int(hour), minute=int(minute), second=int(second or 0), microsecond=0)
            local = day.replace(tzinfo=None)
            moment = local.astimezone() if _is_system_zone(now) else day
            if moment > now:
                earlier = local - timedelta(days=1)
                moment = earlier.astimezone() if _is_system_zone(now) else earlier.replace(tzinfo=now.tzinfo)
            if part:
                digits = len(part) - 1
                return _span(to_ns(moment) + int(part[1:].ljust(9, "0")), 10 ** (9 - digits))
            return _span(to_ns(moment), NS if second else 60 * NS)
        ago = _AGO.fullmatch(text)
        if ago and any(ago.groups()):
            weeks, days, hours, minutes, seconds = (int(part or 0) for part in ago.groups())
            back = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
            return _span(to_ns(now - back), 0)
        if text.startswith("@"):
            return _span(int(text[1:]) * NS, NS)
        moment = datetime.fromisoformat(text.replace(",", "."))
        if moment.tzinfo is None:
            moment = moment.astimezone() if _is_system_zone(now) else moment.replace(tzinfo=now.tzinfo)
        return _span(to_ns(moment), _precision(text))
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"time {text!r} is not understood", _CURE) from None


def _is_system_zone(now: datetime) -> bool:
    """Whether ``now`` came from ``datetime.now().astimezone()``: then other days may have another offset (summer time)."""
    return now.tzinfo is not None and now.utcoffset() == now.astimezone().utcoffset() and type(now.tzinfo).__name__ == "timezone"


def _precision(text: str) -> int:
    """How long a moment an ISO text names: a day, a minute, a second or a part of one."""
    clock = text[10:]
    if not clock:
        return 24 * 3600 * NS
    if "." in clock:
        return 1000
    return NS if clock.split("+")[0].split("-")[0].count(":") >= 2 else 60 * NS


def show_time(time_ns: int, digits: int = 3) -> str:
    """``2026-11-25 10:32:05.123`` in local time."""
    seconds, part = divmod(time_ns, NS)
    shown = datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return f"{shown}.{part:09d}"[: len(shown) + 1 + digits] if digits else shown


def show_clock(time_ns: int, now_ns: int) -> str:
    """The clock time alone if less than 20 hours before now, else day and time; local."""
    full = show_time(time_ns, 0)
    return full[11:] if 0 <= now_ns - time_ns < 20 * 3600 * NS else full[:16]


def iso_time(time_ns: int) -> str:
    """``2026-11-25T10:32:05.123456789Z``, exact, for JSON."""
    seconds, part = divmod(time_ns, NS)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{part:09d}Z"


def show_duration(duration_ns: int) -> str:
    """A length of time in two figures that matter: ``850 us``, ``12 ms``, ``3.2 s``, ``4 min 5 s``, ``3 h 20 min``, ``12 d 4 h``."""
    if duration_ns < 1_000_000:
        return f"{duration_ns // 1000} us"
    if duration_ns < NS:
        return f"{duration_ns // 1_000_000} ms"
    if duration_ns < 60 * NS:
        return f"{duration_ns / NS:.1f} s"
    seconds = duration_ns // NS
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"
