"""``tasktrail produce``: ship what the recorder keeps to the fleet's Kafka."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import click

from broker.connection import Sender
from producers import host, snapshot
from producers.allocator import hold_little
from producers.masking import Masking
from producers.prerequisites import check_rights
from producers.recorder import Recorder
from producers.remains import ends
from producers.ship import Here, Shipper
from producers.spool import Spool
from schemas import topics
from schemas.limits import BATCH_BYTES_MAX
from tasktrail import rights
from tasktrail.kafka import cluster_of, config_option, kafka_option
from tasktrail.keys import read_key
from tasktrail.loading import load, load_again
from tasktrail.settings import Settings, read_settings
from tasktrail.shipping import Shipping

QUEUE_BYTES = 4 << 20
"""Batches on their way to the brokers at a time: the ring or the spool has them still."""


def say(line: str) -> None:
    """One line to the person, or the journal, that watches."""
    click.echo(f"tasktrail: {line}", err=True)


@click.command()
@kafka_option
@config_option
@click.option("--pin-dir", metavar="DIR", help="Directory below a bpf file system that the recorder is pinned in.")
@click.option("--no-load", is_flag=True, help="Do not load the recorder: use the one that is there, and do not load it again.")
def produce(kafka: str | None, config_file: str | None, pin_dir: str | None, no_load: bool) -> None:
    """Ship what this host's recorder keeps to Kafka; until Ctrl-C or SIGTERM.

    While Kafka is away the kernel's ring holds on, then a spool in the state directory; nothing is lost before that is full, and what
    is lost then is told. The recorder stays in the kernel: what happens while no `produce` is there waits in its ring.

    \b
    Exit codes:
      0  stopped on request
      2  an option or a setting does not fit
      4  something that is needed is not there: privilege, recorder

    \b
    Examples:
      tasktrail produce --kafka k1:9092,k2:9092
      TASKTRAIL_METRICS=127.0.0.1:9477 tasktrail produce --kafka k1:9092
    """
    settings = read_settings({"kafka": kafka, "pin_dir": pin_dir}, file=config_file).settings
    cluster = cluster_of(settings)
    if config_file:
        os.environ["TASKTRAIL_CONFIG"] = config_file  # for the loader, which is a process of its own
    check_rights(rights.needed(settings, no_load))
    hold_little()
    # Until the loop takes the signals, being asked to stop ends whatever is being started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not no_load:
            load(settings, say)
        rights.give_up(rights.needed(settings, no_load), server=False)
        snapshots = Path(settings.run_dir) / snapshot.SPOOL.name
        masking = Masking(settings.argv_mask)
        with Recorder(Path(settings.pin_dir), snapshots, Path(settings.state_dir), masking) as recorder, recorder.lock():
            sender = partial(Sender, cluster, QUEUE_BYTES, 2 * BATCH_BYTES_MAX, gapless=True)
            shipping = _shipping(settings, recorder, sender, no_load)
            say(f"recording {host.hostname().decode(errors='backslashreplace')}, batches go to {cluster.bootstrap}")
            shipping.run()
    except KeyboardInterrupt:
        say("stopped while it was starting")


def _shipping(settings: Settings, recorder: Recorder, sender: "partial[Sender]", no_load: bool) -> Shipping:
    """All parts put together."""
    state_dir = Path(settings.state_dir)
    here = host.here(state_dir)
    headers = {topics.SESSION: os.urandom(8), topics.MACHINE: host.machine()}
    spool = Spool(state_dir / "spool", settings.spool_bytes, ends, sync=settings.spool_sync == "always")
    key = read_key(settings.sign_key_file) if settings.sign_key_file else b""
    shipper = Shipper(recorder, sender, spool, Here(*here, host.now, time.monotonic, headers, key))
    shipping = Shipping(shipper, recorder, say, None if no_load else lambda: load_again(settings, say))
    if settings.metrics:
        # Imported here: a host that nobody asks for numbers does without the client.
        from tasktrail.metrics import serve

        port = serve(settings.metrics, shipping.numbers)
        say(f"metrics on port {port}")
    return shipping
