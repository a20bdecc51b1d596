"""The fleet's path on one machine: a real Kafka, real workers, a real ClickHouse; table in docs/benchmarks.md.

    python -m tests.bench.bench_fleet [PART ...] [--out FILE] [--directory DIR]

Each part takes less than four minutes. With ``--directory`` the store of part `questions` is kept there and not filled again.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import clickhouse_driver

from schemas.batch import Batch, decode_batch, encode_batch, frames
from schemas.rows import ImageRow, Row
from store.connection import Connection
from streams.join import HostState, apply
from streams.sinks.clickhouse import IMAGES, Sink, _transposed
from tests.bench import bench_fleet_faults, bench_fleet_questions
from tests.bench.bench_fleet_faults import a_fleet
from tests.bench.bench_join import BATCH_RECORDS, build
from tests.bench.bench_store import cpu_s
from tests.bench.synthetic import batches as synthetic
from tests.fleet.streaming import Fleet, Parts, Sent, Worker, message_of, running_parts
from tests.sim.channel import batches, lay

HOSTS = 12
PROCESSES = 6_000
NAIVE_PROCESSES = 3_000
LOOK_S = 0.2
INSERT_ROWS = 10_000
INSERTS = 12
EVENTS_PER_S = 1_000
GATHERED_S = 0.25
"""What a producer gathers into a batch."""
SHIPPING_HOSTS = 4
SHIPPING_S = 40


def events(message: Sent) -> int:
    """How many records a message holds."""
    return sum(1 for _ in frames(decode_batch(message.value).body))


def logs_of(processes: int, records: int, hosts: int) -> list[list[Batch]]:
    """The batches of hosts on which the same build runs, so many records in each."""
    log = lay(build(processes))
    cuts = [[*range(0, len(placed), records), len(placed)] for _, placed in log.rings]
    one = [batch for group in batches(log, cuts, random.Random(2)) for batch in group]
    return [[batch._replace(host_id=UUID(int=(number + 1) << 64 | records)) for batch in one] for number in range(hosts)]


def in_turn(logs: Sequence[Sequence[Batch]]) -> list[Sent]:
    """The hosts' messages, one of each in turn."""
    return [message_of(batch) for turn in zip(*logs, strict=True) for batch in turn]


def direct(logs: Sequence[Sequence[Batch]]) -> tuple[float, list[Row]]:
    """Seconds of decoding and joining all of it in this process, and the rows."""
    encoded = [[encode_batch(batch) for batch in log] for log in logs]
    rows: list[Row] = []
    began = time.perf_counter()
    for log in encoded:
        state = HostState()
        for data in log:
            rows += apply(state, decode_batch(data))
    return time.perf_counter() - began, rows


def rate(workers: Sequence[Worker], messages: int) -> tuple[float, float]:
    """Messages a second that these workers join and store, from the first that is seen to the last, and their CPU seconds per message."""
    seen: list[tuple[float, float, float]] = []
    while not seen or seen[-1][1] < messages:
        numbers = [worker.metrics() for worker in workers]
        done = sum(one.get("tasktrail_worker_messages_total", 0) for one in numbers)
        waiting = sum(one.get("tasktrail_worker_rows_waiting", 0) for one in numbers)
        if done and (done < messages or not waiting):
            seen.append((time.monotonic(), done, sum(cpu_s(worker.process.pid) for worker in workers)))
        time.sleep(LOOK_S)
    (begun, first, cpu_before), (ended, last, cpu_after) = seen[0], seen[-1]
    return (last - first) / (ended - begun), (cpu_after - cpu_before) / (last - first)


def through(fleet: Fleet, messages: list[Sent], workers: int) -> tuple[float, float]:
    """Events a second through so many workers, and CPU microseconds of theirs per event."""
    fleet.produce(messages)
    before = len(fleet.workers)
    for _ in range(workers):
        fleet.start_worker()
    started = fleet.workers[before:]
    per_message = sum(map(events, messages)) / len(messages)
    per_second, cpu = rate(started, len(messages))
    fleet.caught_up()
    for worker in started:
        worker.stop(30)
    return per_second * per_message, cpu / per_message * 1e6


def throughput() -> dict[str, float]:
    """One worker and two, in ratio to the same work called directly, and to one event per message."""
    logs = logs_of(PROCESSES, BATCH_RECORDS, HOSTS)
    naive = in_turn(logs_of(NAIVE_PROCESSES, 1, 2))
    messages = in_turn(logs)
    amount = sum(map(events, messages))
    found: dict[str, float] = {"events": amount}
    seconds, rows = direct(logs)
    found["direct_events_per_s"] = amount / seconds
    with a_fleet() as fleet:
        sink = Sink(lambda: Connection(fleet.parts.addresses["writer"]), Path("/nonexistent"), time.sleep, time.monotonic)
        began = time.perf_counter()
        for at in range(0, len(rows), INSERT_ROWS):
            sink.write(rows[at : at + INSERT_ROWS], f"direct {at}")
        found["direct_stored_events_per_s"] = amount / (seconds + time.perf_counter() - began)
        found["worker_events_per_s"], found["worker_us"] = through(fleet, messages, 1)
        again = in_turn([[batch._replace(host_id=UUID(int=batch.host_id.int + 1)) for batch in log] for log in logs])
        found["two_workers_events_per_s"], _ = through(fleet, again, 2)
        found["naive_events_per_s"], found["naive_us"] = through(fleet, naive, 1)
    found["ratio_to_direct"] = found["worker_events_per_s"] / found["direct_events_per_s"]
    found["ratio_to_direct_stored"] = found["worker_events_per_s"] / found["direct_stored_events_per_s"]
    found["ratio_to_naive"] = found["worker_events_per_s"] / found["naive_events_per_s"]
    found["two_to_one"] = found["two_workers_events_per_s"] / found["worker_events_per_s"]
    return found


