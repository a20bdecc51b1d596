"""The sink when the wire or the server fails in every way that there is: each row is stored once, or is known not to be."""

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.errors import BadInput, TasktrailError, Unavailable
from store.address import Address
from store.connection import Connection, in_turn
from streams.sinks.clickhouse import Sink
from tests.contract.conftest import Store
from tests.contract.proxy import Proxy, Talk, exception
from tests.contract.rows import image

PASSING = (202, 209, 210, 236, 241, 242, 243, 252, 279, 319, 425, 999)
LASTING = (16, 47, 60, 81, 164, 452, 497, 516)


class Pauses:
    """Waits for nobody, but counts; ``at_each`` is called at every pause."""

    def __init__(self, at_each: Callable[[int], None] = lambda number: None) -> None:
        self.taken: list[float] = []
        self._at_each = at_each

    def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self._at_each(len(self.taken))


@pytest.fixture
def table(store: Store) -> Store:
    """The store with an empty table."""
    if store.addresses["writer"].secure:
        pytest.skip("the proxy speaks no TLS to the server")
    store.writer.execute("TRUNCATE TABLE images")
    return store


@pytest.fixture
def proxy(table: Store) -> Iterator[Proxy]:
    with Proxy(table.addresses["writer"]) as one:
        yield one


def sink_to(connect: Callable[[], Connection], deadletter: Path, pauses: Pauses, budget_s: float = 60.0) -> Sink:
    return Sink(connect, deadletter, pauses, lambda: sum(pauses.taken), budget_s)


def stored(store: Store) -> list[tuple[int, int]]:
    """Rows that count, and different ones among all."""
    return [tuple(row) for row in store.reader.query("SELECT count(), uniqExact(tgid) FROM images FINAL").rows]


def once(act: Callable[[Talk], bool]) -> Callable[[Talk, bytes], bool]:
    """Does this to the first connection that inserts, and leaves the others alone."""
    done: list[Talk] = []

    def spoil(talk: Talk, data: bytes) -> bool:
        if not talk.inserting or (done and talk is not done[0]):
            return False
        done.append(talk)
        return act(talk)

    return spoil


def test_cut_after_all_was_sent(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    """The server has stored the rows, and its word never arrives."""
    seen = [0]

    def answer_lost(talk: Talk) -> bool:
        seen[0] += 1
        # The first word after the INSERT is what the table looks like; what comes then is about the rows.
        return seen[0] > 1 and talk.cut()

    proxy.from_server = once(answer_lost)
    pauses = Pauses()
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, pauses)
    sink.write([image(number) for number in range(500)], "token")
    assert stored(table) == [(500, 500)] and sink.stored == 500 and sink.retries == len(pauses.taken) >= 1
    assert len(proxy.tokens) == sink.retries + 1 and len(set(proxy.tokens)) == 1 and proxy.tokens[0].startswith(b"token:images:")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_cut_while_it_was_sent(proxy: Proxy, table: Store, tmp_path: Path, at: int) -> None:
    seen = [0]

    def cut(talk: Talk) -> bool:
        seen[0] += 1
        return seen[0] >= at and talk.cut()

    proxy.from_client = once(cut)
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, Pauses())
    sink.write([image(number, argv=(b"x" * number,)) for number in range(2000)], "token")
    assert stored(table) == [(2000, 2000)] and sink.retries == 1


