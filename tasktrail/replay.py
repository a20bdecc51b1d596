"""``tasktrail replay``: rows computed again from the log."""

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from uuid import UUID

import click

from broker.connection import LogReader
from queries.times import Moment, parse_moment
from schemas import topics
from schemas.errors import BadInput
from schemas.rows import Row
from store import address, layout
from store.connection import in_turn
from streams.fleet.replay import CORRECTION_MAX, Replay
from streams.memory import Memory
from streams.sinks.clickhouse import Sink
from tasktrail.kafka import cluster_of, config_option, kafka_option
from tasktrail.options import Time
from tasktrail.settings import read_settings
from tasktrail.stream import refusing

ROWS_AT_ONCE = 10_000


@click.command()
@kafka_option
@config_option
@click.option("--store", metavar="URL", help="clickhouse://user@host/database that the rows go to.")
@click.option("--from", "since", type=Time(), required=True, metavar="TIME", help="What arrived at that time or later.")
@click.option("--to", "until", type=Time(), metavar="TIME", help="And before this one.  [default: now]")
@click.option("--host-id", "host_ids", type=click.UUID, multiple=True, metavar="ID", help="Only of this host; may be given again.")
@click.option(
    "--correction",
    type=click.IntRange(1, CORRECTION_MAX),
    default=1,
    show_default=True,
    help="Give a larger number than the last time to replay the same stretch again.",
)
def replay(
    kafka: str | None,
    config_file: str | None,
    store: str | None,
    since: Moment,
    until: Moment | None,
    host_ids: tuple[UUID, ...],
    correction: int,
) -> None:
    """Compute rows again from the log, after a fix: they take the place of those that were stored.

    Each host is joined from what the store remembers of the moment before, so what began earlier keeps its rows. Workers may go on
    meanwhile. Only what Kafka still keeps can be replayed; to fill an empty store, give a time before all of it.

    \b
    Exit codes:
      0  done
      2  an option or a setting does not fit, or there are no topics
      4  Kafka or the store cannot be reached: nothing is lost, give the same command again

    \b
    Examples:
      tasktrail replay --from 2h
      tasktrail replay --from 2026-11-20 --to 2026-11-21 --host-id 0f8e8a52-8d0c-4d54-9f0b-6a1c30a0b1de --correction 2
    """
    settings = read_settings({"kafka": kafka, "store": store}, file=config_file).settings
    if not address.is_address(settings.store):
        raise BadInput(f"the fleet's store is a server, not the directory {settings.store}", "give --store clickhouse://user@host/database")
    until = until or parse_moment("0s", datetime.now().astimezone())
    if until.begin_ns <= since.begin_ns:
        raise BadInput("--to is not after --from", "give a later time")
    writer = address.parse(settings.store, os.environ)
    reader = LogReader(cluster_of(settings))
    partitions = range(reader.partitions(topics.EVENTS))
    sink = Sink(in_turn(writer), layout.make(Path(settings.state_dir)).deadletter, time.sleep, time.monotonic)
    work = Replay(reader, Memory(in_turn(writer)), refusing(settings), correction)
    keys = frozenset(str(one).encode() for one in host_ids)
    for number, rows in enumerate(_gathered(work.rows(partitions, since.begin_ns // 1_000_000, until.begin_ns // 1_000_000, keys))):
        sink.write(rows, f"replay/{topics.EVENTS}/{since.begin_ns}/{correction}/{number}")
    done = work.done
    refused = f"; {done.refused} messages could not be read or were not taken" if done.refused else ""
    click.echo(f"tasktrail: joined {done.messages} messages again, {done.rows} rows stored{refused}", err=True)


def _gathered(rows: Iterator[list[Row]]) -> Iterator[list[Row]]:
    """Many messages' rows together."""
    gathered: list[Row] = []
    for some in rows:
        gathered += some
        if len(gathered) >= ROWS_AT_ONCE:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
