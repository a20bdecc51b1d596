"""Two embedded servers as one cluster: each has what the other has not."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from store import layout
from store.address import Address
from store.server import Ports, Server
from tests.contract.conftest import open_path
from tests.contract.named_store import needs_its_own_clickhouse

CLUSTER = "fleet"
ADMIN = "administrator"
PASSWORD = "for this test"

_CLUSTER = """<clickhouse>
    <remote_servers><{name}><secret>of the servers</secret>{shards}</{name}></remote_servers>
</clickhouse>
"""
_SHARD = "<shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>"
_USERS = """<clickhouse>
    <users><{name}>
        <password>{password}</password><profile>default</profile><quota>default</quota>
        <networks><ip>127.0.0.1</ip></networks><access_management>1</access_management>
    </{name}></users>
</clickhouse>
"""


class Servers(NamedTuple):
    """The cluster's servers."""

    servers: list[Server]

    def admin(self, at: int = 0) -> Address:
        """An administrator's way into one of them."""
        return self.servers[at].address("writer")._replace(user=ADMIN, password=PASSWORD)


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


@contextlib.contextmanager
def started(directory: Path, number: int = 2, users: str = "") -> Iterator[Servers]:
    """So many servers that know each other, with an administrator and what the XML ``users`` says more."""
    needs_its_own_clickhouse("sets up servers and users of its own")
    open_path(directory)
    ports = free_ports(number)
    shards = "".join(_SHARD.format(port=port) for port in ports)
    with contextlib.ExitStack() as stack:
        servers = []
        for at, port in enumerate(ports):
            place = layout.make(directory / f"server-{at}")
            # The server reads what lies in these directories beside its own configuration.
            _write(place.server / "config.d" / "cluster.xml", _CLUSTER.format(name=CLUSTER, shards=shards))
            _write(place.server / "users.d" / "admin.xml", _USERS.format(name=ADMIN, password=PASSWORD))
            if users:
                _write(place.server / "users.d" / "more.xml", users)
            server = Server(place.directory, Ports(tcp=port), peers=tuple(ports))
            servers.append(stack.enter_context(server.start()))
        yield Servers(servers)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.parent.chmod(0o755)
    path.write_text(text)
    path.chmod(0o644)
