"""``tasktrail run``: one host, recorded, joined and stored."""

import os
import signal
import time
from pathlib import Path

import click

from producers import host, snapshot
from producers.masking import Masking
from producers.prerequisites import check_rights
from producers.recorder import Recorder
from store import address, layout, migrate
from store.connection import Connection, in_turn
from store.server import Ports, Server
from store.server_config import Limits
from streams.embedded import Embedded, Host
from streams.memory import Memory
from streams.sinks.clickhouse import Sink
from tasktrail import rights
from tasktrail.loading import load, load_again
from tasktrail.runner import Runner
from tasktrail.settings import Settings, read_settings

DAY_NS = 86_400_000_000_000


def say(line: str) -> None:
    """One line to the person, or the journal, that watches."""
    click.echo(f"tasktrail: {line}", err=True)


@click.command()
@click.option("--store", metavar="DIR|URL", help="Where the rows go: a directory, or clickhouse://user@host/database.  [$TASKTRAIL_STORE]")
@click.option("--pin-dir", metavar="DIR", help="Directory below a bpf file system that the recorder is pinned in.")
@click.option("--no-load", is_flag=True, help="Do not load the recorder: use the one that is there, and do not load it again.")
def run(store: str | None, pin_dir: str | None, no_load: bool) -> None:
    """Record this host, join what happens into histories, and store them; until Ctrl-C or SIGTERM.

    The recorder is loaded into the kernel and stays there: what happens while no `run` is there waits in its ring.

    \b
    Examples:
      tasktrail run
      tasktrail run --store /srv/tasktrail
      tasktrail run --store clickhouse://tasktrail_writer@db.example/tasktrail

    Exit codes: 0 stopped on request, 2 bad input, 4 something that is needed is not there.
    """
    settings = read_settings({"store": store, "pin_dir": pin_dir}).settings
    check_rights(rights.needed(settings, no_load), ", or try `tasktrail demo`")
    # Until the runner takes the signals, being asked to stop ends whatever is being started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _start(settings, no_load)
    except KeyboardInterrupt:
        say("stopped while it was starting")


def _start(settings: Settings, no_load: bool) -> None:
    """Load the recorder, take its ring, open the store, and stream."""
    if not no_load:
        load(settings, say)
    rights.give_up(rights.needed(settings, no_load), server=not address.is_address(settings.store))
    spool = Path(settings.run_dir) / snapshot.SPOOL.name
    masking = Masking(settings.argv_mask)
    with Recorder(Path(settings.pin_dir), spool, Path(settings.state_dir), masking) as recorder, recorder.lock():
        if address.is_address(settings.store):
            writer = address.parse(settings.store, os.environ)
            migrate.apply(writer, settings.retention_days, without=migrate.ONE_HOST)
            place = layout.make(Path(settings.state_dir))
            _stream(settings, recorder, None, writer, place, no_load)
        else:
            limits = Limits(memory_bytes=settings.memory_bytes)
            with Server(Path(settings.store), Ports(settings.tcp_port, settings.http_port), limits) as server:
                migrate.apply(server.address("writer"), settings.retention_days, without=migrate.ONE_HOST)
                _stream(settings, recorder, server, None, layout.make(Path(settings.store)), no_load)


def _stream(
    settings: Settings,
    recorder: Recorder,
    server: Server | None,
    writer: address.Address | None,
    place: layout.Layout,
    no_load: bool,
) -> None:
    """Run the stream until it is asked to stop."""
    here = host.here(Path(settings.state_dir))

    elsewhere = in_turn(writer) if writer is not None else None

    def connect() -> Connection:
        if elsewhere is not None:
            return elsewhere()
        assert server is not None
        return Connection(server.address("writer"))

    sink = Sink(connect, place.deadletter, time.sleep, time.monotonic, budget_s=2.0)
    kept_ns = settings.retention_days * DAY_NS
    state_path = place.state / f"{here.host_id}.json"
    stream = Embedded(recorder, sink, state_path, Host(*here, host.now, host.machine()), kept_ns, Memory(connect))
    if stream.progress.recalled:
        say(f"the join's state was not there: {stream.progress.recalled} living processes were taken from the store")
    if stream.progress.put_back:
        say("the store was put back to an earlier state: what lives is written again, what ended meanwhile is told in table losses")
    runner = Runner(stream, recorder, server, say, None if no_load else lambda: load_again(settings, say), place.status)
    reader = f"; ask with `tasktrail ps --store {settings.store}`" if server is not None else ""
    say(f"recording {os.fsdecode(here.hostname)} into {settings.store}{reader}")
    runner.run()
