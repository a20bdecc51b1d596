"""``tasktrail stream``: a worker of the fleet. Start as many as there is work."""

import os
import time
from pathlib import Path

import click

from broker import cluster as clusters
from broker.connection import LogReader, Sender
from schemas import topics
from schemas.errors import BadInput
from store import address, layout
from store.connection import Connection
from streams.fleet.application import Application, Group
from streams.fleet.partition import accept
from streams.fleet.state_log import StateLog
from streams.fleet.storing import Storing
from streams.fleet.worker import Worker
from streams.sinks.clickhouse import Sink
from tasktrail.settings import read_settings

SESSION_S = 15.0


def say(line: str) -> None:
    """One line to the person, or the journal, that watches."""
    click.echo(f"tasktrail: {line}", err=True)


@click.command()
@click.option(
    "--kafka", required=True, metavar="HOST:PORT,…", envvar="TASKTRAIL_KAFKA", help="Some brokers of the cluster.  [$TASKTRAIL_KAFKA]"
)
@click.option("--store", metavar="URL", help="clickhouse://user@host/database that the rows go to.  [$TASKTRAIL_STORE]")
@click.option("--group", default="tasktrail", show_default=True, help="Consumer group: workers of one group share the partitions.")
@click.option("--member", default="", help="This worker's own name in the group: with one, a quick restart moves no partition.")
@click.option(
    "--session", "session_s", type=float, default=SESSION_S, show_default=True, help="Seconds of silence after which a worker is dead."
)
@click.option("--state-dir", metavar="DIR", help="Directory for dead letters of the store.")
def stream(kafka: str, store: str | None, group: str, member: str, session_s: float, state_dir: str | None) -> None:
    """Join the batches of many hosts out of Kafka, and store the rows; until SIGTERM.

    \b
    Examples:
      tasktrail stream --kafka k1:9092,k2:9092 --store clickhouse://tasktrail_writer@db.example/tasktrail

    Exit codes: 0 stopped on request, 2 bad input, 4 something that is needed is not there, 70 left the group: start it again.
    """
    settings = read_settings({"store": store, "state_dir": state_dir}).settings
    if not address.is_address(settings.store):
        raise BadInput(f"the fleet's store is a server, not the directory {settings.store}", "give --store clickhouse://user@host/database")
    writer = address.parse(settings.store, os.environ)
    place = layout.make(Path(settings.state_dir))
    cluster = clusters.cluster(kafka)
    reader, sender = LogReader(cluster), Sender(cluster)
    servers = tuple(f"{host}:{port}" for host, port in cluster.servers)
    taking_part = Group(servers, group, member, session_s, reader.partitions(topics.EVENTS), str(place.state))
    application = Application(taking_part, say)
    sink = Sink(lambda: Connection(writer), place.deadletter, time.sleep, time.monotonic, budget_s=2.0)
    storing = Storing(sink, topics.EVENTS, application.failed)
    worker = Worker(application, StateLog(sender, reader, group), storing, accept, say, application.failed)
    storing.start()
    say(f"takes part in group {group} at {cluster.bootstrap}, rows go to {writer.host}")
    code = application.run(worker)
    storing.stop()
    # Faust's threads may wait for ever; all that matters is saved.
    os._exit(code)
