"""The sink against a real server: every row once, whatever dies in between."""

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import BadInput, Unavailable
from schemas.rows import EndKind, ImageKind, ImageRow
from store import migrate
from store.connection import Connection, Unstorable
from store.server import Server
from streams.sinks.clickhouse import ROWS_MAX, Sink
from tests.contract.conftest import Store, kill, no_wait, open_path
from tests.contract.named_store import needs_its_own_clickhouse
from tests.contract.rows import image, loss

WEEK = 7 * 86_400 * 10**9


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, which is killed a lot."""
    needs_its_own_clickhouse("kills its server")
    path = tmp_path_factory.mktemp("own")
    open_path(path)
    with Server(path / "store").start() as started:
        migrate.apply(started.address("writer"))
        yield started


def _sink(store: Store, path: Path) -> Sink:
    return Sink(lambda: Connection(store.addresses["writer"]), path, no_wait, lambda: 0.0)


def test_rows_written_again_count_once(store: Store, tmp_path: Path) -> None:
    rows = [image(n, start=image(n).start + n % 3 * WEEK) for n in range(100)] + [loss(n) for n in range(10)]
    _sink(store, tmp_path).write(rows, "token")
    _sink(store, tmp_path).write(rows, "token")
    assert store.reader.query("SELECT count() FROM images FINAL").rows == [(100,)]
    assert store.reader.query("SELECT count() FROM losses FINAL").rows == [(10,)]
    for table in ("images", "losses"):
        store.writer.execute(f"OPTIMIZE TABLE {table} FINAL")
    assert store.reader.query("SELECT count() FROM images").rows == [(100,)]
    assert store.reader.query("SELECT count() FROM losses").rows == [(10,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can reach into the server's files")
def test_a_repeat_is_stored_when_the_server_was_killed_before_its_part_was_in_place(server: Server, tmp_path: Path) -> None:
    """What a kill between the server's note of the token and the rename of the part leaves: the one without the other."""
    with Connection(server.address("writer")) as writer:
        writer.execute("TRUNCATE TABLE images")
        writer.insert("images", image(0)._fields, [image(1)], "token")
        (path,) = writer.query("SELECT path FROM system.parts WHERE table = 'images' AND active").rows[0]
        kill(server)
        server.revive()
        kill(server)
        shutil.rmtree(path)
        server.revive()
        writer.insert("images", image(0)._fields, [image(1)], "token")
        assert writer.query("SELECT count() FROM images").rows == [(1,)]


def test_other_rows_under_the_same_token_are_stored(store: Store, tmp_path: Path) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    sink = _sink(store, tmp_path)
    sink.write([image(1)], "token")
    sink.write([image(2)], "token")
    assert store.reader.query("SELECT count() FROM images").rows == [(2,)]


def test_enum_members_are_stored_as_their_values(store: Store, tmp_path: Path) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    _sink(store, tmp_path).write([image(1, kind=ImageKind.SEEN, end_kind=EndKind.GONE, chain_kind=(ImageKind.UNKNOWN,))], "token")
    assert store.reader.query("SELECT kind, end_kind, chain_kind FROM images").rows == [("seen", "gone", ["unknown"])]


def test_living_processes_of_many_weeks_are_one_write(store: Store, tmp_path: Path) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    # More weeks than the partitions that a server takes in one insert by default.
    sink = _sink(store, tmp_path)
    sink.write([image(n, start=(n + 1) * WEEK) for n in range(120)], "token")
    assert store.reader.query("SELECT count(), uniqExact(_partition_id) FROM images FINAL").rows == [(120, 120)], sink.problem


@pytest.mark.parametrize(
    "bad", [{"exit_code": 256}, {"comm": None}, {"tgid": -1}, {"task_id": 7}, {"argv": 5}, {"kind": 9}, {"chain_tgid": (b"x",)}]
)
def test_a_row_that_can_never_be_stored_is_kept_aside(store: Store, tmp_path: Path, bad: dict[str, Any]) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    rows = [image(n, **(bad if n == 37 else {})) for n in range(100)]
    sink = _sink(store, tmp_path)
    sink.write(rows, "token")
    sink.write(rows, "token")
    assert store.reader.query("SELECT count(), countIf(tgid = 1037) FROM images FINAL").rows == [(99, 0)]
    (kept,) = tmp_path.iterdir()
    assert "ImageRow(" in kept.read_text() and sink.dead == 1


