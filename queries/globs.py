"""Shell patterns as tests in ClickHouse's SQL, exact on any bytes.

RE2 as ClickHouse compiles it reads UTF-8, and fits nothing where a string is not. So the common patterns become comparisons of
bytes (starts with, ends with, holds), which are faster as well, and all others a regular expression on the hexadecimal digits.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

_SPECIAL = re.compile(r"[*?\[]")
_ANY = "(?:[0-9A-F]{2})*"
_ONE = "[0-9A-F]{2}"


class Test(NamedTuple):
    """SQL that is true where the pattern fits; ``#`` in it and in the parameters' names stands for a number yet to be given."""

    sql: str
    params: Mapping[str, object]


def is_glob(text: str) -> bool:
    """Whether the text has a pattern's signs: * ? or [."""
    return bool(_SPECIAL.search(text))


def fits(expression: str, pattern: str) -> Test:
    """Whether the string that the expression gives is the pattern's: * any bytes (slashes too), ? one byte, [ab-c] and [!a] sets of
    bytes. A [ without a ] stands for itself."""
    if not is_glob(pattern):
        return Test(f"{expression} = {{value#:String}}", {"value#": pattern})
    head, star, tail = pattern.partition("*")
    if star and not is_glob(head) and not is_glob(tail):
        return _begins_and_ends(expression, head, tail)
    inner = pattern[1:-1]
    if len(pattern) > 2 and pattern[0] == pattern[-1] == "*" and not is_glob(inner):
        return Test(f"position({expression}, {{value#:String}}) > 0", {"value#": inner})
    return Test(f"match(hex({expression}), {{value#:String}})", {"value#": as_hex_regex(pattern)})


def _begins_and_ends(expression: str, head: str, tail: str) -> Test:
    """The pattern head*tail."""
    if not head and not tail:
        return Test("1", {})
    tests = []
    params: dict[str, object] = {}
    for name, text, function in (("value#", head, "startsWith"), ("tail#", tail, "endsWith")):
        if text:
            tests.append(f"{function}({expression}, {{{name}:String}})")
            params[name] = text
    if head and tail:
        # Head and tail may not share bytes.
        tests.append(f"length({expression}) >= {len(_bytes(head)) + len(_bytes(tail))}")
    return Test("(" + " AND ".join(tests) + ")", params)


def _bytes(text: str) -> bytes:
    """Bytes that are not UTF-8 arrive as surrogates from the command line."""
    return text.encode("utf-8", "surrogateescape")


def as_hex_regex(pattern: str) -> str:
    """A regular expression that fits the upper-case hexadecimal digits of the whole strings that the pattern fits."""
    parts = []
    data = _bytes(pattern)
    at = 0
    while at < len(data):
        byte = data[at : at + 1]
        at += 1
        if byte == b"*":
            parts.append(_ANY)
        elif byte == b"?":
            parts.append(_ONE)
        elif byte == b"[":
            close = data.find(b"]", at + (2 if data[at : at + 1] == b"!" else 1))
            if close < 0:
                parts.append("5B")
                continue
            parts.append(_set(data[at:close]))
            at = close + 1
        else:
            parts.append(byte.hex().upper())
    return "^" + "".join(parts) + "$"


def _set(inner: bytes) -> str:
    """A set of bytes; ``!`` at its beginning negates it."""
    negated = inner.startswith(b"!")
    members: set[int] = set()
    chars = inner[1:] if negated else inner
    at = 0
    while at < len(chars):
        if chars[at + 1 : at + 2] == b"-" and at + 2 < len(chars):
            members |= set(range(chars[at], chars[at + 2] + 1))
            at += 3
        else:
            members.add(chars[at])
            at += 1
    if negated:
        members = set(range(256)) - members
    return "(?:" + "|".join(f"{member:02X}" for member in sorted(members)) + ")" if members else "(?:Z)"
