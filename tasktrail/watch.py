"""``tasktrail watch``: each exec as it happens."""

import select
import sys
import time
from typing import Any

import click

from queries import hostnames
from queries.completeness import is_complete
from queries.history import History, readable
from queries.quoting import command_line, quote_name
from queries.records import history_object
from queries.rows import Chained
from queries.times import Moment, show_time
from queries.watch import Watcher
from tasktrail import terminal
from tasktrail.filters import conditions, filter_options, take
from tasktrail.options import Time, closing, json_option, reading, store_options, write_line


@click.command(
    epilog=closing(
        "tasktrail watch",
        "tasktrail watch --under sshd",
        "tasktrail watch --user root --exe '/tmp/*'",
        "tasktrail watch --host 'web-*' --since 10m",
        "tasktrail watch --json | jq -r .history",
    )
)
@filter_options
@click.option(
    "--interval",
    type=click.FloatRange(min=0.05),
    default=0.5,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks at the store.",
)
@click.option("--since", type=Time(), metavar="TIME", help="Begin with what began at or after it.  [default: what comes from now on]")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N execs.")
@json_option
@store_options
def watch(
    interval: float,
    since: Moment | None,
    count: int | None,
    as_json: bool,
    store: str | None,
    config_file: str | None,
    **filters: Any,
) -> None:
    """Show each exec as it happens, with its chain, until Ctrl-C.

    An exec is shown once its row is stored: some tenths of a second after it, or when it ends. None is left out and none comes twice.
    """
    as_json = as_json or not terminal.on_terminal()
    try:
        with reading(store, config_file) as source:
            wanted = take(filters)
            hosts = hostnames.named(wanted.host) if wanted.host else None
            watcher = Watcher(source, time.time_ns, conditions(source, wanted), hosts)
            watcher.start(since.begin_ns if since else None)
            _follow(watcher, interval, count, as_json)
    except KeyboardInterrupt:
        return


def _follow(watcher: Watcher, interval: float, count: int | None, as_json: bool) -> None:
    """Show what comes, up to ``count`` execs."""
    shown = 0
    while True:
        for history in watcher.look():
            _show(history, as_json)
            shown += 1
            if shown == count:
                return
        sys.stdout.flush()
        select.select([], [], [], interval)


def _show(history: History[Chained], as_json: bool) -> None:
    if as_json:
        write_line(history_object(history))
        return
    image = history.image
    user = quote_name(image.user) if image.user else str(image.uid)
    mark = "" if is_complete(image, history) else "  (not complete)"
    terminal.say(f"{show_time(image.begin)[11:]}  {user}  {readable(history.steps)}{mark}")
    terminal.say(f"    {command_line(image.argv)}", dim=True)