def insert_rate() -> dict[str, float]:
    """The sink beside a bare client that sends the same rows, turned into columns beforehand, as Native; in turn."""
    times: dict[str, list[float]] = {"sink": [], "bare": []}
    with tempfile.TemporaryDirectory() as name, running_parts(Path(name)) as parts:
        address = parts.addresses["writer"]
        sink = Sink(lambda: Connection(address), Path(name), time.sleep, time.monotonic)
        bare = clickhouse_driver.Client(
            address.host, address.port, address.database, address.user, address.password, compression="lz4",
            settings={"strings_as_bytes": True, "async_insert": 0},
        )  # fmt: skip
        for number, rows in enumerate(synthetic(2, 2 * INSERTS * INSERT_ROWS, INSERT_ROWS)):
            names, columns = _transposed(IMAGES, rows)
            began = time.perf_counter()
            if number % 2:
                sink.write(rows, f"bench {number}")
                times["sink"].append(time.perf_counter() - began)
            else:
                bare.execute(f"INSERT INTO images ({', '.join(names)}) VALUES", [list(one) for one in columns], columnar=True)
                times["bare"].append(time.perf_counter() - began)
    per_s = {way: INSERT_ROWS / median(seconds[1:]) for way, seconds in times.items()}
    return {"sink_rows_per_s": per_s["sink"], "bare_rows_per_s": per_s["bare"], "ratio_to_bare": per_s["sink"] / per_s["bare"]}


def newest_of(log: Sequence[Batch]) -> list[int]:
    """Of each batch the largest version among its rows of images, 0 if it has none."""
    state = HostState()
    return [max((row.version for row in apply(state, batch) if isinstance(row, ImageRow)), default=0) for batch in log]


def freshness() -> dict[str, float]:
    """Hosts that ship each quarter of a second what happened in it, 1,000 events a second in all: until a batch's last row is seen."""
    records = int(EVENTS_PER_S * GATHERED_S / SHIPPING_HOSTS)
    processes = SHIPPING_S * EVENTS_PER_S // SHIPPING_HOSTS // 2
    logs = [log[: int(SHIPPING_S / GATHERED_S)] for log in logs_of(processes, records, SHIPPING_HOSTS)]
    wanted = newest_of(logs[0])
    with a_fleet() as fleet:
        worker = fleet.start_worker()
        fleet.ready(worker)
        messages = in_turn(logs)
        sent_at: dict[tuple[str, int], float] = {}

        def sent(number: int) -> None:
            sent_at[messages[number].key.decode(), number // SHIPPING_HOSTS] = time.monotonic()

        load = fleet.load(messages, SHIPPING_S, sent)
        delays = list(seen_after(fleet.parts, sent_at, wanted, load.is_alive))
        load.all_sent()
    calm = delays[len(delays) // 10 :]
    worst = sorted(calm)[len(calm) * 99 // 100]
    gathered = GATHERED_S / 2
    return {
        "batches": len(calm),
        "batch_to_row_s": median(calm),
        "event_to_row_s": median(calm) + gathered,
        "event_to_row_p99_s": worst + gathered,
    }


def seen_after(parts: Parts, sent_at: dict[tuple[str, int], float], wanted: list[int], more: Callable[[], bool]) -> Iterator[float]:
    """Seconds from the sending of each batch to its newest row's being found."""
    found_to: dict[str, int] = {}
    with Connection(parts.addresses["reader"]) as reader:
        while more() or any(number > found_to.get(key, -1) for key, number in sent_at):
            newest = {
                str(host): version for host, version in reader.query("SELECT host_id, max(version) FROM images GROUP BY host_id").rows
            }
            now = time.monotonic()
            for (key, number), at in list(sent_at.items()):
                if newest.get(key, 0) >= wanted[number] > 0:
                    yield now - at
                if newest.get(key, 0) >= wanted[number]:
                    found_to[key] = max(found_to.get(key, -1), number)
                    del sent_at[key, number]
            time.sleep(0.01)


PARTS: dict[str, Callable[[Path | None], dict[str, Any]]] = {
    "throughput": lambda _: throughput(),
    "insert": lambda _: insert_rate(),
    "freshness": lambda _: freshness(),
    "recovery": lambda _: bench_fleet_faults.recovery(),
    "duplicates": lambda _: bench_fleet_faults.duplicates(),
    "questions": bench_fleet_questions.measure,
}


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {}
    for name in options.parts or PARTS:
        found = PARTS[name](options.directory)
        figures |= found
        print(f"| {name} | | |")
        for key, value in found.items():
            print(f"| {key} | {value:,.3f} | |", flush=True)
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
