"""Table programs: what questions by name ask first.

Its indexes hold names as they are, and of paths the last part, the base name. So a pattern of a path such as ``*/curl`` is told by its
base name where that has none of a pattern's signs.
"""

from collections.abc import Mapping

from queries.globs import Test, is_glob
from queries.rows import Params, Source
from schemas.columns import PROGRAMS

COLUMNS = frozenset(column.name for column in PROGRAMS)
FEW = 10_000
"""Places of which a list is made; with more, a look at all rows is not much slower."""

_BASE = "arrayElement(splitByChar('/', {path}), -1)"
_READY = "SELECT count() FROM schema_fills WHERE name = 'programs' AND piece = ''"
_THERE = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'schema_fills'"


def ready(source: Source) -> bool:
    """Whether the table is there and has a row for every row of images: not in a store that an older version of the program made."""
    return bool(source.query(_THERE).rows[0][0] and source.query(_READY).rows[0][0])


def places(source: Source, where: str, params: Params) -> list[int] | None:
    """Where the table has rows that are so, outdated ones among them; None where that is in many places."""
    rows = source.query(f"SELECT DISTINCT place FROM programs WHERE {where} LIMIT {FEW + 1}", params).rows
    return None if len(rows) > FEW else sorted(place for (place,) in rows)


def base_name(pattern: str) -> str | None:
    """The last part of every path that fits the pattern, None where that is not one text. A text without a slash is its own."""
    base = pattern.rpartition("/")[2]
    return None if is_glob(base) or "[" in pattern else base


def of_path(test: Test, pattern: str) -> tuple[str, Mapping[str, object]]:
    """SQL and parameters of a test of exe that the index helps."""
    base = base_name(pattern)
    if base is None:
        return test.sql, test.params
    return f"({test.sql} AND {_BASE.format(path='exe')} = {{base#:String}})", {**test.params, "base#": base}


def above_comm(test: Test) -> str:
    """The test of ``x`` holds for a program above."""
    return f"arrayExists(x -> {test.sql}, above_comm)"


def above_path(test: Test, pattern: str) -> tuple[str, Mapping[str, object]]:
    """SQL and parameters of a test of ``x`` for an executable above, that the index helps."""
    exists = f"arrayExists(x -> {test.sql}, above_exe)"
    base = base_name(pattern)
    if base is None:
        return exists, test.params
    names = f"arrayMap(path -> {_BASE.format(path='path')}, above_exe)"
    return f"(has({names}, {{base#:String}}) AND {exists})", {**test.params, "base#": base}
