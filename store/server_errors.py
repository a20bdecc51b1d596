"""What a ClickHouse's error numbers mean to us, and its messages as one sentence."""

import re

from schemas.errors import BadInput, TasktrailError, Unavailable


class Unstorable(BadInput):
    """At least one of the rows given can never be stored: wrong type, out of range, or refused by a constraint."""


class TooMuch(Unavailable):
    """The server lacks the memory for so many rows at once; it may take fewer."""


MEMORY = 241

UNSTORABLE = frozenset({6, 26, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349, 376, 441, 469, 691})
"""An insert that ends so would end so again: the value cannot be parsed, converted or is refused by a constraint."""

REFUSED = frozenset({16, 20, 47, 48, 60, 62, 81, 115, 164, 192, 193, 194, 195, 291, 344, 452, 497, 516, 701})
"""Unknown table, database, column, cluster or user, wrong password or network, no right, a setting or feature that is not allowed: trying
again helps nobody."""

COLUMNS = frozenset({16, 20, 47})
"""A column that is not there: the tables are of another version."""

LIMITED = {
    158: "it would read too many rows",
    159: "it takes longer than allowed",
    160: "it takes longer than allowed",
    241: "it needs more memory than allowed",
    307: "it would read too many bytes",
    396: "its result is larger than allowed",
}

DOWN = frozenset({202, 203, 209, 210, 225, 236, 242, 243, 279, 285, 319, 425, 439, 999})
"""The server cannot now: full disk, too many queries, network, replicas or keeper away, shutting down."""

SENTENCE_MAX = 400
"""Characters of a server's message that are shown; it may name every column of a table."""

_NOISE = re.compile(r"\b(DB|Poco|std)::[\w:]*[Ee]xception[:.] ")
_TAIL = re.compile(r"\s*(Stack trace:|\(version \d|\. Expected one of:|: While executing |: while executing ).*", re.DOTALL)
_NAME = re.compile(r"\s*\([A-Z][A-Z_]{3,}\)\s*$")


def sentence(message: str) -> str:
    """The server's message without stack trace, version, exception names and line breaks."""
    text = _TAIL.sub("", _NOISE.sub("", message))
    line = " ".join(_NAME.sub("", text).split()).rstrip(". ")
    return line if len(line) <= SENTENCE_MAX else line[:SENTENCE_MAX] + "..."


def failure(code: int | None, message: str, server: str, inserting: bool) -> TasktrailError:
    """The failure that a server's exception is to us.

    An insert whose error is not known counts as Unavailable: rows are held back and tried again, never dropped.
    """
    text = sentence(message)
    if inserting:
        if code in UNSTORABLE:
            return Unstorable(f"rows cannot be stored: {text}")
        if code not in REFUSED:
            return (TooMuch if code == MEMORY else Unavailable)(f"store {server} did not take rows: {text}")
    elif code == 159 and "Distributed DDL task" in message:
        return Unavailable(f"not all servers of the cluster have done it yet: {text}", "they will when they are back; then run it again")
    elif code in LIMITED:
        return BadInput(f"the query was stopped, {LIMITED[code]}: {text}", "ask for less: a shorter time, fewer hosts, or LIMIT")
    elif code in DOWN:
        return Unavailable(f"store {server} cannot answer now: {text}")
    if code in (192, 193, 194, 516):
        return BadInput(f"store {server} refuses the user or password", "see tasktrail store info, or set TASKTRAIL_PASSWORD")
    if code == 81:
        return BadInput(f"store {server} has no database of ours: {text}", "make it with tasktrail store init")
    if inserting and code in COLUMNS:
        return BadInput(f"the tables of store {server} are of another version: {text}", "bring them to this one with tasktrail store init")
    return BadInput(text)
