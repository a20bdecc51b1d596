"""The tables are schemas.rows, and what goes in comes out, byte for byte."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.columns import ALIASES, HOSTS, IMAGES, LOSSES, PROGRAMS, Column
from schemas.identity import cpid
from schemas.rows import ImageRow, LossRow
from tests.contract.conftest import Store
from tests.contract.rows import ENUMS, image, images, loss, losses


def _columns(store: Store, table: str) -> list[tuple[str, str, str]]:
    rows = store.writer.query(
        "SELECT name, type, default_kind FROM system.columns WHERE database = currentDatabase() AND table = {t:String} ORDER BY position",
        {"t": table},
    ).rows
    return [(name.decode(), kind.decode(), default.decode()) for name, kind, default in rows]


def test_tables_are_what_the_row_classes_say(store: Store) -> None:
    stored = [(column.name, column.type, "") for column in IMAGES]
    assert _columns(store, "images") == stored + [(column.name, column.type, "ALIAS") for column in ALIASES]
    assert _columns(store, "losses") == [(column.name, column.type, "") for column in LOSSES]
    assert _columns(store, "hosts") == [(column.name, column.type, "") for column in HOSTS]
    assert _columns(store, "programs") == [(column.name, column.type, "") for column in PROGRAMS]


def _readback(store: Store, table: str, columns: tuple[Column, ...]) -> list[tuple[Any, ...]]:
    rows = store.reader.query(f"SELECT {', '.join(column.name for column in columns)} FROM {table} FINAL").rows
    return [tuple(_as_written(column, value) for column, value in zip(columns, row, strict=True)) for row in rows]


def _as_written(column: Column, value: Any) -> Any:
    """A value that was read, in the shape of the row classes."""
    if column.name in ENUMS:
        kinds = ENUMS[column.name]
        return tuple(kinds[name.upper()].value for name in value) if isinstance(value, list | tuple) else kinds[value.upper()].value
    if isinstance(value, list):
        return tuple(value)
    return int(value) if isinstance(value, bool) else value


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.lists(
        images(), min_size=1, max_size=30, unique_by=lambda row: (row.host_id, row.boot_id, row.start_boottime, row.tgid, row.exec_id)
    ),
    st.lists(losses(), max_size=5, unique_by=lambda row: (row.host_id, row.boot_id, row.ring_id, row.position, row.cause)),
)
def test_any_row_comes_back_as_it_was(store: Store, some_images: list[ImageRow], some_losses: list[LossRow]) -> None:
    for table in ("images", "losses"):
        store.writer.execute(f"TRUNCATE TABLE {table}")
    store.write([*some_images, *some_losses])
    assert sorted(_readback(store, "images", IMAGES)) == sorted(map(tuple, some_images))
    assert sorted(_readback(store, "losses", LOSSES)) == sorted(map(tuple, some_losses))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(images(), min_size=1, max_size=3))
def test_rows_that_hold_the_same_arrays_come_back_as_they_were(store: Store, some_images: list[ImageRow]) -> None:
    """As the many children of few creators do: what they share is packed once."""
    rows = [row._replace(tgid=3 * number + which) for number in range(40) for which, row in enumerate(some_images)]
    assert rows[0].chain_exe is rows[len(some_images)].chain_exe
    store.writer.execute("TRUNCATE TABLE images")
    store.write([*rows])
    assert sorted(_readback(store, "images", IMAGES)) == sorted(map(tuple, rows))


def test_computed_columns(store: Store) -> None:
    rows = [
        image(n, pid_ns=4026531836 + n, ns_pid=7 * n + 1, start_boottime=n * 123456789123 + 9999999, end_kind=n % 2) for n in range(200)
    ]
    rows = [row._replace(duration=n + 1) for n, row in enumerate(rows)]
    store.writer.execute("TRUNCATE TABLE images")
    store.write(rows)
    found = store.reader.query("SELECT tgid, cpid, ended FROM images ORDER BY tgid").rows
    assert found == [
        (row.tgid, cpid(row.boot_id, row.pid_ns, row.start_boottime, row.ns_pid), row.begin + row.duration if row.end_kind else None)
        for row in rows
    ]


def test_the_newest_version_counts_in_whatever_order_rows_come(store: Store) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    old, new = image(1, version=8, comm=b"old"), image(1, version=9, comm=b"new", end_kind=1)
    store.write([new])
    store.write([old])
    store.write([loss(1, version=3, amount=1), loss(1, version=2, amount=2)])
    assert store.reader.query("SELECT comm, end_kind FROM images FINAL").rows == [(b"new", "exit")]
    assert store.reader.query("SELECT comm FROM current_images").rows == [(b"new",)]
    assert store.reader.query("SELECT amount FROM losses FINAL WHERE position = 1").rows == [(1,)]
    store.writer.execute("OPTIMIZE TABLE images FINAL")
    assert store.reader.query("SELECT comm FROM images").rows == [(b"new",)]
