"""Values of a result as text, exact, by their ClickHouse type. Rows come from store.connection: times are integers there."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from functools import lru_cache
from uuid import UUID

Reader = Callable[[object], object]


@lru_cache(maxsize=1024)
def reader(kind: str) -> Reader | None:
    """A function from a value of this type to what JSON can hold, strings left as bytes; None where the value is fit already.

    Times become ``2026-11-25 15:44:43.000000001`` (UTC), UUIDs their text; Array, Tuple, Map, Nullable and LowCardinality likewise inside.
    """
    head, _, tail = kind.partition("(")
    inside = _split(tail[:-1]) if tail else []
    if head == "DateTime64":
        return _time64(int(inside[0]))
    if head == "DateTime":
        return _time64(0)
    if head in ("Nullable", "LowCardinality"):
        return reader(inside[0])
    if head == "Array":
        return _array(reader(inside[0]))
    if head == "Tuple":
        return _tuple([reader(_unnamed(part)) for part in inside])
    if head == "Map":
        return _map(reader(inside[0]), reader(inside[1]))
    if head in ("UUID", "IPv4", "IPv6", "Date", "Date32") or head.startswith("Decimal"):
        return _plain
    return None


def time_text(value: int, digits: int) -> str:
    """An integer time in units of 10**-digits seconds as text in UTC, all digits kept."""
    seconds, part = divmod(value, 10**digits)
    stamp = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{stamp}.{part:0{digits}d}" if digits else stamp


def _time64(digits: int) -> Reader:
    def read(value: object) -> object:
        return time_text(value, digits) if isinstance(value, int) else value

    return read


def _array(inner: Reader | None) -> Reader | None:
    if inner is None:
        return None

    def read(value: object) -> object:
        return [inner(item) for item in value] if isinstance(value, list | tuple) else value

    return read


def _tuple(inner: list[Reader | None]) -> Reader | None:
    if not any(inner):
        return None

    def read(value: object) -> object:
        if isinstance(value, dict):
            return {name: one(item) if one else item for one, (name, item) in zip(inner, value.items(), strict=True)}
        if isinstance(value, list | tuple):
            return [one(item) if one else item for one, item in zip(inner, value, strict=True)]
        return value

    return read


def _map(keys: Reader | None, values: Reader | None) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {(keys(key) if keys else key): (values(item) if values else item) for key, item in value.items()}

    return read


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID | date) or value is not None else value


def _unnamed(part: str) -> str:
    """The type in an element of a Tuple, which may have a name before it."""
    head = part.split("(", 1)[0]
    return part[head.rindex(" ") + 1 :] if " " in head else part


def _split(text: str) -> list[str]:
    """The parts between commas that are in no parentheses and no quotes."""
    parts, depth, start, quoted = [], 0, 0, False
    for at, char in enumerate(text):
        if char == "'" and text[at - 1 : at] != "\\":
            quoted = not quoted
        elif quoted:
            continue
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]
