"""What a long run takes: memory, open files, parts and answers after millions of events, with as many living processes as ever.

    python -m tests.bench.bench_long [--events N] [--out FILE]

The embedded stream as `tasktrail run` has it, with a real ClickHouse, fed from a ring that makes its records as they are asked for:
fork, exec and exit of short-lived programs under one shell, ``LIVING`` of them alive at any time.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from statistics import median
from uuid import UUID

from schemas import events
from schemas.batch import Batch, BatchKind, frame
from schemas.events import Kind, Mark
from store import migrate
from store.connection import Connection
from store.server import Server
from streams.embedded import Embedded, Host
from streams.sinks.clickhouse import Sink
from tasktrail.runner import COLLECT_STEPS
from tests.bench.bench_host import memory_mib

LIVING = 500
PACE_NS = 200_000
"""Event time between two processes: five thousand a second."""
HOST_ID, BOOT_ID = UUID(int=0x5EED), UUID(int=0xB007)
CHUNK_PROCESSES = 1_000
_HEAD = (events.RECORD_VERSION, 0, 0, 1)
QUERY = "SELECT comm, chain_comm FROM images WHERE host_id = {host:UUID} AND boot_id = {boot:UUID} AND tgid = {tgid:UInt32} LIMIT 1"


def head(kind: Kind, time_ns: int, tgid: int, start_ns: int, exec_id: int) -> tuple[int, ...]:
    """First values of a record."""
    return (kind, *_HEAD, tgid, time_ns, start_ns, exec_id, 0)


class Feed:
    """A ring that never ends, and what else of a recorder the stream asks for."""

    def __init__(self) -> None:
        self.ring = self
        self.ring_id = 1
        self.now_ns = 1_000_000_000
        self.offset_ns = time.time_ns()
        self.made = 0
        self._tgid = 100
        self._living: deque[tuple[int, int]] = deque()
        self._start = 0
        self._waiting = b"".join(map(frame, self._begin()))

    def _begin(self) -> list[bytes]:
        clock = (*head(Kind.MARK, 1, 2, 1, 0), Mark.CLOCK, 1, self.offset_ns, *[0] * 6)
        attached = (*head(Kind.MARK, 2, 2, 1, 0), Mark.ATTACHED, *[0] * 8)
        return [events.MARK.pack(*clock), events.MARK.pack(*attached), self._fork(50, 0, 0, 0), self._exec(50, self.now_ns, b"bash", 1)]

    def _fork(self, tgid: int, creator: int, creator_start_ns: int, exec_id: int) -> bytes:
        ids = (creator, creator, creator, *[0] * 9)
        return events.FORK.pack(
            *head(Kind.FORK, self.now_ns, tgid, self.now_ns, exec_id), creator_start_ns, exec_id, creator_start_ns, 0, 7, 0, *ids, b"bash"
        )

    def _exec(self, tgid: int, start_ns: int, name: bytes, exec_id: int) -> bytes:
        argv = b"/usr/bin/%s\0-c\0work/%d\0" % (name, self.made % 5_000)
        exe, cwd = name + b"\0bin\0usr\0", b"src\0home\0"
        sizes = (len(argv), 0, 0, len(exe), len(cwd), 0, 0, 0)
        values = (1, 7, 99, 1, 50, *[0] * 14, 3, len(argv))
        fixed = events.EXEC.pack(*head(Kind.EXEC, self.now_ns + 50_000, tgid, start_ns, exec_id), *values, name, *sizes)
        return fixed + argv + exe + cwd

    def _chunk(self) -> bytes:
        """The next processes: each forks, execs, and ends when LIVING younger ones have begun."""
        records = []
        for _ in range(CHUNK_PROCESSES):
            self.made += 1
            self.now_ns += PACE_NS
            self._tgid = self._tgid + 1 if self._tgid < 4_000_000 else 100
            records += [self._fork(self._tgid, 50, 1_000_000_000, 1), self._exec(self._tgid, self.now_ns, b"cc1", 2)]
            self._living.append((self._tgid, self.now_ns))
            if len(self._living) > LIVING:
                tgid, start_ns = self._living.popleft()
                ended = head(Kind.EXIT, self.now_ns + 100_000, tgid, start_ns, 2)
                records.append(events.EXIT.pack(*ended, 1_000_000, 1_000_000, 1, 900, 1, 50, 0, tgid, 0, b"cc1"))
        return b"".join(map(frame, records))

    # -- the ring --

    def stretch(self, limit_bytes: int) -> tuple[int, int, bytes]:
        """About half a megabyte."""
        if not self._waiting:
            self._waiting = self._chunk()
        return self._start, self._start + len(self._waiting), self._waiting

    def release(self, position: int) -> None:
        """Go on from there."""
        if position > self._start:
            self._start, self._waiting = position, b""

    def consumer(self) -> int:
        """Where the reader is."""
        return self._start

    def producer(self) -> int:
        """Where the writer is."""
        return self._start + len(self._waiting)

    # -- the recorder --

    def now(self) -> tuple[int, int]:
        """Both clocks."""
        return self.now_ns, self.now_ns + self.offset_ns

    def snapshot(self) -> Batch:
        """Nothing was seen that is not known."""
        return Batch(BatchKind.SNAPSHOT, HOST_ID, BOOT_ID, 1, 0, 0, 1, 1, 1, 0, b"long", b"")

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        """None."""
        return []

    def discard_snapshots(self, last_id: int) -> None:
        """There are none."""


def measure(directory: Path, amount: int) -> dict[str, float]:
    """Run, and look at a tenth, at the half and at the end."""
    figures: dict[str, float] = {}
    with Server(directory / "store") as server:
        migrate.apply(server.address("writer"))
        sink = Sink(lambda: Connection(server.address("writer")), directory, time.sleep, time.monotonic)
        feed = Feed()
        stream = Embedded(feed, sink, directory / "state", Host(HOST_ID, BOOT_ID, b"long", feed.now))  # type: ignore[arg-type]
        gc.disable()
        gc.freeze()
        with Connection(server.address("reader")) as reader:
            for name, part in (("early", 0.1), ("middle", 0.5), ("end", 1.0)):
                while stream.state.events < amount * part:
                    stream.step()
                    if stream.progress.steps % COLLECT_STEPS == 0:
                        gc.collect(1)
                figures |= {f"{key}_{name}": value for key, value in now(stream, server, reader).items()}
    figures["events"] = stream.state.events
    figures["memory_ratio"] = figures["run_anon_mib_end"] / figures["run_anon_mib_early"]
    figures["server_ratio"] = figures["server_mib_end"] / figures["server_mib_early"]
    figures["state_ratio"] = figures["state_bytes_end"] / figures["state_bytes_early"]
    return figures


def now(stream: Embedded, server: Server, reader: Connection) -> dict[str, float]:
    """Everything that must stay as it is."""
    times = []
    params: dict[str, object] = {"host": HOST_ID, "boot": BOOT_ID, "tgid": 1_000}
    for _ in range(9):
        began = time.monotonic()
        assert reader.query(QUERY, params, {"use_query_condition_cache": 0}).rows
        times.append(time.monotonic() - began)
    parts = reader.query("SELECT count() FROM system.parts WHERE active AND table = 'images'").rows[0][0]
    assert server.pid
    return {
        "run_anon_mib": memory_mib(os.getpid(), "RssAnon"),
        "run_files": len(os.listdir("/proc/self/fd")),
        "server_mib": memory_mib(server.pid),
        "server_files": len(os.listdir(f"/proc/{server.pid}/fd")),
        "parts": parts,
        "state_bytes": stream.progress.state_bytes,
        "history_s": median(times),
    }


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        figures = measure(Path(name), options.events)
    for key, value in figures.items():
        print(f"{key:24} {value:16,.4f}")
    if options.out:
        options.out.write_text(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
