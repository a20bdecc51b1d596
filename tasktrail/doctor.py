"""``tasktrail doctor``: what is missing on this host, and the command that mends it."""

import click

from queries.quoting import quote_text
from tasktrail import terminal
from tasktrail.checks import Grade, look, this_machine
from tasktrail.options import closing, in_force, json_option, store_options, write_line

INCOMPLETE = 4


EXITS = {0: "nothing is missing", 4: "something is"}


@click.command(
    epilog=closing("sudo tasktrail doctor", "tasktrail doctor --json | jq -r 'select(.grade == \"missing\") | .cure'", exits=EXITS)
)
@json_option
@store_options
def doctor(as_json: bool, store: str | None, config_file: str | None) -> None:
    """Look at what recording, storing and reading need on this host; where something is missing, say the command that mends it.

    ok: as it should be. note: nothing fails because of it, or it only has to be started. missing: it will not work without.
    """
    missing = False
    for found in look(this_machine(), in_force(store, config_file).settings):
        missing |= found.grade is Grade.MISSING
        if as_json:
            write_line({"check": found.name, "grade": found.grade.value, "says": found.says, "cure": found.cure})
            continue
        says = quote_text(found.says.encode("utf-8", "surrogateescape"))
        terminal.say(f"{found.grade.value:8} {found.name:10} {says}", dim=found.grade is Grade.OK)
        if found.cure:
            terminal.say(f"{'':19} mend it: {found.cure}")
    if missing:
        raise click.exceptions.Exit(INCOMPLETE)
