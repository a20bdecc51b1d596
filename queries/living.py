"""Processes that live, with their histories."""

from collections.abc import Iterator

from queries.history import History, fetch_ancestors, walk
from queries.rows import Chained, Source, fetch
from schemas.rows import EndKind

LIVING = "FINAL WHERE end_kind = 'living' {host_filter} ORDER BY host, start, tgid"
"""Newest rows of images that have not ended. FINAL, for the end is what changes between the rows of one image."""


def fetch_living(source: Source, host: str = "") -> Iterator[History[Chained]]:
    """The history of each living process, in the order in which they began."""
    where = LIVING.replace("{host_filter}", "AND host = {host:String}" if host else "")
    images = [image for image in fetch(source, Chained, where, {"host": host}) if image.end_kind == EndKind.LIVING]
    known = fetch_ancestors(source, Chained, images)
    for image in images:
        yield walk(image, known)
