"""``tasktrail find``: look for images by any column."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import click

from queries import find as finding
from queries import hostnames
from queries.endings import short_ending
from queries.history import label
from queries.jsonlines import as_object
from queries.per_host import Runs
from queries.per_host import per_host as counted_per_host
from queries.quoting import command_line, quote_name
from queries.records import row_object
from queries.rows import Brief
from queries.times import Moment, iso_time, show_clock
from schemas.errors import BadInput
from schemas.rows import ImageKind, ImageRow
from tasktrail import terminal
from tasktrail.filters import conditions, filter_options, take
from tasktrail.options import Time, closing, json_option, reading, store_options, write_line
from tasktrail.terminal import Column

KINDS = [kind.name.lower() for kind in ImageKind]
HOST_COLUMNS = (Column("HOST", elastic=True), Column("IMAGES", right=True), Column("FIRST BEGAN"), Column("LAST BEGAN"))
COLUMNS = (Column("BEGAN"), Column("USER"), Column("PROCESS"), Column("COMMAND", elastic=True), Column("ENDED"))
ROWS_AT_ONCE = 1000
"""Rows of one table; more make further tables, so that a long answer can be read while it comes."""


@click.command(
    epilog=closing(
        "tasktrail find --exe '*/curl' --under sshd --since 2h",
        "tasktrail find --user www-data --comm sh --living",
        "tasktrail find --arg '*.example.com*' --json | jq -r .cwd",
        "tasktrail find --where exit_signal=11 --where 'duration<1000000000' --limit 20",
        "tasktrail find --under 812 --where 'max_rss_kib>1000000'",
        "tasktrail find --comm nc --under sshd --per-host",
    )
)
@filter_options
@click.option("--since", type=Time(), metavar="TIME", help="Began at or after it: 2h, 10:32, 2026-11-25, 2026-11-25T10:32:05.")
@click.option("--until", type=Time(), metavar="TIME", help="Began before it.")
@click.option(
    "--kind", type=click.Choice([*KINDS, "any"]), multiple=True, help="How it is known; several may be given.  [default: all but fork]"
)
@click.option("--living", is_flag=True, help="Only what had not ended.")
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="Only the newest N.")
@click.option("--per-host", is_flag=True, help="Only how many on each host, and when the first and the last began.")
@json_option
@store_options
def find(
    since: Moment | None,
    until: Moment | None,
    kind: tuple[str, ...],
    living: bool,
    limit: int | None,
    per_host: bool,
    as_json: bool,
    store: str | None,
    config_file: str | None,
    **filters: Any,
) -> None:
    """Look for images (programs that processes ran) by any column; all conditions must hold.

    They come in the order in which their processes were created, host by host; with --limit in the order in which they began.

    A GLOB is a whole text with * for anything, ? for one byte and [...] for a set. In a pipe every image is a JSON object with all its
    columns; bytes that are not UTF-8 follow exactly in a field named ..._hex. `tasktrail sql 'DESCRIBE images'` lists the columns.
    """
    if per_host and limit is not None:
        raise BadInput("--per-host counts all that fit", "leave out --limit")
    with reading(store, config_file) as source:
        wanted = conditions(source, take(filters))
        wanted += finding.began(since.begin_ns if since else None, until.begin_ns if until else None)
        if "any" not in kind:
            wanted.append(finding.kinds(kind or [name for name in KINDS if name != "fork"]))
        if living:
            wanted.append(finding.living())
        if per_host:
            show_hosts(counted_per_host(source, wanted), as_json)
            return
        if as_json or not terminal.on_terminal():
            for row in finding.find(source, ImageRow, wanted, limit):
                write_line(row_object(row))
            return
        found = finding.find(source, Brief, wanted, limit)
        number = 0
        while rows := list(islice(found, ROWS_AT_ONCE)):
            number += len(rows)
            terminal.table(COLUMNS, cells(rows))
    terminal.say("nothing fits" if not number else f"{number} found", dim=True)


def show_hosts(found: Sequence[Runs], as_json: bool) -> None:
    """A line for each host."""
    if as_json or not terminal.on_terminal():
        for one in found:
            write_line(as_object((one._asdict() | {"first": iso_time(one.first), "last": iso_time(one.last)}).items()))
        return
    now_ns = time.time_ns()
    keys = hostnames.keys(hostnames.Host(one.host_id, one.host) for one in found)
    rows = [(keys[one.host_id], str(one.images), show_clock(one.first, now_ns), show_clock(one.last, now_ns)) for one in found]
    if rows:
        terminal.table(HOST_COLUMNS, rows)
    terminal.say(f"{len(found)} hosts, {sum(one.images for one in found)} images" if found else "nothing fits", dim=True)


def cells(rows: Sequence[Brief]) -> Iterator[tuple[str, str, str, str, str]]:
    """The table's cells."""
    now_ns = time.time_ns()
    keys = hostnames.keys(hostnames.Host(row.host_id, row.host) for row in rows)
    for row in rows:
        name = label(row.tgid, row.comm if row.kind != ImageKind.UNKNOWN or row.comm else None)
        host = f"{keys[row.host_id]}:" if len(keys) > 1 else ""
        user = quote_name(row.user) if row.user else str(row.uid)
        yield show_clock(row.begin, now_ns), user, host + name, command_line(row.argv), short_ending(row)
