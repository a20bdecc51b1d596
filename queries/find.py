"""Looking for images by any column: conditions, each a piece of SQL with its parameters.

Nothing that a person wrote becomes SQL: values are parameters, column names are looked up in schemas.rows.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID

from queries import programs
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

    programs  the same asked of table programs, with the same parameters; empty where it lacks the columns
    by_name   it asks for programs by their names, which table programs finds quickly
    """

    sql: str
    params: Mapping[str, object]
    programs: str = ""
    by_name: bool = False


def text(column: str, pattern: str) -> Condition:
    """The column's text is this, or fits this pattern. Of an array: one of its elements."""
    kind = TYPES[column]
    if kind.startswith("Array"):
        test = fits("x" if "String" in kind else "toString(x)", pattern)
        return Condition(f"arrayExists(x -> {test.sql}, `{column}`)", test.params)
    plain = kind in ("String", "LowCardinality(String)")
    test = fits(f"`{column}`" if plain else f"toString(`{column}`)", pattern)
    if column == "exe":
        sql, params = programs.of_path(test, pattern)
        return Condition(test.sql, params, sql, True)
    return _simple(column, test.sql, test.params)


def _simple(column: str, sql: str, params: Mapping[str, object]) -> Condition:
    """A condition on one column, which both tables may have."""
    return Condition(sql, params, sql if column in programs.COLUMNS else "")


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
            return _simple(column, f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)})
        same = text(column, _bool(value) if TYPES[column] == "Bool" else value)
        return same if operator == "=" else _simple(column, f"NOT ({same.sql})", same.params)
    if not number or not _NUMBER.fullmatch(value.strip()):
        raise BadInput(f"{written!r} compares what is no number", "use = or != with a text or a pattern")
    return _simple(column, f"`{column}` {operator} {{value#:Int128}}", {"value#": int(value)})


def _bool(value: str) -> str:
    """How ClickHouse writes a Bool."""
    return {"1": "true", "yes": "true", "0": "false", "no": "false"}.get(value.lower(), value.lower())


def comm(pattern: str) -> Condition:
    """Its name at exec, or the last that it took."""
    first, second = text("comm", pattern), text("renamed", pattern)
    sql = f"({first.sql} OR {second.sql})"
    return Condition(sql, first.params, sql, True)


def user(name: str) -> Condition:
    """A user by name or number."""
    if name.isascii() and name.isdigit():
        return _simple("uid", "uid = {value#:UInt64}", {"value#": int(name)})
    return text("user", name)


def began(since_ns: int | None = None, until_ns: int | None = None) -> Iterator[Condition]:
    """The image began in this interval, the end not included."""
    if since_ns is not None:
        yield _simple("begin", "begin >= fromUnixTimestamp64Nano({value#:Int64})", {"value#": since_ns})
    if until_ns is not None:
        yield _simple("begin", "begin < fromUnixTimestamp64Nano({value#:Int64})", {"value#": until_ns})


def created(since_ns: int | None) -> Iterator[Condition]:
    """Its process was created at or after this."""
    if since_ns is not None:
        yield _simple("start", "start >= fromUnixTimestamp64Nano({value#:Int64})", {"value#": since_ns})


def kinds(names: Sequence[str]) -> Condition:
    """One of these kinds."""
    known = [ImageKind[name.upper()].name.lower() for name in names]
    return _simple("kind", "toString(kind) IN ({value#:Array(String)})", {"value#": known})


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
    test = fits("x", pattern)
    if "/" not in pattern:
        return Condition(_inherited(test.sql, "chain_comm"), test.params, programs.above_comm(test), True)
    sql, params = programs.above_path(test, pattern)
    return Condition(_inherited(test.sql, "chain_exe"), params, sql, True)


def _inherited(test: str, column: str) -> str:
    """One of the elements of this column that its process inherited is so."""
    return f"arrayExists((x, id) -> id <= creator_exec_id AND {test}, {column}, chain_exec_id)"


def joined(conditions: Iterable[Condition]) -> tuple[str, dict[str, object]]:
    """All of them as one expression with its parameters."""
    pieces, params = [], dict[str, object]()
    for number, condition in enumerate(conditions):
        pieces.append(condition.sql.replace("#", str(number)))
        params |= {name.replace("#", str(number)): value for name, value in condition.params.items()}
    return " AND ".join(pieces) or "1", params


