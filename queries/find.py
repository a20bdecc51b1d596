"""Looking for images by any column: conditions, each a piece of SQL with its parameters.

Nothing that a person wrote becomes SQL: values are parameters, column names are looked up in schemas.rows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from queries.globs import fits
from queries.rows import S, Source, columns, make
from schemas.columns import ALIASES, IMAGES
from schemas.errors import BadInput
from schemas.rows import EndKind, ImageKind

TYPES: Mapping[str, str] = {column.name: column.type for column in (*IMAGES, *ALIASES)}
_COMPARISON = re.compile(r"([a-z_]+)\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d+")


class Condition(NamedTuple):
    """A piece of a WHERE with its parameters.

    ``#`` in the SQL and at the end of the parameters' names becomes a number when conditions are put together.
    """

    sql: str
    params: Mapping[str, object]


def text(column: str, pattern: str) -> Condition:
    """The column's text is this, or fits this pattern. Of an array: one of its elements."""
    kind = TYPES[column]
    if kind.startswith("Array"):
        test = fits("x" if "String" in kind else "toString(x)", pattern)
        return Condition(f"arrayExists(x -> {test.sql}, `{column}`)", test.params)
    plain = kind in ("String", "LowCardinality(String)")
    test = fits(f"`{column}`" if plain else f"toString(`{column}`)", pattern)
    return Condition(test.sql, test.params)


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
            return Condition(f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)})
        same = text(column, _bool(value) if TYPES[column] == "Bool" else value)
        return same if operator == "=" else Condition(f"NOT ({same.sql})", same.params)
    if not number or not _NUMBER.fullmatch(value.strip()):
        raise BadInput(f"{written!r} compares what is no number", "use = or != with a text or a pattern")
    return Condition(f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)})


def _bool(value: str) -> str:
    """How ClickHouse writes a Bool."""
    return {"1": "true", "yes": "true", "0": "false", "no": "false"}.get(value.lower(), value.lower())


def comm(pattern: str) -> Condition:
    """Its name at exec, or the last that it took."""
    first, second = text("comm", pattern), text("renamed", pattern)
    return Condition(f"({first.sql} OR {second.sql})", first.params)


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


def created(since_ns: int | None) -> Iterator[Condition]:
    """Its process was created at or after this."""
    if since_ns is not None:
        yield Condition("start >= fromUnixTimestamp64Nano({value#:Int64})", {"value#": since_ns})


def kinds(names: Sequence[str]) -> Condition:
    """One of these kinds."""
    known = [ImageKind[name.upper()].name.lower() for name in names]
    return Condition("toString(kind) IN ({value#:Array(String)})", {"value#": known})


def living() -> Condition:
    """It had not ended."""
    return Condition("end_kind = {value#:String}", {"value#": EndKind.LIVING.name.lower()})


def lived(begin_ns: int, end_ns: int) -> Iterator[Condition]:
    """It lived at some time of this interval, the end not included."""
    yield Condition("begin < fromUnixTimestamp64Nano({value#:Int64})", {"value#": end_ns})
    yield Condition(
        "(end_kind = 'living' OR begin + toIntervalNanosecond(duration) > fromUnixTimestamp64Nano({value#:Int64}))", {"value#": begin_ns}
    )


class Process(Protocol):
    """The columns that name a process."""

    @property
    def host_id(self) -> UUID: ...
    @property
    def boot_id(self) -> UUID: ...
    @property
    def task_id(self) -> UUID: ...
    @property
    def start_boottime(self) -> int: ...


def under(process: Process) -> Condition:
    """It descends from this process. Nothing of another host or boot can, nor what was there before it: the tables are in this order."""
    return Condition(
        "(host_id = {host#:UUID} AND boot_id = {boot#:UUID} AND start_boottime >= {start#:UInt64} AND has(ancestor_ids, {value#:UUID}))",
        {"host#": process.host_id, "boot#": process.boot_id, "start#": process.start_boottime, "value#": process.task_id},
    )


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


KEY = "host_id, boot_id, start_boottime, tgid, exec_id"
"""What names an image: the tables' sorting key."""


def newest(where: str) -> str:
    """``FROM … WHERE …`` of the newest rows of the images whose newest row fits.

    A newest row that fits is also found without FINAL, which reads the columns of the condition alone. What is found so (outdated rows
    among it) says which few stretches of the table FINAL has to read.
    """
    return f"FROM images FINAL WHERE ({KEY}) IN (SELECT {KEY} FROM images WHERE {where}) AND {where}"


STREAM_SETTINGS: Mapping[str, str | int] = {"max_block_size": 8192, "max_threads": 2}
"""Rows are wide: with whole blocks in many threads a query would take hundreds of megabytes."""


def statement(shape: type[S], conditions: Sequence[Condition], limit: int | None) -> tuple[str, dict[str, object]]:
    """The SELECT: newest rows of the images that fit.

    Without a limit in the order of the tables, which is that of the processes' creation on each host and needs no sorting, so that any
    number of rows streams. With one the images that began last, newest first; the rows are read whole only of these.
    """
    where, params = joined(conditions)
    if limit is None:
        return f"SELECT {columns(shape)} {newest(where)} ORDER BY {KEY}", params
    order = "ORDER BY begin DESC, tgid DESC, exec_id DESC"
    # On a cluster each server chooses so many of its own, so the limit holds for all of them together once more.
    chosen = whole_rows(where, f"{order} LIMIT {{limit:UInt64}}")
    return f"SELECT {columns(shape)} {chosen} {order} LIMIT 1 BY {KEY} LIMIT {{limit:UInt64}}", {**params, "limit": limit}


def whole_rows(where: str, choice: str = "") -> str:
    """``FROM … WHERE …`` of the newest rows that fit, for few rows of many columns: which they are is found in the columns of
    the condition, and the others are then read of these rows alone. ``choice`` may order and limit them.

    A row that was stored twice lies in the table twice until a merge, so ``LIMIT 1 BY`` the key belongs behind it.
    """
    chosen = f"SELECT {KEY}, version {newest(where)} {choice}"
    return f"FROM images WHERE ({KEY}, version) IN ({chosen})"


def find(source: Source, shape: type[S], conditions: Sequence[Condition], limit: int | None = None) -> Iterator[S]:
    """Images that fit, streamed, of each host in the order in which their processes were created. With ``limit`` only those that began
    last, in the order in which they began."""
    sql, params = statement(shape, conditions, limit)
    if limit is not None:
        yield from reversed(list(make(shape, source.query(sql, params).rows)))
        return
    stream = source.stream(sql, params, STREAM_SETTINGS)
    try:
        yield from make(shape, stream)
    finally:
        stream.close()
