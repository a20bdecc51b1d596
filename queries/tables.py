"""Results of any SQL as text: JSON lines, CSV, TSV, and cells for a table.

TSV is ClickHouse's own (TabSeparatedWithNames): backslash escapes in the text, so it is exact and can be read back by it; all control
bytes and what is not UTF-8 are written \\xNN, which it reads as well. CSV has no escapes: bytes that are not UTF-8 become U+FFFD.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from queries.jsonlines import as_object, line
from queries.quoting import quote_name, quote_text

Read = Callable[[str], Callable[[object], object] | None]
"""store.values.reader: type → function from a value to what JSON can hold, None where it is fit already."""

_CSV_SPECIAL = re.compile(r'[",\r\n]|^ | $')
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of control and format characters (bidirectional overrides among them), surrogates and separators of lines."""
_TSV = {0x5C: "\\\\", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}


def _readers(columns: Sequence[tuple[str, str]], read: Read) -> list[Callable[[object], object] | None]:
    return [read(kind) for _, kind in columns]


def values(columns: Sequence[tuple[str, str]], rows: Iterator[tuple[Any, ...]], read: Read) -> Iterator[list[object]]:
    """Rows with times, UUIDs and the like as text; strings are bytes."""
    readers = _readers(columns, read)
    for row in rows:
        yield [reader(value) if reader else value for reader, value in zip(readers, row, strict=True)]


def json_lines(columns: Sequence[tuple[str, str]], rows: Iterator[list[object]]) -> Iterator[str]:
    """One object per row. Of two columns with one name the later gets _2 and so on behind it."""
    names = _unique([name for name, _ in columns])
    for row in rows:
        yield line(as_object(zip(names, row, strict=True)))


def _unique(names: Sequence[str]) -> list[str]:
    result: list[str] = []
    for name in names:
        number, fresh = 2, name
        while fresh in result:
            number, fresh = number + 1, f"{name}_{number}"
        result.append(fresh)
    return result


def text(value: object, top: bool = True) -> bytes:
    """A value as plain bytes, in the way ClickHouse shows it in text formats."""
    if isinstance(value, bytes):
        return value if top else b"'" + value.replace(b"\\", b"\\\\").replace(b"'", b"\\'") + b"'"
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape") if top else b"'" + value.encode("utf-8", "surrogateescape") + b"'"
    if value is None:
        return b"\\N" if top else b"NULL"
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(text(item, top=False) for item in value) + b"]"
    if isinstance(value, dict):
        return b"{" + b",".join(text(key, False) + b":" + text(item, False) for key, item in value.items()) + b"}"
    return str(value).encode()


def escaped(line: str) -> str:
    r"""The text with all that acts on a terminal, instead of being shown there, as \xNN: control and format characters, lone bytes."""
    return "".join(
        "".join(f"\\x{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")) if unicodedata.category(char) in _ACTING else char
        for char in line
    )


def tsv_field(value: object) -> str:
    """One field of TSV."""
    if value is None:
        return "\\N"
    shown = text(value).decode("utf-8", "surrogateescape")
    parts = []
    for char in shown:
        code = ord(char)
        parts.append(_TSV[code] if code in _TSV else escaped(char))
    return "".join(parts)


def tsv_lines(columns: Sequence[tuple[str, str]], rows: Iterator[list[object]]) -> Iterator[str]:
    """A line of names, then one per row."""
    yield "\t".join(tsv_field(name) for name, _ in columns)
    for row in rows:
        yield "\t".join(map(tsv_field, row))


def csv_lines(columns: Sequence[tuple[str, str]], rows: Iterator[list[object]]) -> Iterator[str]:
    """As RFC 4180 says, names first. Nothing stands for NULL."""
    yield _csv([name for name, _ in columns])
    for row in rows:
        yield _csv(["" if value is None else text(value).decode("utf-8", "replace") for value in row])


def _csv(fields: list[str]) -> str:
    """One line. Python's csv module leaves a lone carriage return unquoted, which its own reader takes for the end of the line."""
    return ",".join('"' + field.replace('"', '""') + '"' if _CSV_SPECIAL.search(field) else field for field in fields)


def cell(value: object) -> str:
    """A value in a table on a terminal: quoted where it could do harm there."""
    if isinstance(value, bytes):
        return quote_text(value) if value else ""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(quote_name(item) if isinstance(item, bytes) else cell(item) for item in value) + "]"
    if isinstance(value, str | dict):
        return quote_text(text(value))
    return "" if value is None else text(value).decode()
