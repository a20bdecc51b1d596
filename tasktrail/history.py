"""``tasktrail history``: how a process came to be."""

import click

from queries import completeness, endings, patch
from queries.history import History, history_of, label, readable
from queries.patch_chain import elements_of
from queries.quoting import command_line, quote_name
from queries.records import history_object
from queries.times import Moment, show_time
from schemas.rows import ImageKind, ImageRow
from tasktrail import terminal
from tasktrail.options import Time, closing, json_option, pick, process_options, reading, store_options, write_line

HOW = {ImageKind.EXEC: "exec", ImageKind.FORK: "fork", ImageKind.SEEN: "seen", ImageKind.UNKNOWN: "?"}


@click.command(
    epilog=closing(
        "tasktrail history 4711",
        "tasktrail history 4711 --at 10:32",
        "tasktrail history make --long",
        "tasktrail history '*/cc1' --json",
        "tasktrail history web1:4711 --format patch",
        "tasktrail history make --host 'build-*' --since 1h --store clickhouse://reader@db.example/tasktrail",
    )
)
@process_options
@click.option("--since", type=Time(), metavar="TIME", help="PROCESS is one that was created at or after it.")
@click.option("--long", "long_form", is_flag=True, help="One line per program: when, who, command line, working directory, how it ended.")
@click.option("--format", "form", type=click.Choice(["text", "json", "patch"]), help="patch: the string of the 2023 kernel patch.")
@json_option
@store_options
def history(
    process: str,
    at: Moment | None,
    host: str | None,
    since: Moment | None,
    long_form: bool,
    form: str | None,
    as_json: bool,
    store: str | None,
    config_file: str | None,
) -> None:
    """Show how a process came to be, from the first process to it.

    PROCESS is a pid (the living process, else the last one that had it), a name or a path, also with * and ?, or a task_id;
    HOST: may stand before a pid or a name, and must where the store holds several hosts that had that pid. HOST is a name, a pattern, or a
    host_id or its first eight digits.

    The first line is the chain: every process on the way, by the program that it ran when it created the next one. What is not known is
    a bare ?. The second line says how complete the chain is.
    """
    with reading(store, config_file) as source:
        found = history_of(source, pick(source, process, at, host, since))
        if form == "patch":
            click.echo(patch.history_string(*elements_of(found)))
        elif as_json or form == "json":
            write_line(history_object(found))
        else:
            _show(found, long_form)


def _show(found: History[ImageRow], long_form: bool) -> None:
    """The history for a person."""
    terminal.say(readable(found.steps))
    if long_form:
        for image in found.images:
            terminal.say(_line(image))
    terminal.say(completeness.state(found.image, found), dim=True)


def _line(image: ImageRow) -> str:
    """One program: when, who, how it began, its process, its command line, where, and how it ended."""
    who = quote_name(image.user) if image.user else str(image.uid)
    known = image.kind != ImageKind.UNKNOWN or image.comm
    what = command_line(image.argv) or (f"[{quote_name(image.comm)}]" if known else "?")
    where = f"  in {quote_name(image.cwd)}" if image.cwd else ""
    name = label(image.tgid, image.comm if known else None)
    return f"{show_time(image.begin)}  {who}  {name}  {HOW[ImageKind(image.kind)]}  {what}{where}  {endings.ending(image)}"
