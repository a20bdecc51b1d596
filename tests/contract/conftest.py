"""One embedded server for the whole session; each module gets its tables empty."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from schemas.rows import Row
from store import migrate
from store.address import Address
from store.connection import Connection
from store.server import Server
from streams.sinks.clickhouse import Sink
from tests.contract.named_store import named_address, private_database


class Store(NamedTuple):
    """A migrated database.

    writer, reader  connections of the two users
    write           stores rows as the real sink does
    addresses       of each role
    server          None where TASKTRAIL_TEST_CLICKHOUSE names another server
    place           what commands take as --store
    """

    writer: Connection
    reader: Connection
    write: Callable[[Sequence[Row]], None]
    addresses: dict[str, Address]
    server: Server | None

    @property
    def place(self) -> str:
        """See the class."""
        if self.server is not None:
            return str(self.server.directory)
        url, one = str(self.addresses["reader"]), self.addresses["reader"]
        return url.replace("@", f":{quote(one.password, safe='')}@", 1)


def no_wait(seconds: float) -> None:
    """Tests do not wait for a server that is there."""


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | None]:
    """The embedded server, None when another one is to be tested."""
    if named_address():
        yield None
        return
    directory = tmp_path_factory.mktemp("store")
    open_path(directory)
    with Server(directory).start() as server:
        yield server


@pytest.fixture(scope="module")
def store(shared_server: Server | None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A freshly migrated database with empty tables."""
    named = named_address()
    with contextlib.ExitStack() as stack:
        if shared_server is None:
            assert named is not None
            addresses = dict.fromkeys(("reader", "writer"), stack.enter_context(private_database(named)))
        else:
            addresses = {role: shared_server.address(role) for role in ("reader", "writer")}
        yield from migrated(addresses, shared_server, tmp_path_factory.mktemp("deadletter"))


def migrated(addresses: dict[str, Address], server: Server | None, deadletter: Path) -> Iterator[Store]:
    """With our tables, which are empty."""
    migrate.apply(addresses["writer"])
    with Connection(addresses["writer"]) as writer, Connection(addresses["reader"]) as reader:
        for table in ("images", "programs", "losses", "hosts"):
            writer.execute(f"TRUNCATE TABLE {table}")
        sink = Sink(lambda: Connection(addresses["writer"]), deadletter, no_wait, lambda: 0.0)
        yield Store(writer, reader, lambda rows: sink.write(rows, "test"), addresses, server)
        sink.close()


def await_end(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process ends in time; a child of ours may still have to be waited for."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)


def kill(server: Server) -> None:
    """kill -9 of the server, which is dead on return."""
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    assert await_end(pid)


def open_path(directory: Path) -> None:
    """Let the server's unprivileged user reach a temporary directory, which pytest closes to all others."""
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
