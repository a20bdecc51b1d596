r"""Values as JSON, one object per line, ASCII only, nothing lost.

Bytes that are UTF-8 are JSON text. Where a column's value holds bytes that are not, they stand as U+FFFD in the text and the exact
bytes follow in a second field named after the first with ``_hex`` behind it: of a list every element, in lower-case hexadecimal.

    {"comm": "caf\u00e9", "argv": ["ls", "x\ufffd"], "argv_hex": ["6c73", "78ff"]}

So who does not care reads ``argv``, and who does reads ``argv_hex`` where it is there: ``exact`` below. A column whose own name
ends in _hex beside one that it would clash with keeps its value: the twin then has ``_hex`` twice.

Control characters and all that is not ASCII are written as \uXXXX, so a terminal that the lines come to is safe as well.
"""

import json
from collections.abc import Iterable, Mapping
from uuid import UUID

HEX = "_hex"
_NO_BYTES = (str, int, UUID)
_AS_THEY_ARE = frozenset({int, bool, type(None)})


def _is_text(value: object) -> bool:
    """Whether everything in the value is UTF-8."""
    if isinstance(value, bytes):
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True
    if isinstance(value, list | tuple):
        return all(map(_is_text, value))
    if isinstance(value, _NO_BYTES):
        return True
    if isinstance(value, Mapping):
        return all(_is_text(key) and _is_text(item) for key, item in value.items())
    return True


def _plain(value: object) -> object:
    """The value for JSON, bytes as text."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _key(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def _hex(value: object) -> object:
    """The value for JSON, bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key.hex() if isinstance(key, bytes) else str(key): _hex(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hex(item) for item in value]
    return _plain(value)


def as_object(items: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Names and values as an object that ``line`` can write."""
    pairs = list(items)
    names = {name for name, _ in pairs}
    result: dict[str, object] = {}
    for name, value in pairs:
        # What most columns hold needs no second look: an object has some forty of them, and there may be millions of objects.
        kind = type(value)
        if kind in _AS_THEY_ARE or (kind is str and value.isascii()):  # type: ignore[attr-defined]  # it is a str
            result[name] = value
            continue
        result[name] = _plain(value)
        if kind is not UUID and not _is_text(value):
            twin = name + HEX
            while twin in names:
                twin += HEX
            result[twin] = _hex(value)
    return result


def line(value: object) -> str:
    """The object as one line of ASCII, without the line break."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=_default).replace("\x7f", "\\u007f")


def _default(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def exact(parsed: Mapping[str, object], name: str) -> object:
    """The exact bytes of a field of a line that was read again: bytes, or a list of bytes."""
    if name + HEX in parsed:
        return _from_hex(parsed[name + HEX])
    return _from_text(parsed[name])


def _from_hex(value: object) -> object:
    return [_from_hex(item) for item in value] if isinstance(value, list) else bytes.fromhex(str(value))


def _from_text(value: object) -> object:
    return [_from_text(item) for item in value] if isinstance(value, list) else str(value).encode("utf-8")
