"""``tasktrail stream``: a worker of the fleet. Start as many as there is work."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from broker.connection import LogReader, Sender
from schemas import topics
from schemas.errors import BadInput, Unavailable
from schemas.signing import refusal
from store import address, layout
from store.connection import in_turn
from streams.fleet.application import Application, Group
from streams.fleet.partition import Message, accept
from streams.fleet.state_log import StateLog
from streams.fleet.storing import Storing
from streams.fleet.worker import Worker
from streams.memory import Memory
from streams.sinks.clickhouse import Sink
from tasktrail.kafka import cluster_of, config_option, kafka_option
from tasktrail.keys import read_key
from tasktrail.settings import Settings, read_settings

SESSION_S = 15.0


def say(line: str) -> None:
    """One line to the person, or the journal, that watches."""
    click.echo(f"tasktrail: {line}", err=True)


@click.command()
@kafka_option
@config_option
@click.option("--store", metavar="URL", help="clickhouse://user@host/database that the rows go to.")
@click.option("--group", default="tasktrail", show_default=True, help="Consumer group: workers of one group share the partitions.")
@click.option("--member", default="", help="This worker's own name in the group: with one, a quick restart moves no partition.")
@click.option(
    "--session", "session_s", type=float, default=SESSION_S, show_default=True, help="Seconds of silence after which a worker is dead."
)
@click.option("--state-dir", metavar="DIR", help="Directory for dead letters of the store.")
def stream(
    kafka: str | None, config_file: str | None, store: str | None, group: str, member: str, session_s: float, state_dir: str | None
) -> None:
    """Join the batches of many hosts out of Kafka, and store the rows; until SIGTERM.

    Each worker takes a share of the partitions. Kill it at any moment: another one, or its next start, goes on where it was.

    \b
    Exit codes:
      0   stopped on request
      2   an option or a setting does not fit, or there are no topics
      4   something that is needed is not there
      70  left the group: start it again

    \b
    Examples:
      tasktrail stream --kafka k1:9092,k2:9092 --store clickhouse://tasktrail_writer@db.example/tasktrail
      tasktrail stream --member worker-1 --config /etc/tasktrail/worker.toml
    """
    settings = read_settings({"kafka": kafka, "store": store, "state_dir": state_dir}, file=config_file).settings
    if not address.is_address(settings.store):
        raise BadInput(f"the fleet's store is a server, not the directory {settings.store}", "give --store clickhouse://user@host/database")
    writer = address.parse(settings.store, os.environ)
    refuse = refusing(settings)
    place = layout.make(Path(settings.state_dir))
    cluster = cluster_of(settings)
    reader = LogReader(cluster)
    partitions = reader.partitions(topics.EVENTS)
    if reader.partitions(topics.STATE) != partitions:
        raise BadInput(f"topics {topics.EVENTS} and {topics.STATE} differ in partitions", "make them by `tasktrail topics create`")
    taking_part = Group(cluster, group, member, session_s, partitions, str(place.state))
    application = Application(taking_part, say, _ends(LogReader(cluster)))
    sink = Sink(in_turn(writer), place.deadletter, time.sleep, time.monotonic, budget_s=2.0)
    storing = Storing(sink, topics.EVENTS, application.failed)
    worker = Worker(
        application, StateLog(Sender(cluster), reader, group), storing, refuse, say, application.failed, Memory(in_turn(writer))
    )
    if settings.metrics:
        from tasktrail.metrics import serve
        from tasktrail.working import Working

        port = serve(settings.metrics, Working(application, worker, storing, sink).numbers)
        say(f"metrics on port {port}")
    storing.start()
    say(f"takes part in group {group} at {cluster.bootstrap}, rows go to {writer.host}")
    code = application.run(worker)
    storing.stop()
    # Faust's threads may wait for ever; all that matters is saved.
    os._exit(code)


def refusing(settings: Settings) -> Callable[[Message], str]:
    """Why a message is not taken: with a master key, also when it is not signed by its host."""
    if not settings.sign_master_file:
        return accept
    master = read_key(settings.sign_master_file)
    return lambda message: accept(message) or refusal(master, message.key, message.headers, message.value)


def _ends(reader: LogReader) -> Callable[[Iterable[int]], dict[int, int]]:
    def ends(partitions: Iterable[int]) -> dict[int, int]:
        try:
            return {number: mark.end for number, mark in reader.watermarks(topics.EVENTS, partitions).items()}
        except BadInput as failure:
            raise Unavailable(failure.problem, failure.cure) from None

    return ends
