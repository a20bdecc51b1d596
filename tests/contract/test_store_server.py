"""The embedded server: caged, tied to its parent's life, one for a store, and there again after it died."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from schemas.errors import BadInput, Unavailable
from store import migrate
from store.connection import Connection
from store.opening import open_for_reading, open_for_writing
from store.server import Server, holder, stored_address
from tests.contract.conftest import Store, await_end, kill, open_path
from tests.contract.named_store import needs_its_own_clickhouse
from tests.contract.rows import image

ROOT = os.geteuid() == 0
root_only = pytest.mark.skipif(not ROOT, reason="only root can give up being root")


@pytest.fixture(scope="module", autouse=True)
def embedded() -> None:
    """What is tested here is no other server's business."""
    needs_its_own_clickhouse("is about the embedded server")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A place for a store that the server's user can reach."""
    open_path(tmp_path)
    return tmp_path / "store"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, which may be killed."""
    path = tmp_path_factory.mktemp("own")
    open_path(path)
    with Server(path / "store").start() as started:
        migrate.apply(started.address("writer"))
        yield started


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@root_only
def test_the_server_is_nobody_and_can_never_be_more(server: Server) -> None:
    status = _status(server.pid)
    assert set(status["Uid"].split()) & {"0"} == set() and set(status["Gid"].split()) & {"0"} == set()
    assert status["Groups"] == ""
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapAmb"], 16) == 0
    assert Path(f"/proc/{server.pid}/environ").read_bytes().count(b"=") == 2


def test_the_servers_own_writer_cannot_leave_its_directory(server: Server, tmp_path: Path) -> None:
    outside = tmp_path / "secret"
    outside.write_text("secret")
    outside.chmod(0o644)
    open_path(tmp_path)
    credentials = [server.directory / "credentials" / "writer.json", server.directory / "credentials" / "reader.json"]
    for role in ("reader", "writer"):
        with Connection(server.address(role)) as connection:
            for path in ("/etc/shadow", "/etc/passwd", outside, *credentials, "/proc/1/cmdline", "/proc/self/environ"):
                with pytest.raises(BadInput, match=r"Cannot open file|Not enough privileges"):
                    connection.query("SELECT file({path:String})", {"path": str(path)})


def test_the_default_user_lets_nobody_in(server: Server) -> None:
    address = server.address("reader")
    with Connection(address._replace(user="default", password="", database="system")) as connection, pytest.raises(BadInput):
        connection.query("SELECT 1")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://{address.host}:{address.http_port}/?query=SELECT+1", timeout=10)
    with Connection(address._replace(password="guess")) as connection, pytest.raises(BadInput, match="refuses the user or password"):
        connection.query("SELECT 1")


def test_passwords_lie_in_the_servers_directory_only_as_hashes(server: Server) -> None:
    secrets = [server.address(role).password.encode() for role in ("reader", "writer")]
    for path in (server.directory / "clickhouse").rglob("*"):
        if path.is_file():
            assert not any(secret in path.read_bytes() for secret in secrets), path
    assert (server.directory / "credentials" / "writer.json").stat().st_mode & 0o077 == 0
    assert (server.directory / "credentials" / "reader.json").stat().st_mode & 0o007 == 0


def test_a_dead_server_comes_back_with_its_rows_and_ports(server: Server) -> None:
    with Connection(server.address("writer")) as writer, Connection(server.address("reader")) as reader:
        writer.execute("TRUNCATE TABLE images")
        writer.insert("images", image(0)._fields, [image(0)], "one")
        before = server.address("reader")
        kill(server)
        with pytest.raises(Unavailable):
            reader.query("SELECT 1")
        assert server.revive()
        assert not server.revive()
        assert server.address("reader") == before
        assert reader.query("SELECT count() FROM images").rows == [(1,)]


def test_a_query_that_crashes_the_server_costs_a_restart(server: Server) -> None:
    with Connection(server.address("reader")) as reader:
        with pytest.raises((Unavailable, BadInput)):
            reader.query("SELECT * FROM python('x')")
        if not await_end(server.pid, 5):
            pytest.fail("the query that used to crash the server no longer does: take it out of the documents")
        assert server.revive()
        assert reader.query("SELECT 1").rows == [(1,)]


def test_memory_is_capped_and_the_server_outlives_whoever_wants_more(server: Server) -> None:
    with Connection(server.address("writer")) as writer:
        for _ in range(6):
            with pytest.raises(BadInput, match="more memory than allowed"):
                writer.query("SELECT length(groupArray(number)) FROM numbers(300000000)")
            assert writer.query("SELECT 1").rows == [(1,)]
    peak_kib = int(_status(server.pid)["VmHWM"].split()[0])
    assert peak_kib < 1_400_000


def test_a_store_in_use_says_by_whom(server: Server) -> None:
    assert holder(server.directory) == os.getpid()
    with pytest.raises(BadInput, match=f"in use by process {os.getpid()}"):
        Server(server.directory).start()
    assert server.alive()


PARENT = """
import sys
from store.server import Server
server = Server(sys.argv[1]).start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_the_server_ends_when_its_parent_is_killed(directory: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        parent.kill()
        parent.wait()
        assert await_end(child)
    # The lock is free again, although its file still names the dead.
    with Server(directory).start() as server:
        assert server.alive()


UNPRIVILEGED = """
import sys
from store import migrate
from store.connection import Connection
from store.server import Server
with Server(sys.argv[1]).start() as server:
    migrate.apply(server.address("writer"))
    status = open(f"/proc/{server.pid}/status").read()
    assert "NoNewPrivs:\\t1" in status and "Uid:\\t65534" in status
    with Connection(server.address("reader")) as reader:
        print(reader.query("SELECT count() FROM images").rows)
        try:
            reader.query("SELECT file('/etc/passwd')")
        except Exception as error:
            print(type(error).__name__)
"""


@root_only
def test_without_root_the_server_is_who_we_are_and_caged_too(tmp_path: Path) -> None:
    repository = Path(__file__).parents[2]
    if not all(parent.stat().st_mode & 0o001 for parent in (repository / "store", *(repository / "store").parents)):
        pytest.skip("this checkout cannot be read by other users")
    open_path(tmp_path)
    os.chown(tmp_path, 65534, 65534)
    command = [sys.executable, "-c", UNPRIVILEGED, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False, user=65534, group=65534, extra_groups=[])
    assert (done.returncode, done.stdout) == (0, "[(0,)]\nBadInput\n"), done.stderr


@root_only
def test_a_store_that_is_not_for_us_says_so(server: Server) -> None:
    code = """
import sys
from store.opening import check
print(check(sys.argv[1]))
"""
    repository = Path(__file__).parents[2]
    if not all(parent.stat().st_mode & 0o001 for parent in (repository / "store", *(repository / "store").parents)):
        pytest.skip("this checkout cannot be read by other users")
    command = [sys.executable, "-c", code, str(server.directory)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False, user=65534, group=65534, extra_groups=[])
    assert "cannot be read by you; run as root" in done.stdout, done.stderr


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be used"):
        Server(tmp_path / "file" / "store").start()


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    with Server(directory).start():
        pass
    (directory / "clickhouse" / "data" / "status").unlink(missing_ok=True)
    (directory / "clickhouse" / "data" / "status").mkdir()
    with pytest.raises(Unavailable, match="did not start"):
        Server(directory).start()
    assert holder(directory) == 0


def test_opening_finds_a_running_server_or_starts_one(directory: Path) -> None:
    with pytest.raises(BadInput, match="there is no store"), open_for_reading(str(directory)):
        pass
    with open_for_writing(str(directory)) as address, Connection(address) as writer:
        writer.insert("images", image(0)._fields, [image(0)], "one")
        pid = holder(directory)
        with open_for_reading(str(directory)) as reader:
            assert reader.query("SELECT count() FROM images").rows == [(1,)]
        assert pid == holder(directory) == os.getpid()
    assert holder(directory) == 0
    with open_for_reading(str(directory)) as reader:
        assert reader.query("SELECT count() FROM images").rows == [(1,)]
        assert reader.query("SELECT currentUser()").rows == [(b"tasktrail_reader",)]
    assert holder(directory) == 0


def test_a_store_of_a_newer_version_is_left_alone(directory: Path) -> None:
    with open_for_writing(str(directory)) as address, Connection(address) as writer:
        writer.insert("schema_versions", ("version", "name", "text_sha256"), [(999, b"later", b"")], "")
        with pytest.raises(BadInput, match=r"version 999.*update Tasktrail"):
            migrate.apply(address)


def test_http_works_with_the_readers_credentials(store: Store) -> None:
    address = store.addresses["reader"]
    request = urllib.request.Request(
        f"http://{address.host}:{address.http_port}/?database=tasktrail",
        b"SELECT count() AS images FROM images FORMAT JSONEachRow",
        {"Authorization": "Basic " + b64encode(f"{address.user}:{address.password}".encode()).decode()},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read()) == {"images": 0}


def test_clickhouse_connect_works_with_the_readers_credentials(store: Store) -> None:
    clickhouse_connect = pytest.importorskip("clickhouse_connect")
    address = store.addresses["reader"]
    with closing(
        clickhouse_connect.get_client(
            host=address.host, port=address.http_port, username=address.user, password=address.password, database=address.database
        )
    ) as client:
        assert client.query("SELECT count() FROM current_images").result_rows == [(0,)]


def test_credentials_are_read_back(server: Server) -> None:
    assert stored_address(server.directory, "reader") == server.address("reader")
    assert server.address("reader").password not in repr(server.address("reader"))
