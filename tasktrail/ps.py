"""``tasktrail ps``: living processes with their chains."""

import time
from collections.abc import Iterator

import click

from queries import find as finding
from queries import hostnames
from queries.completeness import is_complete
from queries.history import History, label
from queries.living import fetch_living
from queries.quoting import CUT, quote_name
from queries.records import history_object
from queries.rows import Chained
from queries.times import Moment, show_clock
from tasktrail import terminal
from tasktrail.options import Time, closing, host_option, json_option, reading, store_options, write_line
from tasktrail.terminal import Column

COLUMNS = (Column("PID", right=True), Column("USER"), Column("SINCE"), Column("CHAIN", elastic=True))
USER_COLUMNS = 12


@click.command(
    epilog=closing(
        "tasktrail ps",
        "tasktrail ps --full | less -S",
        "tasktrail ps --host 'web-*' --since 1h",
        "tasktrail ps --json | jq -r 'select(.image.uid == 0) | .history'",
    )
)
@host_option("Only of these hosts")
@click.option("--since", type=Time(), metavar="TIME", help="Only processes created at or after it.")
@click.option("--full", is_flag=True, help="Whole chains, however long.")
@json_option
@store_options
def ps(host: str | None, since: Moment | None, full: bool, as_json: bool, store: str | None, config_file: str | None) -> None:
    """Show living processes, each with the chain of processes that led to it.

    Living means: no end was recorded, as of the newest rows in the store. Chains that do not fit lose elements in their middle, shown as an
    ellipsis. A ? behind the pid marks a chain that is not complete; `tasktrail history` says why.
    """
    with reading(store, config_file) as source:
        of_hosts = [hostnames.named(host)] if host else []
        found = fetch_living(source, [*of_hosts, *finding.created(since.begin_ns if since else None)])
        if as_json or not (terminal.on_terminal() or full):
            for one in found:
                write_line(history_object(one))
            return
        rows = list(found)
    terminal.table(COLUMNS, _rows(rows, full))
    not_complete = sum(not is_complete(one.image, one) for one in rows)
    terminal.say(f"{len(rows)} living, {not_complete} of them with a chain that is not complete", dim=True)


def _rows(rows: list[History[Chained]], full: bool) -> Iterator[tuple[str, str, str, str]]:
    """The table's cells."""
    now_ns = time.time_ns()
    keys = hostnames.keys(hostnames.Host(one.image.host_id, one.image.host) for one in rows)
    cells = []
    for one in rows:
        image = one.image
        mark = "" if is_complete(image, one) else "?"
        pid = f"{keys[image.host_id] + ':' if len(keys) > 1 else ''}{image.tgid}{mark}"
        user = quote_name(image.user) if image.user else str(image.uid)
        cells.append((pid, user[:USER_COLUMNS], show_clock(image.start, now_ns), [label(step.tgid, step.comm) for step in one.steps]))
    taken = sum(max([len(head), *(len(cell[at]) for cell in cells)]) + 2 for at, head in enumerate(("PID", "USER", "SINCE")))
    room = 1 << 30 if full else max(20, terminal.width() - taken)
    for pid, user, since, elements in cells:
        yield pid, user, since, terminal.fit_chain(elements, room, CUT)
