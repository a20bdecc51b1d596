"""A worker's numbers for Prometheus."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from streams.fleet.application import Application
from streams.fleet.storing import Storing
from streams.fleet.worker import Worker
from streams.sinks.clickhouse import Sink
from tasktrail.metrics import Kind, Number

HOSTS_MAX = 20
"""Hosts whose delay is told by name: those that are latest. A number for each of thousands would cost Prometheus more than it tells."""


@dataclass(frozen=True, slots=True)
class Working:
    """What the numbers are read from; ``numbers`` is called in another thread, which only reads."""

    application: Application
    worker: Worker
    storing: Storing
    sink: Sink

    def numbers(self) -> Iterator[Number]:
        """All of them."""
        counts, storing, sink = self.worker.counts, self.storing, self.sink
        total = (
            ("worker_messages", "Messages that were joined.", counts.messages),
            ("worker_rows", "Rows that followed from them.", counts.rows),
            ("worker_unknown_images", "Rows of images of which only their being is known.", counts.unknown),
            ("worker_identity_clashes", "Machines that were found to have another one's host_id.", counts.clashes),
            ("worker_repeated", "Messages that a saved state covered already.", counts.repeated),
            ("worker_delivered_again", "Messages that Kafka's client delivered twice.", counts.again),
            ("worker_out_of_order", "Messages that it delivered out of order, which were asked for again.", counts.jumps),
            ("worker_dead_letters", "Messages that could not be read, or were not taken.", counts.dead),
            ("worker_refused", "Of those, messages that were not taken for their signature or version.", counts.refused),
            ("worker_partitions_rebuilt", "Partitions that were read from their begin, since states were missing.", counts.rebuilt),
            ("worker_saves", "Savings of states.", counts.saves),
            ("worker_rows_stored", "Rows that the store has confirmed.", storing.stored),
            ("worker_rows_dead", "Rows that no store would take, kept as files.", sink.dead),
            ("worker_store_retries", "Inserts that were tried again.", storing.retries + sink.retries),
        )
        delays = dict(self.worker.delays_s)
        lags = dict(self.application.lags)
        now = (
            ("worker_rows_waiting", "Rows that wait for the store.", storing.waiting),
            ("worker_store_well", "1 while the store takes rows.", float(not storing.trouble)),
            ("worker_partitions", "Partitions that this worker has.", len(self.worker.held)),
            ("worker_hosts", "Hosts of which something came since they were assigned.", len(delays)),
            ("worker_lag_messages", "Messages in its partitions that it has not taken yet.", sum(lags.values())),
            (
                "worker_delay_median_seconds",
                "Of all hosts, from the latest batch to its join.",
                median(delays.values() or [0.0]),
            ),
            ("worker_delay_max_seconds", "The same of the latest host.", max(delays.values(), default=0.0)),
        )
        yield from (Number(name, Kind.COUNTER, says, value) for name, says, value in total)
        yield from (Number(name, Kind.GAUGE, says, value) for name, says, value in now)
        for number, lag in sorted(lags.items()):
            yield Number("partition_lag_messages", Kind.GAUGE, "Messages not taken yet.", lag, {"partition": str(number)})
        for key in heapq.nlargest(HOSTS_MAX, delays, key=delays.__getitem__):
            name = key.decode("ascii", "replace")
            yield Number("host_delay_seconds", Kind.GAUGE, "Of the hosts that are latest.", delays[key], {"host_id": name})