def of_programs(conditions: Iterable[Condition]) -> str:
    """Those of them that table programs can tell, as one expression with the parameters that ``joined`` gives; empty where none
    asks for a program by its name."""
    numbered = list(enumerate(conditions))
    if not any(condition.by_name for _, condition in numbered):
        return ""
    return " AND ".join(condition.programs.replace("#", str(number)) for number, condition in numbered if condition.programs)


KEY = "host_id, boot_id, start_boottime, tgid, exec_id"
"""What names an image: the tables' sorting key."""


def newest(where: str, candidates: str = "") -> str:
    """``FROM … WHERE …`` of the newest rows of the images whose newest row fits.

    A newest row that fits is also found without FINAL, which reads the columns of the condition alone. What is found so (outdated rows
    among it) says which few stretches of the table FINAL has to read. ``candidates`` is an expression of table programs that holds for
    all rows that fit (see ``candidates``): then that says the same without a look at the rest.
    """
    found = f"SELECT {KEY} FROM programs WHERE {candidates}" if candidates else f"SELECT {KEY} FROM images WHERE {where}"
    return f"FROM images FINAL WHERE ({KEY}) IN ({found}) AND {where}"


STREAM_SETTINGS: Mapping[str, str | int] = {"max_block_size": 8192, "max_threads": 2}
"""Rows are wide: with whole blocks in many threads a query would take hundreds of megabytes."""


def statement(
    shape: type[S], conditions: Sequence[Condition], limit: int | None, candidates: "Candidates | None" = None
) -> tuple[str, dict[str, object]]:
    """The SELECT: newest rows of the images that fit.

    Without a limit in the order of the tables, which is that of the processes' creation on each host and needs no sorting, so that any
    number of rows streams. With one the images that began last, newest first; the rows are read whole only of these. ``candidates`` say
    where to look for them.
    """
    where, params = joined(conditions)
    named = ""
    if candidates:
        named, params = candidates.sql, {**params, **candidates.params}
    if limit is None:
        return f"SELECT {columns(shape)} {newest(where, named)} ORDER BY {KEY}", params
    order = "ORDER BY begin DESC, tgid DESC, exec_id DESC"
    # On a cluster each server chooses so many of its own, so the limit holds for all of them together once more.
    chosen = whole_rows(where, f"{order} LIMIT {{limit:UInt64}}", named)
    return f"SELECT {columns(shape)} {chosen} {order} LIMIT 1 BY {KEY} LIMIT {{limit:UInt64}}", {**params, "limit": limit}


def whole_rows(where: str, choice: str = "", candidates: str = "") -> str:
    """``FROM … WHERE …`` of the newest rows that fit, for few rows of many columns: which they are is found in the columns of
    the condition, and the others are then read of these rows alone. ``choice`` may order and limit them.

    A row that was stored twice lies in the table twice until a merge, so ``LIMIT 1 BY`` the key belongs behind it.
    """
    chosen = f"SELECT {KEY}, version {newest(where, candidates)} {choice}"
    return f"FROM images WHERE ({KEY}, version) IN ({chosen})"


def find(source: Source, shape: type[S], conditions: Sequence[Condition], limit: int | None = None) -> Iterator[S]:
    """Images that fit, streamed, of each host in the order in which their processes were created. With ``limit`` only those that began
    last, in the order in which they began."""
    sql, params = statement(shape, conditions, limit, candidates(source, conditions))
    if limit is not None:
        yield from reversed(list(make(shape, source.query(sql, params).rows)))
        return
    stream = source.stream(sql, params, STREAM_SETTINGS)
    try:
        yield from make(shape, stream)
    finally:
        stream.close()


class Candidates(NamedTuple):
    """An expression of table programs that holds for all images that fit, and for few others, with its parameters."""

    sql: str
    params: Mapping[str, object]


def candidates(source: Source, conditions: Sequence[Condition]) -> Candidates | None:
    """Where to look for images that fit, None where all have to be looked at."""
    where = of_programs(conditions)
    if not where or not programs.ready(source):
        return None
    _, params = joined(conditions)
    places = programs.places(source, where, params)
    return None if places is None else Candidates(f"place IN ({{places:Array(UInt64)}}) AND {where}", {"places": places})
