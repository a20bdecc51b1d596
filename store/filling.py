"""Puts the rows that were there before a table into it: table programs, which a view fills from images ever since it is there.

It may be given up at any time and gone on with later, and be done from two places at once: rows that come twice count once.
Until it is done nobody may ask the table, see is_done.
"""

import time
from collections.abc import Callable, Mapping

from schemas.errors import Unavailable
from store.connection import INSERT_SETTINGS, Connection

TABLE = "programs"
SETTINGS: Mapping[str, str | int] = {
    **INSERT_SETTINGS,
    "max_threads": 1,
    "max_block_size": 16_384,
    "min_insert_block_size_rows": 131_072,
    "min_insert_block_size_bytes": 64 << 20,
}
"""It runs beside the recorder's own inserts, so it takes little memory and one processor."""
PAUSE_S = 0.1
PATIENCE_S = 600.0

_DONE = "SELECT count() FROM {database}.schema_fills WHERE name = {{name:String}} AND piece = ''"
_PIECES = """SELECT DISTINCT toString(toMonday(start)) AS piece FROM {database}.images{each}
WHERE piece NOT IN (SELECT piece FROM {database}.schema_fills WHERE name = {{name:String}}) ORDER BY piece"""
_INSERTS = "SELECT count() FROM {processes} WHERE query_kind = 'Insert' AND position(query, 'images') > 0 AND elapsed * 1000 > {{ms:Int64}}"


def is_done(connection: Connection, database: str) -> bool:
    """Whether the table has a row for every row of images."""
    return bool(connection.query(_DONE.format(database=database), {"name": TABLE}).rows[0][0])


def is_empty(connection: Connection, database: str, each: str) -> bool:
    """Whether there is nothing to be put into it."""
    return not connection.query(f"SELECT 1 FROM {database}.images{each} LIMIT 1").rows


def fill(connection: Connection, database: str, view: str, each: str) -> None:
    """Put every row of images into the table, the weeks that are recorded as done left out.

    view  the statement that makes the view
    each  "_local" where a server of a cluster is to fill its own table, else empty
    """
    _, _, select = view.partition(" AS\n")
    if not each:
        # Of a cluster, through the Distributed tables: each row comes from and goes to the server of its host.
        select = select.replace("images_local", "images")
    names = ", ".join(name for name, _ in connection.query(f"{select} LIMIT 0").columns)
    for (piece,) in connection.query(_PIECES.format(database=database, each=each), {"name": TABLE}).rows:
        where = f"WHERE toMonday(start) = toDate('{piece.decode()}')"
        connection.execute(f"INSERT INTO {database}.{TABLE}{each} ({names}) {select} {where}", settings=SETTINGS)
        record(connection, database, piece)


def record(connection: Connection, database: str, piece: bytes = b"") -> None:
    """This week is done, or all of them are."""
    connection.insert(f"{database}.schema_fills", ("name", "piece"), [(TABLE.encode(), piece)], "")


def await_inserts(
    connection: Connection, cluster: str, pause: Callable[[float], None], clock: Callable[[], float] = time.monotonic
) -> None:
    """Wait until no insert runs that began before this: it may have begun before the view was there, and its rows not be seen yet.

    Raises Unavailable when one does not end, BadInput for a user who may not look at them.
    """
    processes = f"clusterAllReplicas('{cluster}', system.processes)" if cluster else "system.processes"
    began = time.monotonic()
    while connection.query(_INSERTS.format(processes=processes), {"ms": int((time.monotonic() - began) * 1000)}).rows[0][0]:
        if time.monotonic() - began > PATIENCE_S:
            raise Unavailable(f"an insert into images of {connection.address.host} does not end", "run tasktrail store init later again")
        pause(PAUSE_S)
