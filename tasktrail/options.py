"""What the reading commands share: --store, --config, --host, --json, times and processes as arguments, and the open store."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, TypeVar

import click

from queries.jsonlines import line
from queries.rows import Source
from queries.targets import assumed, find_image, parse_target
from queries.times import Moment, parse_moment
from schemas.errors import BadInput
from schemas.rows import ImageRow
from tasktrail.settings import InForce, read_settings

F = TypeVar("F", bound=Callable[..., Any])

READING: Mapping[int, str] = {
    0: "done",
    1: "the command failed",
    2: "nothing fits what was asked, or it cannot be read",
    4: "the store cannot be reached; try again",
}
"""Exit codes of the commands that read the store."""


def closing(*examples: str, exits: Mapping[int, str] = READING) -> str:
    """The end of a command's help: its exit codes, and last its examples, each of which can be pasted."""
    codes = [f"  {code}  {means}" for code, means in exits.items()]
    return "\n".join(["\b", "Exit codes:", *codes, "", "\b", "Examples:", *(f"  {example}" for example in examples)])


class Time(click.ParamType):
    """A moment, such as 10:32, 2026-11-25T10:32 or 2h."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """The moment that the text means now."""
        if isinstance(value, Moment):
            return value
        try:
            return parse_moment(str(value), datetime.now().astimezone())
        except BadInput as bad:
            self.fail(str(bad), param, ctx)


def store_options(command: F) -> F:
    """--store and --config."""
    store = click.option(
        "--store", metavar="DIR|URL", help="Directory of the store, or clickhouse://user@host/database.  [default: see `tasktrail config`]"
    )
    config = click.option("--config", "config_file", metavar="FILE", help="Settings file.  [default: /etc/tasktrail/tasktrail.toml]")
    return store(config(command))


def host_option(says: str) -> Callable[[F], F]:
    """--host."""
    text = f"{says}: a name, a pattern, or a host_id or the first eight or more digits of one."
    return click.option("--host", metavar="NAME|HOST_ID|GLOB", help=text)


def process_options(command: F) -> F:
    """PROCESS, --at and --host, which say what process is meant; ``pick`` takes them."""
    at = click.option(
        "--at", type=Time(), metavar="TIME", help="The process that PROCESS meant then: 10:32, 10:32:05, 2026-11-25T10:32, or 2h ago as 2h."
    )
    return click.argument("process")(at(host_option("The host of PROCESS")(command)))


def pick(source: Source, process: str, at: Moment | None, host: str | None, since: Moment | None = None) -> ImageRow:
    """The image that is meant. On a store of several hosts, where none is named but one alone fits, stderr says which. Raises BadInput."""
    target = parse_target(process).within(host or "", since.begin_ns if since else None)
    image = find_image(source, target, at)
    remark = assumed(source, target, image)
    if remark:
        click.echo(f"tasktrail: {remark}", err=True)
    return image


def json_option(command: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object per line (the form that a pipe gets).")(command)


def in_force(store: str | None, config_file: str | None) -> InForce:
    """The settings, the command's flags among them."""
    return read_settings({"store": store}, file=config_file)


@contextmanager
def reading(store: str | None, config_file: str | None, any_sql: bool = False) -> Iterator[Source]:
    """The store, open for reading, for our own queries or for any. Raises BadInput or Unavailable."""
    # Imported here: a command that fails before it reads does not load the driver.
    from store.opening import open_for_reading

    with open_for_reading(in_force(store, config_file).settings.store, any_sql=any_sql) as connection:
        yield connection


def write_line(value: object) -> None:
    """One JSON object to stdout."""
    sys.stdout.write(line(value) + "\n")
