"""The ClickHouse under the workers killed, hanging, cut off, refusing, full: they wait, say so, and no row is missing or another."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cluster import Cluster
from store.address import Address
from store.connection import Connection
from store.server import Server
from tests.contract.conftest import kill
from tests.contract.named_store import named_address, needs_its_own_clickhouse
from tests.e2e.running import open_directory, tmpfs, wait_until
from tests.fleet.kafka_for_tests import private
from tests.fleet.store_wire import StoreWire
from tests.fleet.streaming import Fleet, Known, Load, Parts, Worker, addresses_of, known, pause, prepare, started_fleet


@pytest.fixture(scope="module")
def parts(kafka_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Parts]:
    """With a ClickHouse that may be killed, unless another one is named."""
    with contextlib.ExitStack() as stack:
        server = None
        if named_address():
            addresses: dict[str, Address] = request.getfixturevalue("addresses")
        else:
            server = stack.enter_context(Server(stack.enter_context(open_directory()) / "store"))
            addresses = addresses_of(server)
        made = Parts(None, private(kafka_cluster), server, addresses)
        prepare(made)
        yield made


def in_trouble(worker: Worker) -> None:
    """Until it says that the store does not take rows."""
    try:
        wait_until(lambda: worker.metrics().get("tasktrail_worker_store_well") == 0, "trouble with the store", 240)
    except AssertionError as late:
        late.add_note(f"{worker.said()}\n{worker.metrics()}")
        raise


def running(fleet: Fleet, sent: Known, seconds: float) -> tuple[Worker, Load]:
    """A worker that has stored rows of what is sent over so many seconds, of which there is more to come."""
    worker = fleet.start_worker()
    fleet.ready(worker)
    load = fleet.load(sent.messages, seconds)
    try:
        wait_until(lambda: worker.number("worker_rows_stored"), "rows in the store", 240)
    except AssertionError as late:
        late.add_note(f"{worker.said()}\n{worker.metrics()}")
        raise
    assert load.is_alive()
    return worker, load


def server_of(fleet: Fleet) -> Server:
    """The store's server, which is ours."""
    needs_its_own_clickhouse("kills it or lets it hang")
    assert fleet.parts.server is not None
    fleet.parts.server.revive()  # whatever a test before has left
    return fleet.parts.server


def test_a_store_killed_and_away_for_half_a_minute(fleet: Fleet) -> None:
    server, sent = server_of(fleet), known(300)
    worker, load = running(fleet, sent, 40)
    kill(server)
    in_trouble(worker)
    pause(30)
    assert server.revive()
    load.all_sent()
    fleet.check(sent)
    assert worker.lives() and worker.number("worker_store_retries")


def test_a_store_that_hangs_for_half_a_minute(fleet: Fleet) -> None:
    server, sent = server_of(fleet), known(310)
    worker, load = running(fleet, sent, 40)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        pause(30)
        other = fleet.start_worker()  # the group changes while rows are stuck
        fleet.ready(other)
    finally:
        os.kill(server.pid, signal.SIGCONT)
    load.all_sent()
    fleet.check(sent)
    assert worker.lives() and other.lives(), fleet.said()


def test_a_worker_that_is_to_end_while_the_store_hangs_ends(fleet: Fleet) -> None:
    server, sent = server_of(fleet), known(320)
    worker, load = running(fleet, sent, 10)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        load.all_sent()
        assert worker.stop(15) == 0, worker.said()
    finally:
        os.kill(server.pid, signal.SIGCONT)
    fleet.start_worker()
    fleet.check(sent)


def test_connections_cut_after_rows_were_sent(fleet: Fleet) -> None:
    writer = fleet.parts.addresses["writer"]
    sent, wire = known(330), StoreWire(writer.port, writer.host)
    fleet.store_host, fleet.store_port = "127.0.0.1", wire.port
    worker, load = running(fleet, sent, 15)
    wire.cuts = 12
    load.all_sent()
    fleet.check(sent)
    assert wire.cut >= 5, wire.cut
    assert worker.number("worker_store_retries") >= wire.cut
    wire.close()


def test_too_many_parts_are_waited_for(fleet: Fleet) -> None:
    sent = known(340)
    worker, load = running(fleet, sent, 15)
    with Connection(fleet.parts.addresses["writer"]) as writer:
        writer.execute("ALTER TABLE images MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1")
        try:
            in_trouble(worker)
            load.all_sent()
            wait_until(lambda: "rows wait" in worker.said(), f"the reason being told: {worker.said()}")
            assert fleet.uncommitted()
        finally:
            writer.execute("ALTER TABLE images RESET SETTING parts_to_throw_insert, parts_to_delay_insert")
    fleet.check(sent)
    wait_until(lambda: worker.said().endswith("takes rows again\n"), f"its end being told: {worker.said()}")
    assert worker.said().count("rows wait") == 1 and "arts" in worker.said()
    assert worker.lives()


@pytest.fixture
def small_fleet(own_cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Fleet, Path]]:
    """A fleet whose store lies on a small disk."""
    needs_its_own_clickhouse("fills its disk")
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(tmpfs(stack.enter_context(open_directory()) / "small", "200m"))
        server = stack.enter_context(Server(small / "store"))
        made = Parts(None, own_cluster, server, addresses_of(server))
        prepare(made)
        yield stack.enter_context(started_fleet(made, tmp_path)), small


def test_a_full_disk_is_waited_for(small_fleet: tuple[Fleet, Path]) -> None:
    fleet, small = small_fleet
    sent = known(350)
    worker, load = running(fleet, sent, 15)
    filler = small / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(1 << 16))
    in_trouble(worker)
    load.all_sent()
    assert fleet.uncommitted()
    filler.unlink()
    fleet.check(sent)
    assert worker.lives()


def test_a_store_without_tables_is_told_and_nothing_is_taken(fleet: Fleet) -> None:
    sent = known(360)
    writer = fleet.parts.addresses["writer"]
    with Connection(writer) as connection:
        connection.execute("RENAME TABLE images TO elsewhere")
        try:
            worker = fleet.start_worker()
            fleet.produce(sent.messages)
            assert worker.process.wait(60) == 70, worker.said()
            assert "images" in worker.said()
        finally:
            connection.execute("RENAME TABLE elsewhere TO images")
    fleet.start_worker()
    fleet.check(sent)
