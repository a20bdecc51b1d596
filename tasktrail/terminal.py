"""What goes to a terminal: tables, trees and dim lines within its width. The only module that knows rich.

Everything shown is text that was quoted before (queries.quoting); nothing in it is read as markup.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

WIDTH_PIPED = 1 << 16
"""Columns of what is no terminal: nothing is cut there."""


FIXED_MAX = 22
"""Widest that a column beside an elastic one gets."""
ELASTIC_MIN = 10
GAP = 2


class Column(NamedTuple):
    """A column of a table.

    head     its heading
    right    numbers stand to the right
    elastic  takes the room that is left, and is cut there
    """

    head: str
    right: bool = False
    elastic: bool = False


def on_terminal() -> bool:
    """Whether a person looks at stdout."""
    return sys.stdout.isatty()


def console(width: int | None = None) -> Console:
    """A console on stdout that keeps to plain text where nobody looks. ``width`` for tests."""
    if width is None and not on_terminal():
        width = WIDTH_PIPED
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def width() -> int:
    """Columns there are."""
    return console().width


def say(line: str, dim: bool = False, out: Console | None = None) -> None:
    """One line, however long, to stdout."""
    (out or console()).print(Text(line, style="dim" if dim else ""), soft_wrap=True)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]], out: Console | None = None) -> None:
    """A table within the terminal's width; what does not fit ends in an ellipsis. An elastic column gets what the others leave."""
    out = out or console()
    cells = [[Text(cell, no_wrap=True, overflow="ellipsis") for cell in row] for row in rows]
    needs = [max([cell_len(column.head), *(row[at].cell_len for row in cells)]) for at, column in enumerate(columns)]
    fixed = [min(need, FIXED_MAX) for need, column in zip(needs, columns, strict=True) if not column.elastic]
    room = max(ELASTIC_MIN, out.width - sum(fixed) - GAP * (len(columns) - 1))
    elastic = any(column.elastic for column in columns)
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=True, header_style="bold")
    for column, need in zip(columns, needs, strict=True):
        width = min(need, room if column.elastic else FIXED_MAX) if elastic else None
        justify: Literal["right", "left"] = "right" if column.right else "left"
        made.add_column(Text(column.head), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        made.add_row(*row)
    out.print(made)


def trees(lines: Iterable[tuple[str, int, bool]], out: Console | None = None) -> None:
    """A tree from (text, depth, dim) in depth-first order; what does not fit the width ends in an ellipsis."""
    out = out or console()
    path: list[Tree] = []
    root: Tree | None = None
    for text, depth, dim in lines:
        label = Text(text, style="dim" if dim else "", no_wrap=True, overflow="ellipsis")
        if root is None:
            root = Tree(label, guide_style="dim")
            path = [root]
            continue
        del path[depth:]
        path.append(path[-1].add(label))
    if root is not None:
        out.print(root)


def fit_chain(elements: Sequence[str], room: int, cut: str) -> str:
    """The chain within ``room`` columns: its first and its last elements, what lies between left out first."""
    whole = " > ".join(elements)
    if cell_len(whole) <= room or len(elements) < 2:
        return whole
    for first in (1, 0):
        head = [*elements[:first], cut]
        used = cell_len(" > ".join(head))
        tail: list[str] = []
        for element in reversed(elements[first:]):
            used += 3 + cell_len(element)
            if used > room:
                break
            tail.insert(0, element)
        if tail:
            return " > ".join([*head, *tail])
    return f"{cut} > {elements[-1]}"
