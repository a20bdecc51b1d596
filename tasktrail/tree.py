"""``tasktrail tree``: everything that a process ever started."""

from collections.abc import Iterator

import click

from queries import tree as trees
from queries.endings import ending
from queries.history import label
from queries.quoting import command_line, quote_name
from queries.records import row_object
from queries.rows import Brief
from queries.times import Moment
from queries.tree import Node
from schemas.rows import ImageKind
from tasktrail import terminal
from tasktrail.options import Time, closing, json_option, pick, process_options, reading, store_options, write_line


@click.command(
    epilog=closing(
        "tasktrail tree 812",
        "tasktrail tree 812 --dead",
        "tasktrail tree sshd --at 10:32 --dead",
        "tasktrail tree web1:sshd --dead --since 1h",
        "tasktrail tree 1 --json | jq -r 'select(.kind == \"exec\") | .exe'",
    )
)
@process_options
@click.option("--dead", is_flag=True, help="Ended processes too; else only those that lead to living ones.")
@click.option("--since", type=Time(), metavar="TIME", help="Only processes created at or after it, and what leads to them.")
@json_option
@store_options
def tree(
    process: str,
    at: Moment | None,
    host: str | None,
    dead: bool,
    since: Moment | None,
    as_json: bool,
    store: str | None,
    config_file: str | None,
) -> None:
    """Show everything that a process ever started, as a tree.

    A process stands below the one that created it, even when that one has ended and the kernel gave the orphan another parent. In a pipe
    every image is one JSON object, with its depth. A tree of more than 100,000 images is refused, never cut.
    """
    with reading(store, config_file) as source:
        image = pick(source, process, at, host)
        root = trees.build(image.task_id, trees.fetch_descendants(source, image, dead, since.begin_ns if since else None))
    if not dead:
        trees.living_only(root)
    if as_json or not terminal.on_terminal():
        for node, depth in trees.walk(root):
            for one in node.images:
                write_line({"depth": depth, **row_object(one)})
        return
    terminal.trees(_lines(root))


def _lines(root: Node) -> Iterator[tuple[str, int, bool]]:
    for node, depth in trees.walk(root):
        yield describe(node), depth, not node.living


def describe(node: Node) -> str:
    """A process as one line: name and pid, who, what it runs or ran, how it ended."""
    if not node.images:
        return label(node.tgid, None)
    last = node.images[-1]
    name = label(last.tgid, last.comm if last.kind != ImageKind.UNKNOWN or last.comm else None)
    who = quote_name(last.user) if last.user else str(last.uid)
    end = "" if node.living else f"  {ending(last)}"
    return f"{name}  {who}{end}  {_command(last)}".rstrip()


def _command(image: Brief) -> str:
    """The command line; a fork runs its creator's, which says nothing new."""
    return command_line(image.argv) if image.kind != ImageKind.FORK else ""
