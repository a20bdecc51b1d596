"""The command line: one file per command group, loaded only when it is called."""

import importlib
import sys

import click

from schemas.errors import TasktrailError

COMMANDS = {
    "run": "tasktrail.run:run",
    "record": "tasktrail.record:record",
    "store": "tasktrail.store:store",
    "decode": "tasktrail.decode:decode",
    "history": "tasktrail.history:history",
    "tree": "tasktrail.tree:tree",
    "ps": "tasktrail.ps:ps",
    "find": "tasktrail.find:find",
    "watch": "tasktrail.watch:watch",
    "sql": "tasktrail.sql:sql",
    "status": "tasktrail.status:status",
    "doctor": "tasktrail.doctor:doctor",
    "config": "tasktrail.config:config",
    "demo": "tasktrail.demo:demo",
}
"""Command → the module and the click command in it, in the order that --help shows."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, so that a small command stays small."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=LazyGroup)
@click.version_option(package_name="tasktrail")
def cli() -> None:
    """Where did this process come from, and what did it start?"""


def main() -> None:
    """Run the command line; a failure that a person can mend becomes one sentence and an exit code."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as bad:
        bad.show()
        sys.exit(bad.exit_code)
    except click.Abort:
        sys.exit(130)
    except TasktrailError as failure:
        click.echo(f"tasktrail: {failure}", err=True)
        sys.exit(failure.exit_code)
