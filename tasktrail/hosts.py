"""``tasktrail hosts``: who reports."""

import time
from datetime import datetime

import click

from queries.hosts import HostSeen, fetch_hosts, remarks, state
from queries.jsonlines import as_object
from queries.quoting import quote_name
from queries.records import columns_of
from queries.times import Moment, parse_moment, show_clock
from tasktrail import terminal
from tasktrail.options import Time, closing, json_option, reading, store_options, write_line
from tasktrail.terminal import Column

COLUMNS = (
    Column("HOST"),
    Column("ID"),
    Column("STATE"),
    Column("SINCE"),
    Column("HEARD"),
    Column("LIVING", right=True),
    Column("REMARKS", elastic=True),
)
ID_CHARACTERS = 8
LOSSES_SINCE = "24h"


@click.command(
    epilog=closing("tasktrail hosts", "tasktrail hosts --bad", "tasktrail hosts --json | jq -r 'select(.state != \"recording\") | .host'")
)
@click.option("--since", type=Time(), metavar="TIME", help=f"Losses since then.  [default: {LOSSES_SINCE}]")
@click.option("--bad", is_flag=True, help="Only hosts of which there is something to say.")
@json_option
@store_options
def hosts(since: Moment | None, bad: bool, as_json: bool, store: str | None, config_file: str | None) -> None:
    """Show who reports: since when it is recorded, when it was heard of, and what is to be said of it.

    A host is silent when nothing has come for a minute; the recorder says something every few seconds. What was lost is counted by its
    cause, as in table losses. A machine that has another machine's host_id gets a name of its own; both are told.
    """
    since = since or parse_moment(LOSSES_SINCE, datetime.now().astimezone())
    with reading(store, config_file) as source:
        seen = fetch_hosts(source, since.begin_ns)
    now_ns = time.time_ns()
    told = [(one, remarks(one, now_ns)) for one in seen]
    shown = [(one, says) for one, says in told if says or not bad]
    if as_json or not terminal.on_terminal():
        for one, says in shown:
            write_line(_object(one, says, now_ns))
        return
    terminal.table(COLUMNS, [_cells(one, says, now_ns) for one, says in shown])
    troubled = sum(bool(says) for _, says in told)
    terminal.say(f"{len(told)} hosts, {troubled} of them with remarks", dim=True)


def _cells(one: HostSeen, says: list[str], now_ns: int) -> tuple[str, ...]:
    row = one.row
    since = show_clock(row.recording_since, now_ns) if row.recording_since else "-"
    name, short_id = quote_name(row.host), str(row.host_id)[:ID_CHARACTERS]
    return name, short_id, state(row, now_ns), since, show_clock(row.heard, now_ns), str(row.living), "; ".join(says)


def _object(one: HostSeen, says: list[str], now_ns: int) -> dict[str, object]:
    """A host as JSON: the columns of table hosts, its state, losses by cause, remarks."""
    losses = {cause.name.lower(): {"times": lost.times, "amount": lost.amount} for cause, lost in sorted(one.losses.items())}
    return as_object([*columns_of(one.row), ("state", state(one.row, now_ns)), ("losses", losses), ("remarks", says)])
