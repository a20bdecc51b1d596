"""Processes that live, with their histories."""

from collections.abc import Iterator

from queries.find import joined, living, once, text, whole_rows
from queries.history import History, fetch_ancestors, walk
from queries.rows import Chained, Source, columns, make


def fetch_living(source: Source, host: str = "") -> Iterator[History[Chained]]:
    """The history of each living process, in the order in which they were created."""
    where, params = joined([living(), *([text("host", host)] if host else [])])
    answer = source.query(f"SELECT {columns(Chained)} {whole_rows(where)} ORDER BY host, start, tgid", params)
    images = list(once(make(Chained, answer.rows)))
    known = fetch_ancestors(source, Chained, images)
    for image in images:
        yield walk(image, known)
