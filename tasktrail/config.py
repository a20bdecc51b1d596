"""``tasktrail config``: what is set, and where."""

import click

from queries.quoting import quote_text
from tasktrail import terminal
from tasktrail.options import closing, in_force, json_option, store_options, write_line
from tasktrail.settings import NAMES
from tasktrail.terminal import Column

EXITS = {0: "done", 2: "a setting is not known or does not fit"}


@click.command(
    epilog=closing(
        "tasktrail config",
        "TASKTRAIL_RETENTION_DAYS=30 tasktrail config",
        "tasktrail config --json | jq -r 'select(.from != \"default\")'",
        exits=EXITS,
    )
)
@json_option
@store_options
def config(as_json: bool, store: str | None, config_file: str | None) -> None:
    """Show the settings in force, and where each value comes from.

    Defaults, then /etc/tasktrail/tasktrail.toml, then the environment (TASKTRAIL_ and the name in capitals), then flags. The file holds
    lines such as

    \b
      store = "/srv/tasktrail"
      retention_days = 30
      ring_bytes = "64MiB"
      argv_mask = ["secrets", "--pin=([0-9]+)"]

    argv_mask keeps secrets in arguments from being written anywhere: what a regular expression's first group matches, or all of it,
    becomes as many `*`. Arguments lie one after another, each ended by a NUL; the word "secrets" stands for passwords, tokens and keys
    by their usual names. argv_bytes = 0 keeps no arguments at all.
    """
    found = in_force(store, config_file)
    rows = [(name, getattr(found.settings, name), found.origins[name]) for name in NAMES]
    if as_json or not terminal.on_terminal():
        for name, value, origin in rows:
            write_line({"setting": name, "value": value, "from": origin})
        return
    texts = ((name, " ".join(value) if isinstance(value, tuple) else str(value), origin) for name, value, origin in rows)
    cells = ((name, quote_text(text.encode("utf-8", "surrogateescape")), origin) for name, text, origin in texts)
    terminal.table((Column("SETTING"), Column("VALUE"), Column("FROM")), cells)
