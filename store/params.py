"""Values for ``{name:Type}`` in a statement, escaped so that any bytes arrive as they are."""

from collections.abc import Mapping
from typing import cast
from uuid import UUID

PLAIN = frozenset(range(0x20, 0x7F)) - frozenset(b"\\'")
"""Bytes that are written as they are; all others become \\xNN."""


class _Encoded:
    """A parameter in the form that the server reads: the driver puts ``str()`` of it between quotes and looks no further."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


def encoded(params: Mapping[str, object] | None) -> dict[str, object] | None:
    """The parameters as the driver must get them: str, bytes, int, UUID, None or a list or tuple of these."""
    if params is None:
        return None
    return {name: _Encoded(_text(value)) for name, value in params.items()}


def _text(value: object) -> str:
    """One value; the server takes off one level of quoting, and reads strings as in TSV but arrays as literals."""
    if isinstance(value, list | tuple):
        return "[" + ",".join(_element(item) for item in cast("list[object]", value)) + "]"
    if isinstance(value, bytes | str):
        return _escaped(value, "\\\\x")
    if value is None:
        return "\\\\N"
    return str(int(value)) if isinstance(value, bool) else str(value)


def _element(value: object) -> str:
    """One value inside an array."""
    if isinstance(value, bytes | str):
        return "\\'" + _escaped(value, "\\\\x") + "\\'"
    if isinstance(value, UUID):
        return f"\\'{value}\\'"
    return "NULL" if value is None else str(value)


def _escaped(value: bytes | str, mark: str) -> str:
    """The bytes (of a str: its UTF-8) in ASCII."""
    data = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return "".join(chr(byte) if byte in PLAIN else f"{mark}{byte:02x}" for byte in data)
