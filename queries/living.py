"""Processes that live, with their histories."""

from collections.abc import Iterator, Sequence
from uuid import UUID

from queries import hostnames
from queries.find import KEY, Condition, joined, living, newest, whole_rows
from queries.history import History, fetch_ancestors, is_root, known_of, walk
from queries.rows import Chained, Source, columns, make

AT_ONCE = 5000
"""Living processes whose rows, and those of their ancestors, are held in memory: whole hosts up to this many, or one host."""


def fetch_living(source: Source, conditions: Sequence[Condition] = ()) -> Iterator[History[Chained]]:
    """The history of each living process that fits, host by host in the order of their names, in the order in which they were created.

    Its steps are whole; of its images only those are there that tell a step.
    """
    wanted = [living(), *conditions]
    for some in _portions(source, wanted):
        where, params = joined([*wanted, hostnames.among(some)])
        sql = f"SELECT {columns(Chained)} {whole_rows(where)} ORDER BY host, host_id, start, tgid, exec_id LIMIT 1 BY {KEY}"
        images = list(make(Chained, source.query(sql, params).rows))
        known = _known(source, images)
        for image in images:
            yield walk(image, known)


def _known(source: Source, images: Sequence[Chained]) -> dict[UUID, dict[int, Chained]]:
    """The rows that a walk from these images comes to. Of most of them the creator lives too, and is one of them: where the very image
    that created is at hand, it need not be asked for, and what leads to it is the creator's own concern."""
    known = known_of(images)
    apart = [one for one in images if not is_root(one) and one.creator_exec_id not in known.get(one.creator_id, {})]
    for task_id, rows in fetch_ancestors(source, Chained, apart).items():
        known.setdefault(task_id, {}).update(rows)
    return known


def _portions(source: Source, wanted: Sequence[Condition]) -> Iterator[list[UUID]]:
    """The hosts that have such processes, so many at a time."""
    where, params = joined(wanted)
    found = source.query(f"SELECT host_id, any(host) AS name, count() {newest(where)} GROUP BY host_id ORDER BY name, host_id", params).rows
    portion: list[UUID] = []
    held = 0
    for host_id, _, number in found:
        if portion and held + number > AT_ONCE:
            yield portion
            portion, held = [], 0
        portion.append(host_id)
        held += number
    if portion:
        yield portion
