"""What people ask a fleet, on a store of 1,000 hosts: time, and the share of the rows that is read for it.

The images of 50 hosts are made here; the server itself makes 19 more of each, with keys of their own, from those.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from queries import find, targets, tree
from queries.history import history_of
from queries.per_host import per_host
from queries.rows import Answer, Arriving, Params, Settings, columns, make
from queries.times import Moment
from schemas.rows import ImageRow
from store import migrate
from store.connection import Connection
from store.server import Server
from store.server_config import Limits
from streams.sinks.clickhouse import Sink
from tests.bench.synthetic import batches

HOSTS, COPIES = 50, 20
ROWS = 1_000_000
BATCH = 5_000
RARE_EVERY = 20_000
ROUNDS = 5
MEMORY_BYTES = 3 << 30
SMALL_BLOCKS: Settings = {
    "max_block_size": 16_384,
    "min_insert_block_size_rows": 200_000,
    "min_insert_block_size_bytes": 0,
    "max_threads": 2,
}
COLUMNS_OF_IDS = ("host_id", "boot_id", "task_id", "creator_id", "parent_id")


def with_rare_ones(rows: Iterator[list[ImageRow]]) -> Iterator[list[ImageRow]]:
    """Now and then a program that hardly anybody runs."""
    for number, some in enumerate(rows):
        if number % (RARE_EVERY // BATCH) == 0:
            row = some[-1]
            comms, exes = (*row.chain_comm[:-1], b"nc"), (*row.chain_exe[:-1], b"/usr/bin/nc")
            some[-1] = row._replace(comm=b"nc", exe=exes[-1], argv=(b"nc", b"-l", b"4444"), chain_comm=comms, chain_exe=exes)
        yield some


def fill(server: Server, directory: Path) -> None:
    """Store the rows of 50 hosts, then 19 copies of each host."""
    sink = Sink(lambda: Connection(server.address("writer")), directory, time.sleep, time.monotonic)
    for number, rows in enumerate(with_rare_ones(batches(HOSTS, ROWS, BATCH))):
        sink.write(rows, f"bench-{number}")
    sink.close()

    def other(expression: str, copy: int) -> str:
        nil = "toUUID('00000000-0000-0000-0000-000000000000')"
        changed = f"reinterpretAsUUID(bitXor(reinterpretAsUInt128({expression}), toUInt128({copy})))"
        return f"if({expression} = {nil}, {nil}, {changed})"

    with Connection(server.address("writer"), timeout_s=600) as writer:
        for copy in range(1, COPIES):
            replaced = [f"{other(name, copy)} AS {name}" for name in COLUMNS_OF_IDS]
            replaced += [f"arrayMap(id -> {other('id', copy)}, ancestor_ids) AS ancestor_ids", f"concat(host, '.{copy}') AS host"]
            # Names of copies end with their number.
            insert = f"INSERT INTO images SELECT * REPLACE ({', '.join(replaced)}) FROM (SELECT * FROM images WHERE host LIKE '%.net')"
            writer.execute(insert, settings=SMALL_BLOCKS)


class _Whole(list[tuple[Any, ...]]):
    """Rows that are all there, in the shape of those that arrive."""

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Nobody asks."""
        return []

    def close(self) -> None:
        """Nothing runs any more."""


class Counting:
    """A source of the reading side that knows how many rows the server has read for it."""

    def __init__(self, reader: Connection) -> None:
        self.read = 0
        self._reader = reader

    def query(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Answer:
        """All rows; the server's memory of conditions is off, so that every run reads."""
        answer = self._reader.query(sql, params, {**(settings or {}), "use_query_condition_cache": 0})
        self.read += self._reader._client.last_query.progress.rows
        return answer

    def stream(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Arriving:
        """The same, given as if it arrived."""
        return _Whole(self.query(sql, params, settings).rows)


def timed(reader: Connection, total: int, ask: Callable[[Counting], int]) -> tuple[float, float, int]:
    """Median seconds, share of the rows that were read, size of the answer."""
    times, source, amount = [], Counting(reader), 0
    for _ in range(ROUNDS):
        source.read = 0
        began = time.monotonic()
        amount = ask(source)
        times.append(time.monotonic() - began)
    return median(times), source.read / total, amount


def questions(reader: Connection) -> Mapping[str, Callable[[Counting], int]]:
    """What is asked of a process in the middle of one host's life, and of all hosts."""
    somebody = "WHERE length(ancestor_ids) > 3 AND host LIKE '%.7' ORDER BY task_id LIMIT 1"
    (image,) = make(ImageRow, reader.query(f"SELECT {columns(ImageRow)} FROM images {somebody}").rows)
    ((ancestor,),) = make_ids(reader, image)
    moment = Moment(image.begin, image.begin + 1)
    target = targets.parse_target(f"{image.host.decode()}:{image.tgid}")

    def descendants(source: Counting) -> int:
        return len(tree.fetch_descendants(source, ancestor))

    def history(source: Counting) -> int:
        chosen = targets.choose(target, targets.candidates(source, target, moment), moment)
        assert chosen is not None and chosen.task_id == image.task_id
        return len(history_of(source, image).steps)

    def ran(comm: str, under: str) -> Callable[[Counting], int]:
        return lambda source: len(per_host(source, [find.comm(comm), find.under_name(under)]))

    return {
        "descendants": descendants,
        "history_at": history,
        "rare_under_per_host": ran("nc", "bash"),
        "common_under_per_host": ran("curl", "cron"),
        "frequent_under_per_host": ran("cc1", "bash"),
    }


def make_ids(reader: Connection, image: ImageRow) -> list[tuple[ImageRow]]:
    """The row of its creator's creator, as X whose descendants are asked for."""
    where = "WHERE host_id = {host:UUID} AND task_id IN {ids:Array(UUID)} ORDER BY start_boottime DESC LIMIT 1"
    rows = reader.query(f"SELECT {columns(ImageRow)} FROM images {where}", {"host": image.host_id, "ids": list(image.ancestor_ids)}).rows
    return [(one,) for one in make(ImageRow, rows)] or [(image,)]


def measure(kept: Path | None) -> dict[str, Any]:
    """Fill a store, unless ``kept`` holds one, and ask it."""
    with ExitStack() as stack:
        directory = kept or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
        filled = directory / "filled"
        server = stack.enter_context(Server(directory / "store", limits=Limits(memory_bytes=MEMORY_BYTES)))
        if not filled.exists():
            migrate.apply(server.address("writer"))
            fill(server, directory)
            filled.touch()
            if kept:
                return {"filled_rows": float(ROWS * COPIES)}
        reader = stack.enter_context(Connection(server.address("reader")))
        ((total, hosts),) = reader.query("SELECT count(), uniqExact(host_id) FROM images").rows
        found: dict[str, Any] = {"images": float(total), "hosts": float(hosts)}
        for name, ask in questions(reader).items():
            found[f"{name}_s"], found[f"{name}_share_read"], found[f"{name}_found"] = timed(reader, total, ask)
        return found
