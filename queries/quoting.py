"""Names and arguments as a terminal may show them: quoted where they could forge, move or colour anything.

The kernel lets a process choose its name, its arguments and its paths: any bytes but NUL. What is shown is one of

    plain       the bytes are UTF-8 and every character is harmless
    'in quotes' every character is harmless, but some have a meaning in a chain or in a shell
    $'…'        all else; bytes that are not harmless are written \\xNN, a quote \\', a backslash \\\\

which is how bash, zsh and ksh read them, so that a command line can be pasted and nothing in it is expanded. Each form is the
only one for its bytes, ``unquote`` takes it back, and in none of them can a ``(``, a ``>`` or a line break stand outside of quotes.

Harmless are printable ASCII, and outside of it letters, digits and marks after them that are written from left to right: letters of
right-to-left scripts reorder what stands beside them on a terminal that knows bidirectional text, and signs and punctuation of
Unicode hold look-alikes of quotes and brackets. JSON output has them all as they are.
"""

import re
import unicodedata

_LETTERS = frozenset({"Lu", "Ll", "Lt", "Lo", "Nd"})
_MARKS = frozenset({"Mn", "Mc"})
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Hangul fillers: letters by category, but nothing is to be seen of them."""

_NAME = re.compile(r"(?! )[^()<>'\"`$\\;|&*?\[\]{}=,…\t\n\r\v\f\x00-\x1f\x7f]*(?<! )")
_ARGUMENT = re.compile(r"[^\x00-\x20\x7f()<>'\"`$\\;|&*?\[\]{}!#~^]*")
_TEXT = re.compile(r"(?!'|\$'| )[^\x00-\x1f\x7f]*(?<! )")
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(['\\]))")

UNKNOWN = "?"
"""Stands for a name that is not known. A process that calls itself so is shown as '?'."""
CUT = "…"
"""Stands for what is left out to fit the line. In a name it is written in bytes."""


def _harmless(text: str) -> list[bool]:
    """For each character whether it may be shown as it is."""
    result = []
    after_letter = False
    for char in text:
        if char.isascii():
            good = " " <= char <= "~"
            after_letter = char.isalnum()
        else:
            category = unicodedata.category(char)
            mark = category in _MARKS and after_letter
            after_letter = mark or (category in _LETTERS and char not in _BLANK_LETTERS)
            good = after_letter and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT
            after_letter = good
        result.append(good)
    return result


def _quoted(data: bytes, plain: re.Pattern[str]) -> str:
    """The one form of these bytes, plain where ``plain`` allows it."""
    text = data.decode("utf-8", "surrogateescape")
    harmless = _harmless(text)
    if all(harmless):
        if text and plain.fullmatch(text):
            return text
        if "'" not in text:
            return f"'{text}'"
    parts = []
    for char, good in zip(text, harmless, strict=True):
        if good:
            parts.append("\\" + char if char in "'\\" else char)
        else:
            parts.extend(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
    return "$'" + "".join(parts) + "'"


def quote_name(name: bytes) -> str:
    """A comm, path or user name for a terminal. Single spaces inside stay: ``tmux: server``."""
    return _quoted(name, _NAME)


def quote_argument(argument: bytes) -> str:
    """One argument for a terminal and for a shell: what a shell would split or expand is in quotes."""
    return _quoted(argument, _ARGUMENT)


def quote_text(data: bytes) -> str:
    """Any text for a place of its own, such as a cell of a table: brackets and spaces have no meaning there and stay."""
    return _quoted(data, _TEXT)


def command_line(argv: tuple[bytes, ...]) -> str:
    """Arguments as one line that a shell would take apart into the same arguments."""
    return " ".join(map(quote_argument, argv))


def unquote(shown: str) -> bytes:
    """The bytes that quote_name, quote_argument or quote_text was given. Raises ValueError for what neither gives out."""
    if shown.startswith("$'") and shown.endswith("'") and len(shown) >= 3:
        inner = shown[2:-1].encode("utf-8")
        data = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else found[2], inner)
    elif shown.startswith("'") and shown.endswith("'") and len(shown) >= 2:
        data = shown[1:-1].encode("utf-8")
    else:
        data = shown.encode("utf-8")
    if shown not in (quote_name(data), quote_argument(data), quote_text(data)):
        raise ValueError(f"not a quoted name: {shown!r}")
    return data
