"""Looking for images by any column: conditions, each a piece of SQL with its parameters.

Nothing that a person wrote becomes SQL: values are parameters, column names are looked up in schemas.rows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from queries.globs import fits
from queries.rows import S, Source, columns, make
from schemas.errors import BadInput
from schemas.rows import ALIASES, IMAGES, EndKind, ImageKind

TYPES: Mapping[str, str] = {column.name: column.type for column in (*IMAGES, *ALIASES)}
_COMPARISON = re.compile(r"([a-z_]+)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+")


class Condition(NamedTuple):
    """A piece of a WHERE with its parameters, and whether what it looks at may change between the rows of one image.

    ``#`` in the SQL and at the end of the parameters' names becomes a number when conditions are put together.
    """

    sql: str
    params: Mapping[str, object]
    changes: bool = False


CHANGING = frozenset({"duration", "end_kind", "exit_code", "exit_signal", "core_dumped", "exec_failed", "utime", "stime", "max_rss_kib"})
"""Columns that an image's last row fills; only the newest row may be asked for them."""
_CHANGING_TOO = CHANGING | {"ended", "end_parent_tgid", "renamed", "seen", "version", "flags", "kind"}


def text(column: str, pattern: str) -> Condition:
    """The column's text is this, or fits this pattern. Of an array: one of its elements."""
    kind = TYPES[column]
    changes = column in _CHANGING_TOO
    if kind.startswith("Array"):
        test = fits("x" if "String" in kind else "toString(x)", pattern)
        return Condition(f"arrayExists(x -> {test.sql}, `{column}`)", test.params, changes)
    plain = kind in ("String", "LowCardinality(String)")
    test = fits(f"`{column}`" if plain else f"toString(`{column}`)", pattern)
    return Condition(test.sql, test.params, changes)


def comparison(written: str) -> Condition:
    """``COLUMN=GLOB``, ``COLUMN!=GLOB``, or a number behind ``< <= > >=``. Raises BadInput for a column that is not there."""
    found = _COMPARISON.fullmatch(written)
    if not found:
        raise BadInput(f"condition {written!r} is not understood", "write COLUMN=VALUE, such as uid=0 or 'max_rss_kib>100000'")
    column, operator, value = found.groups()
    if column not in TYPES:
        raise BadInput(f"images have no column {column!r}", f"there are {', '.join(TYPES)}")
    number = TYPES[column].startswith(("UInt", "Int"))
    if operator in ("=", "!="):
        if number and _NUMBER.fullmatch(value.strip()):
            return Condition(f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)}, column in _CHANGING_TOO)
        same = text(column, _bool(value) if TYPES[column] == "Bool" else value)
        return same if operator == "=" else Condition(f"NOT ({same.sql})", same.params, same.changes)
    if not number or not _NUMBER.fullmatch(value.strip()):
        raise BadInput(f"{written!r} compares what is no number", "use = or != with a text or a pattern")
    return Condition(f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)}, column in _CHANGING_TOO)


def _bool(value: str) -> str:
    """How ClickHouse writes a Bool."""
    return {"1": "true", "yes": "true", "0": "false", "no": "false"}.get(value.lower(), value.lower())


def comm(pattern: str) -> Condition:
    """Its name at exec, or the last that it took."""
    first, second = text("comm", pattern), text("renamed", pattern)
    return Condition(f"({first.sql} OR {second.sql})", first.params, True)


def user(name: str) -> Condition:
    """A user by name or number."""
    if name.isascii() and name.isdigit():
        return Condition("uid = {value#:UInt64}", {"value#": int(name)})
    return text("user", name)


def began(since_ns: int | None = None, until_ns: int | None = None) -> Iterator[Condition]:
    """The image began in this interval, the end not included."""
    if since_ns is not None:
        yield Condition("begin >= fromUnixTimestamp64Nano({value#:Int64})", {"value#": since_ns})
    if until_ns is not None:
        yield Condition("begin < fromUnixTimestamp64Nano({value#:Int64})", {"value#": until_ns})


def kinds(names: Sequence[str]) -> Condition:
    """One of these kinds."""
    known = [ImageKind[name.upper()].name.lower() for name in names]
    return Condition("toString(kind) IN ({value#:Array(String)})", {"value#": known}, True)


def living() -> Condition:
    """It had not ended."""
    return Condition("end_kind = {value#:String}", {"value#": EndKind.LIVING.name.lower()}, True)


def under(task_id: UUID) -> Condition:
    """It descends from this process."""
    return Condition("has(ancestor_ids, {value#:UUID})", {"value#": task_id})


def under_name(pattern: str) -> Condition:
    """It descends from a program of that name (comm), or with a slash of that executable: one on the part of its chain that its
    process inherited. Descendants of its own earlier programs are not meant."""
    column = "chain_exe" if "/" in pattern else "chain_comm"
    test = fits("x", pattern)
    return Condition(f"arrayExists((x, id) -> id <= creator_exec_id AND {test.sql}, {column}, chain_exec_id)", test.params)


def joined(conditions: Iterable[Condition]) -> tuple[str, dict[str, object]]:
    """All of them as one expression with its parameters."""
    pieces, params = [], dict[str, object]()
    for number, condition in enumerate(conditions):
        pieces.append(condition.sql.replace("#", str(number)))
        params |= {name.replace("#", str(number)): value for name, value in condition.params.items()}
    return " AND ".join(pieces) or "1", params


KEY = "(host_id, boot_id, start_boottime, tgid, exec_id)"


def statement(shape: type[S], conditions: Sequence[Condition], limit: int | None) -> tuple[str, dict[str, object]]:
    """The SELECT: newest rows of the images that fit, oldest first; with ``limit`` only the newest ones.

    Conditions on columns that never change are looked up first without FINAL, which reads these columns alone; the newest rows are
    then read only where something was found.
    """
    lasting = [condition for condition in conditions if not condition.changes]
    everything, params = joined(conditions)
    where = everything
    if lasting:
        first = joined(condition if not condition.changes else Condition("1", {}) for condition in conditions)[0]
        where = f"{KEY} IN (SELECT {KEY[1:-1]} FROM images WHERE {first}) AND {everything}"
    order = "ORDER BY begin DESC, tgid DESC, exec_id DESC LIMIT {limit:UInt64}" if limit is not None else "ORDER BY begin, tgid, exec_id"
    sql = f"SELECT {columns(shape)} FROM images FINAL WHERE {where} {order}"
    return sql, params if limit is None else {**params, "limit": limit}


def find(source: Source, shape: type[S], conditions: Sequence[Condition], limit: int | None = None) -> Iterator[S]:
    """Images that fit, oldest first, streamed. With ``limit`` the newest ones, still oldest first."""
    sql, params = statement(shape, conditions, limit)
    if limit is not None:
        yield from reversed(list(make(shape, source.query(sql, params).rows)))
        return
    stream = source.stream(sql, params)
    try:
        yield from make(shape, stream)
    finally:
        stream.close()
