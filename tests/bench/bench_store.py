"""How fast the store takes rows, what a row costs on disk, what the server needs.

Run as ``python -m tests.bench.bench_store [rows]``: one JSON object on stdout, talk on stderr.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from store import migrate
from store.connection import Connection
from store.server import Server
from streams.sinks.clickhouse import IMAGES, ROWS_MAX, Sink, _transposed, content_hash
from tests.bench.synthetic import batches

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mib(pid: int, name: str) -> float:
    """VmRSS or VmHWM of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def fill(server: Server, rows: int, hosts: int, directory: Path) -> dict[str, float]:
    """Write rows through the sink; rows are made between the writes and not counted."""
    sink = Sink(lambda: Connection(server.address("writer")), directory, time.sleep, time.monotonic)
    wall = client = made = 0.0
    before = cpu_s(server.pid)
    for number, batch in enumerate(batches(hosts, rows, min(ROWS_MAX, rows // hosts))):
        started, used = time.perf_counter(), time.process_time()
        sink.write(batch, f"bench {number}")
        wall += time.perf_counter() - started
        client += time.process_time() - used
        made += len(batch)
    return {
        "rows": made,
        "rows_per_s": made / wall,
        "client_us_per_row": client / made * 1e6,
        "server_us_per_row": (cpu_s(server.pid) - before) / made * 1e6,
    }


def calm(server: Server) -> dict[str, float]:
    """Milliseconds of one small write as it comes at a calm rate, and until a reader sees it."""
    sink = Sink(lambda: Connection(server.address("writer")), Path("/nonexistent"), time.sleep, time.monotonic)
    times = []
    for number, batch in enumerate(batches(1, 2000, 100, seed=99)):
        started = time.perf_counter()
        sink.write(batch, f"calm {number}")
        times.append((time.perf_counter() - started) * 1e3)
    return {"write_of_100_rows_ms": sorted(times)[len(times) // 2], "write_of_100_rows_ms_worst": max(times)}


def sizes(writer: Connection) -> dict[str, Any]:
    """Bytes on disk of a row, in all and by column, after everything is merged."""
    writer.execute("OPTIMIZE TABLE images FINAL")
    rows, size = writer.query("SELECT sum(rows), sum(bytes_on_disk) FROM system.parts WHERE table = 'images' AND active").rows[0]
    columns = writer.query(
        "SELECT name, data_compressed_bytes / {rows:UInt64} FROM system.columns WHERE table = 'images' ORDER BY 2 DESC LIMIT 25",
        {"rows": rows},
    ).rows
    indices = writer.query(
        "SELECT name, data_compressed_bytes / {rows:UInt64} FROM system.data_skipping_indices WHERE table = 'images'", {"rows": rows}
    ).rows
    return {
        "merged_rows": rows,
        "bytes_per_row": size / rows,
        "by_column": {name.decode(): round(part, 2) for name, part in columns},
        "by_index": {name.decode(): round(part, 2) for name, part in indices},
    }


def sink_alone() -> dict[str, float]:
    """Microseconds a row of the sink's own work, without the driver."""
    (batch,) = batches(1, ROWS_MAX, ROWS_MAX)
    started = time.process_time()
    _, columns = _transposed(IMAGES, batch)
    transposed = time.process_time()
    content_hash(IMAGES, columns)
    hashed = time.process_time()
    return {"transpose_us_per_row": (transposed - started) / len(batch) * 1e6, "hash_us_per_row": (hashed - transposed) / len(batch) * 1e6}


def idle(server: Server, seconds: float = 10.0) -> float:
    """Percent of one CPU that the server uses while nobody asks anything."""
    before = cpu_s(server.pid)
    time.sleep(seconds)
    return (cpu_s(server.pid) - before) / seconds * 100


def main(rows: int = 1_000_000) -> dict[str, Any]:
    """All of it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        started = time.perf_counter()
        with Server(directory / "store") as server:
            figures: dict[str, Any] = {"start_s": time.perf_counter() - started, "start_rss_mib": memory_mib(server.pid, "VmRSS")}
            migrate.apply(server.address("writer"))
            figures |= sink_alone() | calm(server) | fill(server, rows, 4, directory)
            with Connection(server.address("writer"), timeout_s=3600) as writer:
                figures |= sizes(writer)
            figures |= {"rss_mib": memory_mib(server.pid, "VmRSS"), "peak_rss_mib": memory_mib(server.pid, "VmHWM")}
            figures["idle_cpu_percent"] = idle(server)
            return figures


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000), indent=1))
