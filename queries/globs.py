"""Shell patterns as the regular expressions of RE2, which ClickHouse's match() reads byte by byte."""

import re

_SPECIAL = re.compile(r"[*?\[]")


def is_glob(text: str) -> bool:
    """Whether the text has a pattern's signs: * ? or [."""
    return bool(_SPECIAL.search(text))


def as_regex(pattern: str) -> str:
    """A regular expression that matches the same whole strings: * any bytes (slashes too), ? one byte, [ab-c] and [!a] sets.

    A [ without a ] stands for itself. The pattern's other bytes match themselves.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append("[\\x00-\\xff]*" if not parts or parts[-1] != "[\\x00-\\xff]*" else "")
        elif char == "?":
            parts.append("[\\x00-\\xff]")
        elif char == "[":
            close = pattern.find("]", at + (2 if pattern[at : at + 1] == "!" else 1))
            if close < 0:
                parts.append("\\[")
                continue
            parts.append(_set(pattern[at:close]))
            at = close + 1
        else:
            parts.append(_literal(char))
    return "^" + "".join(parts) + "$"


def _set(inner: str) -> str:
    """A set in brackets; ``!`` at its beginning negates it."""
    negated = inner.startswith("!")
    members = []
    for char in inner[1:] if negated else inner:
        members.append(char if char.isascii() and (char.isalnum() or char == "-") else _literal(char))
    return f"[{'^' if negated else ''}{''.join(members)}]"


def _literal(char: str) -> str:
    """The character's bytes; those that are not UTF-8 arrive as surrogates from the command line."""
    if char.isascii() and (char.isalnum() or char in "_/-"):
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