def test_a_table_that_is_not_there_stops_the_writer(store: Store, tmp_path: Path) -> None:
    address = store.addresses["writer"]._replace(database="system")
    sink = Sink(lambda: Connection(address), tmp_path, no_wait, lambda: 0.0)
    with pytest.raises(BadInput) as refusal:
        sink.write([image(1)], "token")
    assert not isinstance(refusal.value, Unstorable) and not list(tmp_path.iterdir())


def test_writers_wait_for_a_server_that_is_away(server: Server, tmp_path: Path) -> None:
    """The server is killed before each write; ``wait`` starts it again, as the loop of run does."""

    def wait(seconds: float) -> None:
        server.revive()

    with Connection(server.address("writer")) as writer:
        writer.execute("TRUNCATE TABLE images")
    sink = Sink(lambda: Connection(server.address("writer")), tmp_path, wait, lambda: 0.0)
    for n in range(3):
        kill(server)
        sink.write([image(n)], "token")
    assert sink.retries >= 3
    with Connection(server.address("reader")) as reader:
        assert reader.query("SELECT count() FROM images FINAL").rows == [(3,)]


def test_a_budget_ends_the_patience(tmp_path: Path) -> None:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += seconds

    def connect() -> Connection:
        raise Unavailable("away")

    sink = Sink(connect, tmp_path, wait, lambda: now[0], budget_s=10.0)
    with pytest.raises(Unavailable):
        sink.write([image(1)], "token")
    assert 8.0 <= now[0] <= 10.0


def test_killed_in_mid_insert_nothing_is_lost_and_nothing_doubled(server: Server, tmp_path: Path) -> None:
    """kill -9 at a different moment of each of twelve inserts, over three partitions."""
    with Connection(server.address("writer")) as writer:
        writer.execute("TRUNCATE TABLE images")
    batches = [_batch(number) for number in range(12)]

    def wait(seconds: float) -> None:
        server.revive()

    sink = Sink(lambda: Connection(server.address("writer")), tmp_path, wait, lambda: 0.0)
    for number, rows in enumerate(batches):
        killer = threading.Timer(0.004 * number, kill, (server,))
        killer.start()
        sink.write(rows, f"batch {number}")
        killer.join()
        server.revive()
    assert sink.retries >= 3, "the server was not killed in time"
    with Connection(server.address("reader")) as reader:
        rows = sum(map(len, batches))
        assert reader.query("SELECT count(), uniqExact(tgid) FROM images FINAL").rows == [(rows, rows)]


def _batch(number: int) -> list[ImageRow]:
    size = 1000
    return [image(n, start=image(n).start + n % 3 * WEEK) for n in range(number * size, (number + 1) * size)]


def test_more_rows_than_one_insert_takes(store: Store, tmp_path: Path) -> None:
    store.writer.execute("TRUNCATE TABLE images")
    _sink(store, tmp_path).write([image(n) for n in range(ROWS_MAX + 1)], "token")
    assert store.reader.query("SELECT count() FROM images").rows == [(ROWS_MAX + 1,)]


def _fill(ballast: Path) -> None:
    """Take all that is left of the disk."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 12))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_holds_rows_back_and_loses_none(tmp_path: Path) -> None:
    needs_its_own_clickhouse("fills its disk")
    open_path(tmp_path)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=711", "tmpfs", str(disk)], check=True)
    try:
        with Server(disk / "store") as server:
            migrate.apply(server.address("writer"))
            sink = Sink(lambda: Connection(server.address("writer")), tmp_path, no_wait, lambda: 0.0, budget_s=0.01)
            sink.write([image(n) for n in range(100)], "before")
            ballast = disk / "ballast"
            _fill(ballast)
            rows = [image(n, argv=(os.urandom(2000),)) for n in range(100, 1000)]
            with pytest.raises(Unavailable, match=r"did not take rows: .*(space|SPACE)"):
                sink.write(rows, "full")
            assert sink.dead == 0
            ballast.unlink()
            sink.write(rows, "full")
            with Connection(server.address("reader")) as reader:
                assert reader.query("SELECT count() FROM images FINAL").rows == [(1000,)]
            assert server.alive()
        _fill(ballast)
        with pytest.raises(Unavailable, match="disk is full"):
            Server(disk / "store").start()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
