"""The command line: one file per command group, loaded only when it is called."""

import importlib
import importlib.metadata
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import click

from schemas.errors import TasktrailError, Unavailable


class Place(NamedTuple):
    """Where a command is, and its line in --help (held here, so that --help loads no command)."""

    module: str
    name: str
    says: str


COMMANDS = {
    "run": Place("tasktrail.run", "run", "Record this host and store it, until Ctrl-C or SIGTERM."),
    "record": Place("tasktrail.record", "record", "The recorder in the kernel: load, status, unload, dump."),
    "store": Place("tasktrail.store", "store", "Where the rows are: make it, get into it."),
    "history": Place("tasktrail.history", "history", "How a process came to be."),
    "tree": Place("tasktrail.tree", "tree", "Everything that a process ever started."),
    "ps": Place("tasktrail.ps", "ps", "Living processes with their chains."),
    "find": Place("tasktrail.find", "find", "Look for programs by any column."),
    "watch": Place("tasktrail.watch", "watch", "Each exec as it happens."),
    "sql": Place("tasktrail.sql", "sql", "Any question in SQL, read only."),
    "status": Place("tasktrail.status", "status", "Whether this host is recorded, and at what cost."),
    "doctor": Place("tasktrail.doctor", "doctor", "What is missing on this host, and how to mend it."),
    "config": Place("tasktrail.config", "config", "The settings in force, and whence."),
    "decode": Place("tasktrail.decode", "decode", "A recording as JSON lines."),
    "topics": Place("tasktrail.topics", "topics", "The fleet's topics in Kafka: make them, show them."),
    "produce": Place("tasktrail.produce", "produce", "Ship this host's record to the fleet's Kafka."),
    "stream": Place("tasktrail.stream", "stream", "A worker of the fleet: out of Kafka, into the store."),
    "replay": Place("tasktrail.replay", "replay", "Rows computed again from the log, after a fix."),
    "hosts": Place("tasktrail.hosts", "hosts", "Who reports, how far behind, what was lost, who claims whose name."),
    "keys": Place("tasktrail.keys", "keys", "Keys that hosts sign their batches with."),
    "demo": Place("tasktrail.demo", "demo", "All of it on a bundled recording; needs no root."),
}
"""The commands, in the order that --help shows."""

JOIN = Path(__file__).resolve().parents[1] / "streams" / "join"
"""Where a compiled join lies, too (see setup.py)."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for, so that a small command stays small."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, None if there is none."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        command = getattr(importlib.import_module(place.module), place.name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, place.says) for name, place in COMMANDS.items()])


def _tell_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        how = ", its join compiled" if any(JOIN.glob("transitions.*.so")) else ""
        click.echo(f"tasktrail {importlib.metadata.version('tasktrail')}{how}")
        context.exit()


@click.group(cls=LazyGroup)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_tell_version, help="Show the version and exit.")
def cli() -> None:
    """Where did this process come from, and what did it start?

    \b
    Examples:
      sudo tasktrail doctor          what this host lacks for it
      sudo tasktrail run             record and store this host
      tasktrail history 4711         how process 4711 came to be
      tasktrail tree sshd --dead     all that it ever started
      tasktrail find --exe '*/curl' --since 2h

    Answers go to stdout, remarks to stderr. In a pipe, answers are JSON, one object per line.

    \b
    Exit codes:
      0    done
      1    the command failed
      2    bad input: nothing fits what was asked, an option or a setting is wrong
      3    a file or a record could not be decoded
      4    something that is needed is not there: recorder, store, privilege
      130  ended by Ctrl-C
      141  who read the output has gone
    """


def main() -> None:
    """Run the command line; a failure that a person can mend becomes one sentence and an exit code."""
    sys.exit(run_command())


def run_command(arguments: list[str] | None = None) -> int:
    """The exit code of the command that the arguments (by default those of the process) name."""
    try:
        code = cli(arguments, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as bad:
        bad.show()
        return bad.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 128 + signal.SIGINT
    except (BrokenPipeError, SystemExit):
        # click turns a broken pipe into sys.exit(1), and nothing else here calls it. Python would complain once more at its end, when
        # it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except TasktrailError as failure:
        click.echo(f"tasktrail: {failure}", err=True)
        return failure.exit_code
    except PermissionError as refused:
        if not refused.filename:
            raise
        where = os.fsdecode(refused.filename)
        click.echo(f"tasktrail: {where} may not be used: {refused.strerror}; run it as root, or as whoever owns that", err=True)
        return Unavailable.exit_code
    except ModuleNotFoundError as lacking:
        package = (lacking.name or "").split(".")[0]
        if package in PACKAGES:
            click.echo(f"tasktrail: the package {package} is not installed; pip install 'tasktrail[{PACKAGES[package]}]'", err=True)
            return TasktrailError.exit_code
        raise


PACKAGES = {"rich": "read", "clickhouse_driver": "read", "lz4": "read", "clickhouse_cityhash": "read", "chdb": "store"}
PACKAGES |= {"confluent_kafka": "produce", "prometheus_client": "produce", "faust": "stream"}
"""Packages that a host may do without, and the extra that brings each."""
