"""On which hosts programs ran, how often, and when first and last."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from queries import find, programs
from queries.find import Condition
from queries.rows import Source


class Runs(NamedTuple):
    """Images of one host that fit.

    host_id  the host
    host     its name in the newest of them
    images   how many
    first    when the first of them began, nanoseconds since 1970
    last     when the last of them began
    """

    host_id: UUID
    host: bytes
    images: int
    first: int
    last: int


_SHAPE = "host_id, argMax(host, version) AS name, count() AS images, min(begin) AS earliest, max(begin) AS latest"
_ORDER = "GROUP BY host_id ORDER BY images DESC, name, host_id"
_NEWEST_THERE = """FROM (
    SELECT host_id, host, begin, version, {where} AS fits FROM programs WHERE place IN ({{places:Array(UInt64)}})
    ORDER BY version DESC LIMIT 1 BY {key}
) WHERE fits"""
"""Every row of these places is read, so that a newer one that does not fit takes back an older one that does."""


def per_host(source: Source, conditions: Sequence[Condition]) -> list[Runs]:
    """Of each host with images that fit, the one with the most first.

    Table programs tells it alone where it has all columns that are asked for; where it has not, it may name the candidates.
    """
    where, params = find.joined(conditions)
    found = find.candidates(source, conditions)
    if found:
        params |= found.params
    if not _told(source, conditions):
        rows = find.newest(where, found.sql if found else "")
    elif found:
        rows = _NEWEST_THERE.format(where=find.of_programs(conditions), key=find.KEY)
    else:
        rows = f"FROM programs FINAL WHERE {find.of_programs(conditions)}"
    return [Runs(*row) for row in source.query(f"SELECT {_SHAPE} {rows} {_ORDER}", params).rows]


def _told(source: Source, conditions: Sequence[Condition]) -> bool:
    """Whether table programs can tell all of it."""
    by_name = any(condition.by_name for condition in conditions)
    return by_name and all(condition.programs for condition in conditions) and programs.ready(source)
