"""What the usual questions cost on a store of many images, in ratio to walking the creator links with a recursive query.

    python -m tests.bench.bench_queries [--rows N] [--out FILE]

Median of 7 runs each, the server's condition cache off, so that every run reads.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from queries.rows import NEWEST
from store import migrate
from store.connection import Connection
from store.server import Server
from streams.sinks.clickhouse import Sink
from tests.bench.synthetic import batches

ROUNDS = 7
HOSTS = 20

DESCENDANTS = f"SELECT count() FROM (SELECT task_id, exec_id FROM images WHERE has(ancestor_ids, {{id:UUID}}) {NEWEST})"
RECURSIVE = """
WITH RECURSIVE below AS (
    SELECT task_id, exec_id FROM {table} WHERE creator_id = {{id:UUID}}
    UNION ALL
    SELECT images.task_id, images.exec_id FROM {table} AS images INNER JOIN below ON images.creator_id = below.task_id
)
SELECT uniqExact(task_id, exec_id) FROM below"""
SOMEBODY = """
SELECT ancestor_ids[2], host_id, tgid, comm, chain_comm[1] FROM images WHERE length(ancestor_ids) > 3 ORDER BY task_id LIMIT 1"""
HISTORY = """
SELECT chain_comm, chain_tgid FROM current_images
WHERE host_id = {host:UUID} AND tgid = {tgid:UInt32} LIMIT 1 BY task_id, exec_id"""

HOSTS_WITH = "SELECT DISTINCT host FROM current_images WHERE comm = {comm:String} AND has(chain_comm, {under:String})"


def timed(reader: Connection, sql: str, params: dict[str, object]) -> tuple[float, list[tuple[object, ...]]]:
    """Median seconds of the query, and what it gave."""
    times: list[float] = []
    rows: list[tuple[object, ...]] = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        rows = reader.query(sql, params, {"use_query_condition_cache": 0}).rows
        times.append(time.monotonic() - began)
    return median(times), rows


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        figures = measure(Path(name), options.rows)
    for key, value in figures.items():
        print(f"{key:24} {value:12,.4f}")
    if options.out:
        options.out.write_text(json.dumps(figures) + "\n")
    return 0


def measure(directory: Path, amount: int) -> dict[str, float]:
    """Fill a store and ask it."""
    figures: dict[str, float] = {"rows": amount}
    with Server(directory / "store") as server:
        migrate.apply(server.address("writer"))
        sink = Sink(lambda: Connection(server.address("writer")), directory, time.sleep, time.monotonic)
        for number, rows in enumerate(batches(HOSTS, amount, 5000)):
            sink.write(rows, f"bench-{number}")
        sink.close()
        with Connection(server.address("reader")) as reader:
            ((ancestor, host, tgid, comm, under),) = reader.query(SOMEBODY).rows
            whom = {"id": ancestor}
            figures["descendants_s"], found = timed(reader, DESCENDANTS, whom)
            figures["recursive_s"], same = timed(reader, RECURSIVE.format(table="current_images"), whom)
            figures["recursive_any_s"], again = timed(reader, RECURSIVE.format(table="images"), whom)
            assert found == same == again, "the ways do not agree on how many descend from it"
            figures["descendants_ratio"] = figures["recursive_s"] / figures["descendants_s"]
            figures["descendants_any_ratio"] = figures["recursive_any_s"] / figures["descendants_s"]
            figures["history_s"], _ = timed(reader, HISTORY, {"host": host, "tgid": tgid})
            figures["hosts_with_s"], _ = timed(reader, HOSTS_WITH, {"comm": comm, "under": under})
    return figures


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
