"""``tasktrail status``: whether this host is recorded, since when, and at what cost."""

import time
from contextlib import ExitStack
from dataclasses import asdict

import click

from queries.quoting import quote_text
from queries.records import row_object
from queries.rows import Source
from schemas.errors import TasktrailError
from tasktrail import terminal
from tasktrail.options import closing, in_force, json_option, reading, store_options, write_line
from tasktrail.status_facts import gather, lines, verdict

BROKEN = 4


EXITS = {0: "recording and storing", 4: "not recording, or not storing; the first line says which and why"}


@click.command(
    epilog=closing(
        "tasktrail status",
        "tasktrail status --json | jq .run.living",
        "tasktrail status > /dev/null || systemctl restart tasktrail",
        exits=EXITS,
    )
)
@json_option
@store_options
def status(as_json: bool, store: str | None, config_file: str | None) -> None:
    """Show whether this host is being recorded and stored, since when, what was lost, and what it costs."""
    settings = in_force(store, config_file).settings
    now_s = time.time()
    with ExitStack() as stack:
        source: Source | None = None
        says = ""
        try:
            source = stack.enter_context(reading(store, config_file))
        except TasktrailError as failure:
            says = str(failure)
        standing = gather(settings, source, says, now_s)
    good, sentence = verdict(standing)
    if as_json:
        shown = asdict(standing) | {"losses": [row_object(row) for row in standing.losses]}
        write_line({"recording_and_storing": good, "says": sentence, **shown})
    else:
        for name, value in lines(standing, settings, now_s):
            terminal.say(f"{name:17} {quote_text(value.encode('utf-8', 'surrogateescape'))}")
    if not good:
        raise click.exceptions.Exit(BROKEN)
