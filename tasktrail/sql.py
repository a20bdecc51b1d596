"""``tasktrail sql``: any question in SQL, as the read-only user."""

import sys
from collections.abc import Iterator
from itertools import islice

import click

from queries import tables
from queries.rows import Arriving, Source
from schemas.errors import BadInput
from tasktrail import terminal
from tasktrail.options import closing, reading, store_options
from tasktrail.terminal import Column

ROWS_AT_ONCE = 1000
FORMATS = ("table", "json", "csv", "tsv", "vertical")


@click.command(
    epilog=closing(
        'tasktrail sql "SELECT comm, count() FROM current_images GROUP BY comm ORDER BY 2 DESC LIMIT 10"',
        "tasktrail sql \"SELECT begin, tgid, argv FROM current_images WHERE exe LIKE '/tmp/%'\" --format vertical",
        'tasktrail sql "SELECT cause, amount, begin, end, detail FROM current_losses" | jq .',
        'tasktrail sql "DESCRIBE images" --format tsv',
    )
)
@click.argument("statement")
@click.option("--format", "form", type=click.Choice(FORMATS), help="[default: table on a terminal, else json (one object per line)]")
@store_options
def sql(statement: str, form: str | None, store: str | None, config_file: str | None) -> None:
    """Ask in ClickHouse's SQL; a single - reads the statement from stdin.

    Tables images and losses hold every version of a row; current_images and current_losses hold what counts. The user may only read.
    json: bytes that are not UTF-8 follow exactly in a field named ..._hex. tsv: exact, ClickHouse's own escapes.
    """
    from store.values import reader

    text = sys.stdin.read() if statement == "-" else statement
    if not text.strip():
        raise BadInput("the statement is empty", 'give one, such as "SELECT count() FROM current_images"')
    form = form or ("table" if terminal.on_terminal() else "json")
    with reading(store, config_file, any_sql=True) as source:
        stream = _ask(source, text.rstrip().rstrip(";"))
        try:
            rows = tables.values(stream.columns, iter(stream), reader)
            if form in ("json", "csv", "tsv"):
                writer = {"json": tables.json_lines, "csv": tables.csv_lines, "tsv": tables.tsv_lines}[form]
                # csv has no escapes of its own, so a file gets the characters as they are, and a terminal does not.
                shown = tables.escaped if form == "csv" and terminal.on_terminal() else str
                for one in writer(stream.columns, rows):
                    sys.stdout.write(shown(one) + "\n")
            elif form == "vertical":
                _vertical([name for name, _ in stream.columns], rows)
            else:
                _table(stream.columns, rows)
        finally:
            stream.close()


def _ask(source: Source, text: str) -> Arriving:
    """The result, arriving."""
    try:
        return source.stream(text)
    except UnicodeDecodeError:
        # An expression without a name is named by its own text, which the driver takes for UTF-8.
        raise BadInput("the name of a column is not UTF-8", "name it with AS") from None


def _table(columns: list[tuple[str, str]], rows: Iterator[list[object]]) -> None:
    """Tables of a thousand rows each, so that a long answer can be read while it comes."""
    heads = [Column(tables.cell(name.encode()), right=kind.startswith(("UInt", "Int", "Float"))) for name, kind in columns]
    if not heads:
        return
    number = 0
    while chunk := list(islice(rows, ROWS_AT_ONCE)):
        number += len(chunk)
        terminal.table(heads, ([tables.cell(value) for value in row] for row in chunk))
    terminal.say("1 row" if number == 1 else f"{number} rows", dim=True)


def _vertical(names: list[str], rows: Iterator[list[object]]) -> None:
    """One column per line."""
    width = max(map(len, names), default=0)
    for row in rows:
        for name, value in zip(names, row, strict=True):
            terminal.say(f"{name:{width}}  {tables.cell(value)}")
        terminal.say("")
