"""What a fleet needs, computed from measured figures: ``python -m deploy.sizing [--processes 2] [--days 90]`` prints the table of
docs/fleet.md, a test holds the page to it.

The figures are of one core of the machine that docs/benchmarks.md names; they are rounded to the worse side.
"""

import argparse
import math
from typing import NamedTuple

EVENTS_PER_PROCESS = 3
"""Fork, exec, exit."""
WIRE_BYTES_PER_PROCESS = 60
"""Compressed, in Kafka's log, in a storm (55 measured)."""
WIRE_BYTES_PER_MESSAGE = 450
"""What a small batch takes beside that: an empty one 230, one with a single process 650 in all."""
MESSAGES_PER_SECOND_MAX = 4
"""Of one host: the ring is emptied every quarter of a second while something happens."""
MESSAGES_PER_SECOND_MIN = 0.4
"""Of one host on which nothing happens: a clock mark every five seconds, and an empty batch behind it."""
RING_BYTES_PER_PROCESS = 645
"""Not compressed, in the ring and in the spool."""
EVENT_S = 0.000_030
"""A worker's time for an event in a full batch: decoding, join, rows, insert, states (worker_us of `make bench-fleet`: 29)."""
MESSAGE_S = 0.0004
"""A worker's time for a message that holds little, beside that: Kafka's client, Faust, small inserts (naive_us there is 340)."""
ROW_BYTES = 60
"""In the store, compressed: 43 to 45 measured in images, 14 in programs. A process is one row of each."""
WORKER_BYTES = 300_000_000
"""A worker's memory without hosts: 95 MB at rest, the rest for batches and rows on their way."""
HOST_BYTES = 450_000
"""A worker's memory for a host with 80 living processes."""
REPLICAS = 3
KAFKA_DAYS = 7
FULL = 0.5
"""Part of a core, or of a partition's share of one, that is planned with: the rest is for catching up."""
SECONDS_PER_DAY = 86_400
FLEETS = (10, 100, 1_000, 10_000, 100_000)
PARTITIONS_MIN = 8


class Need(NamedTuple):
    """What a fleet needs.

    events      a second
    messages    a second
    wire_bytes  into Kafka a second
    kafka_bytes on all brokers' disks together, for KAFKA_DAYS
    store_bytes of one replica, for the days that rows are kept
    workers     processes of one core each, half busy
    partitions  of events and state
    memory_bytes of each worker, were half of them gone
    """

    events: float
    messages: float
    wire_bytes: float
    kafka_bytes: float
    store_bytes: float
    workers: int
    partitions: int
    memory_bytes: float


def messages_per_second(processes: float) -> float:
    """Of one host that starts so many processes a second: a start and an end each fill a quarter of a second, at most all of them."""
    return min(MESSAGES_PER_SECOND_MAX, MESSAGES_PER_SECOND_MIN + 2 * processes)


def need(hosts: int, processes: float, days: int) -> Need:
    """Of so many hosts, each of which starts so many processes a second, with rows kept so many days."""
    started, messages = hosts * processes, hosts * messages_per_second(processes)
    wire = started * WIRE_BYTES_PER_PROCESS + messages * WIRE_BYTES_PER_MESSAGE
    cores = messages * MESSAGE_S + started * EVENTS_PER_PROCESS * EVENT_S
    workers = max(2, math.ceil(cores / FULL))
    # Twice as many as workers, so that there is room to grow; a power of two only for the look of it.
    partitions = max(PARTITIONS_MIN, 2 ** math.ceil(math.log2(2 * workers)))
    memory = WORKER_BYTES + 2 * hosts / workers * HOST_BYTES
    kafka = wire * KAFKA_DAYS * SECONDS_PER_DAY * REPLICAS
    store = started * ROW_BYTES * days * SECONDS_PER_DAY
    return Need(started * EVENTS_PER_PROCESS, messages, wire, kafka, store, workers, partitions, memory)


def size(amount: float) -> str:
    """Bytes for people, two digits."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 else f"{amount:.1f} {unit}"


def table(processes: float, days: int) -> list[str]:
    """The rows of the page's table."""
    lines = [
        "| hosts | events/s | messages/s | into Kafka | Kafka's disks | store, a replica | workers | memory of each | partitions |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for hosts in FLEETS:
        one = need(hosts, processes, days)
        cells = [f"{hosts:,}", f"{one.events:,.0f}", f"{one.messages:,.0f}", f"{size(one.wire_bytes)}/s", size(one.kafka_bytes)]
        cells += [size(one.store_bytes), f"{one.workers:,}", size(one.memory_bytes), f"{one.partitions:,}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="What a fleet needs, from measured figures.")
    parser.add_argument("--processes", type=float, default=2.0, help="processes that a host starts a second (default 2)")
    parser.add_argument("--days", type=int, default=90, help="days that rows are kept (default 90)")
    chosen = parser.parse_args()
    print("\n".join(table(chosen.processes, chosen.days)))


if __name__ == "__main__":
    main()
