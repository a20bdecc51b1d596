"""Which images are wanted: the options that find and watch share."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import click

from queries import find as finding
from queries import hostnames
from queries.find import Condition
from queries.rows import Source
from queries.targets import find_image, parse_target
from tasktrail.options import host_option

F = TypeVar("F", bound=Callable[..., Any])

GLOB = "GLOB"


class Filters(NamedTuple):
    """What the options were given; empty where they were not."""

    comm: str | None
    exe: str | None
    arg: tuple[str, ...]
    user: str | None
    tty: str | None
    cgroup: str | None
    cwd: str | None
    host: str | None
    under: tuple[str, ...]
    where: tuple[str, ...]


_OPTIONS = (
    click.option("--comm", metavar=GLOB, help="Name at exec, or the last name that it took."),
    click.option("--exe", metavar=GLOB, help="Path of the executable."),
    click.option("--arg", metavar=GLOB, multiple=True, help="One of its arguments; given twice, both must be there."),
    click.option("--user", metavar="NAME|UID", help="Real user."),
    click.option("--tty", metavar=GLOB, help="Controlling terminal, such as pts/0."),
    click.option("--cgroup", metavar=GLOB, help="Last component of the cgroup."),
    click.option("--cwd", metavar=GLOB, help="Working directory at exec."),
    host_option("Only on these hosts"),
    click.option(
        "--under",
        metavar="PROCESS",
        multiple=True,
        help="Descends from it: a pid, HOST:PID or task_id, or any program with this name or path (GLOB).",
    ),
    click.option("--where", metavar="COLUMN=GLOB", multiple=True, help="Any column; != too, and < <= > >= with numbers."),
)


def filter_options(command: F) -> F:
    """--comm, --exe and the rest; they arrive as keyword arguments of these names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take(options: dict[str, Any]) -> Filters:
    """The filters out of a command's keyword arguments."""
    return Filters(**{name: options[name] for name in Filters._fields})


def conditions(source: Source, filters: Filters) -> list[Condition]:
    """What the filters mean. Raises BadInput for a column or a process that is not there."""
    wanted: list[Condition] = []
    if filters.comm is not None:
        wanted.append(finding.comm(filters.comm))
    if filters.host:
        wanted.append(hostnames.named(filters.host))
    for column in ("exe", "tty", "cgroup", "cwd"):
        pattern = getattr(filters, column)
        if pattern is not None:
            wanted.append(finding.text(column, pattern))
    wanted.extend(finding.text("argv", pattern) for pattern in filters.arg)
    if filters.user is not None:
        wanted.append(finding.user(filters.user))
    for text in filters.under:
        target = parse_target(text)
        if target.name and not target.host:
            wanted.append(finding.under_name(target.name))
        else:
            # A pid without a host is meant on the host that is looked at.
            host = filters.host or "" if not target.host else ""
            wanted.append(finding.under(find_image(source, target.within(host))))
    wanted.extend(map(finding.comparison, filters.where))
    return wanted