def test_a_server_that_hangs_is_left_for_the_next(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    """Its answers stay away; the insert goes to the other server of the address, where it may have come to already."""
    there = table.addresses["writer"]
    proxy.from_server = lambda talk, data: talk.inserting
    address = proxy.address._replace(alt_hosts=f"{there.host}:{there.port}")
    turn = in_turn(address)

    def impatient() -> Connection:
        return Connection(turn().address, timeout_s=0.5)

    sink = sink_to(impatient, tmp_path, Pauses())
    sink.write([image(number) for number in range(100)], "token")
    assert stored(table) == [(100, 100)] and sink.retries == 1 and len(proxy.talks) == 1


def test_a_hanging_server_that_comes_to_itself(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    hanging = threading.Event()
    hanging.set()
    proxy.from_server = lambda talk, data: talk.inserting and hanging.is_set()
    sink = sink_to(lambda: Connection(proxy.address, timeout_s=0.3), tmp_path, Pauses(lambda number: number < 3 or hanging.clear()))
    sink.write([image(number) for number in range(100)], "token")
    assert stored(table) == [(100, 100)] and sink.retries == 3


def test_the_next_server_is_taken_when_one_cannot_be_reached(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    gone = Proxy(table.addresses["writer"])
    gone.close()
    pauses = Pauses()
    sink = sink_to(in_turn(gone.address._replace(alt_hosts=f"{proxy.address.host}:{proxy.address.port}")), tmp_path, pauses)
    sink.write([image(1)], "token")
    assert stored(table) == [(1, 1)] and pauses.taken == []
    # One that takes connections and ends them is no help either.
    proxy.from_client = lambda talk, data: talk.cut()
    there = table.addresses["writer"]
    other = sink_to(in_turn(proxy.address._replace(alt_hosts=f"{there.host}:{there.port}")), tmp_path, pauses)
    other.write([image(2)], "token")
    assert stored(table) == [(2, 2)] and other.retries == 1


@pytest.mark.parametrize("code", PASSING)
def test_what_passes_is_waited_for_longer_and_longer(proxy: Proxy, table: Store, tmp_path: Path, code: int) -> None:
    answers = [0]

    def refuse(talk: Talk, data: bytes) -> bool:
        if not talk.inserting or answers[0] == 4:
            return False
        answers[0] += 1
        return talk.answer(exception(code))

    proxy.from_server = refuse
    pauses = Pauses()
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, pauses)
    sink.write([image(number) for number in range(100)], "token")
    assert stored(table) == [(100, 100)] and sink.dead == 0 and sink.retries == 4
    assert all(later >= 1.5 * earlier for earlier, later in zip(pauses.taken, pauses.taken[1:], strict=False)) and len(pauses.taken) == 4


@pytest.mark.parametrize("code", LASTING)
def test_what_lasts_is_not_tried_again(proxy: Proxy, table: Store, tmp_path: Path, code: int) -> None:
    proxy.from_server = lambda talk, data: talk.inserting and talk.answer(exception(code))
    pauses = Pauses()
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, pauses)
    with pytest.raises(BadInput) as refusal:
        sink.write([image(number) for number in range(100)], "token")
    assert "\n" not in str(refusal.value) and pauses.taken == [] and not list(tmp_path.iterdir()) and stored(table) == [(0, 0)]


def test_patience_ends_with_the_budget_and_the_rows_are_not_lost(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    proxy.from_server = lambda talk, data: talk.inserting and talk.answer(exception(242))
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, Pauses(), budget_s=5.0)
    rows = [image(number) for number in range(100)]
    with pytest.raises(Unavailable, match="did not take rows"):
        sink.write(rows, "token")
    proxy.from_server = lambda talk, data: False
    sink.write(rows, "token")
    assert stored(table) == [(100, 100)] and sink.dead == 0


def test_too_many_parts_on_a_real_server(table: Store, tmp_path: Path) -> None:
    table.writer.insert("images", image(0)._fields, [image(0)], "")
    table.writer.execute("ALTER TABLE images MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 0")

    def relax(number: int) -> None:
        if number == 3:
            table.writer.execute("ALTER TABLE images RESET SETTING parts_to_throw_insert, parts_to_delay_insert")

    sink = sink_to(lambda: Connection(table.addresses["writer"]), tmp_path, Pauses(relax))
    sink.write([image(number) for number in range(1, 50)], "token")
    assert stored(table) == [(50, 50)] and sink.retries == 3 and "oo many parts" in sink.problem


def test_what_is_no_clickhouse_loses_no_row(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    """A balancer that says in HTTP that there is no server behind it now."""
    down = threading.Event()
    down.set()
    page = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    proxy.from_server = lambda talk, data: down.is_set() and talk.answer(page)
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, Pauses(lambda number: number < 2 or down.clear()))
    sink.write([image(1)], "token")
    assert stored(table) == [(1, 1)] and sink.retries == 2


def test_a_bad_row_among_good_ones_over_a_wire_that_fails(proxy: Proxy, table: Store, tmp_path: Path) -> None:
    seen = [0]

    def now_and_then(talk: Talk, data: bytes) -> bool:
        seen[0] += talk.inserting
        return talk.inserting and seen[0] % 5 == 0 and talk.cut()

    proxy.from_server = now_and_then
    sink = sink_to(lambda: Connection(proxy.address), tmp_path, Pauses())
    sink.write([image(number, **({"exit_code": 256} if number in (7, 400) else {})) for number in range(500)], "token")
    assert stored(table) == [(498, 498)] and sink.dead == 2 and len(list(tmp_path.iterdir())) == 2


def test_a_server_with_little_memory_gets_smaller_inserts(table: Store, tmp_path: Path) -> None:
    rows = [image(number, argv=(b"%06d" % number * 2000,)) for number in range(6000)]
    pauses = Pauses()
    poor = {"max_memory_usage": 80 << 20, "max_untracked_memory": 0}
    sink = sink_to(lambda: Connection(table.addresses["writer"], poor), tmp_path, pauses, budget_s=5.0)
    sink.write(rows, "token")
    assert stored(table) == [(6000, 6000)] and sink.retries > 0 and pauses.taken == [] and sink.dead == 0


# -- TLS --


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its own certificate for localhost."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    key = path.with_suffix(".key")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", str(key), "-out", str(path), *subject]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def secure(table: Store, certificate: Path) -> Iterator[Address]:
    """An address that wants TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with Proxy(table.addresses["writer"], context) as one:
        yield one.address._replace(host="localhost", secure=True)


def refusal(address: Address) -> TasktrailError:
    with Connection(address) as connection, pytest.raises(TasktrailError) as raised:
        connection.query("SELECT 1")
    return raised.value


def test_a_server_is_trusted_by_its_authority_and_name(secure: Address, certificate: Path) -> None:
    with Connection(secure._replace(ca_certs=str(certificate))) as connection:
        assert connection.query("SELECT 1").rows == [(1,)]
    with Connection(secure._replace(verify=False)) as connection:
        assert connection.query("SELECT 1").rows == [(1,)]
    for address in (secure, secure._replace(host="127.0.0.1", ca_certs=str(certificate))):
        failure = refusal(address)
        assert isinstance(failure, BadInput) and "is not trusted" in str(failure) and "ca_certs=FILE" in str(failure)
    assert isinstance(refusal(secure._replace(secure=False)), TasktrailError)


def test_a_file_of_authorities_that_is_not_there_is_told_at_once(secure: Address, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        Connection(secure._replace(ca_certs=str(tmp_path / "none.pem")))
