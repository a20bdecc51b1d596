"""``tasktrail demo``: a bundled recording of a real host, stored and asked about; needs neither root nor BPF."""

import io
import lzma
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import click

from queries.recordings import batches
from schemas.errors import BadInput
from schemas.rows import Row
from store import layout, migrate
from store.connection import Connection
from store.server import Server, holder
from streams.join import HostState, apply
from streams.sinks.clickhouse import Sink
from tasktrail import terminal
from tasktrail.cli import run_command
from tasktrail.options import closing

RECORDING = "web-17.tt.xz"
RETENTION_DAYS = 10_000
"""Time stands still in a recording, so its rows are kept for 27 years. (DateTime ends in 2106 and begins in 1970.)"""
ROWS_AT_ONCE = 1000
PLAIN = {"TERM": "dumb", "COLUMNS": "110", "LINES": "50"}
"""Environment in which commands print neither colours nor more columns than a page has."""


class Scene(NamedTuple):
    """A command, what it is there to show, and how many of its last lines are enough (0: all)."""

    says: str
    command: tuple[str, ...]
    last: int = 0


COMPILING = "2026-11-25T17:11:18Z"
SCENES = (
    Scene(
        "Who had pid 413 while alice compiled? (Pids were few on that host: later it was another's.)", ("history", "413", "--at", COMPILING)
    ),
    Scene("And in full: when, who, what, where, and how it ended.", ("history", "413", "--at", COMPILING, "--long")),
    Scene("All that her make did.", ("tree", "make", "--at", COMPILING, "--dead")),
    Scene("What still runs, and where it came from.", ("ps",), 16),
    Scene("The web service has an odd child: names lie, chains do not.", ("tree", "shop.py", "--dead")),
    Scene(
        "So what was it really? It runs from memory, and nothing of it is on the disk.", ("find", "--user", "www-data", "--exe", "*memfd:*")
    ),
    Scene("A daemon forked itself away and was adopted by process 1. Its creators are still known.", ("history", "460")),
    Scene("What ended by a signal?", ("find", "--kind", "any", "--where", "exit_signal>0")),
    Scene("Names made of escapes, newlines and forged steps cannot fool the reader.", ("find", "--exe", "/tmp/odd-*", "--limit", "6")),
    Scene(
        "Any other question in SQL: who used the CPU?",
        (
            "sql",
            "SELECT user, comm, count() AS runs, round(sum(utime + stime) / 1e9, 1) AS cpu_s FROM current_images "
            "WHERE kind = 'exec' GROUP BY user, comm ORDER BY cpu_s DESC LIMIT 5",
            "--format",
            "table",
        ),
    ),
)


class Replayed(NamedTuple):
    """What a replay did: events of the join, rows stored, seconds that the join took and that all took."""

    events: int
    rows: int
    join_s: float
    whole_s: float


@click.command(
    epilog=closing(
        "tasktrail demo",
        "tasktrail demo --store ./demo; tasktrail find --user www-data --store ./demo",
        exits={0: "done", 2: "the directory cannot be used", 4: "the store's server does not start"},
    )
)
@click.option("--store", metavar="DIR", help="Keep the store there, for questions of your own.  [default: a temporary directory]")
def demo(store: str | None) -> None:
    """Replay a recording of a real host and ask about it.

    The host is a virtual machine on which somebody logged in, compiled a program and installed a package, all in two minutes, while a web
    service was broken into. The recording goes through the same join and into the same store as what `tasktrail run` records.
    """
    with ExitStack() as stack:
        directory = Path(store or stack.enter_context(tempfile.TemporaryDirectory(prefix="tasktrail-demo-")))
        if holder(directory) or (directory / "clickhouse").exists():
            raise BadInput(f"{directory} holds a store already", "name a directory that is not there yet")
        server = stack.enter_context(Server(directory))
        migrate.apply(server.address("writer"), RETENTION_DAYS)
        done = replay(server, directory)
        rate = done.events / done.join_s
        click.echo(
            f"replayed {done.events} events of host web-17 into {done.rows} rows in {done.whole_s:.1f} s (the join: {rate:,.0f} events/s)",
            err=True,
        )
        codes = [show(scene, directory) for scene in SCENES]
    if store:
        click.echo(f"\nthe store stays in {store}; ask it: tasktrail find --arg '*alice*' --store {shlex.quote(store)}")
    else:
        click.echo("\nto ask yourself: tasktrail demo --store ./demo, then any command with --store ./demo")
    raise click.exceptions.Exit(max(codes))


@contextmanager
def open_recording() -> Iterator[BinaryIO]:
    """The bundled recording, unpacked as it is read."""
    with resources.files("tasktrail").joinpath("demo_data", RECORDING).open("rb") as packed, lzma.open(packed) as file:
        yield cast(BinaryIO, file)  # lzma's files read like any binary file, but are of another class


def replay(server: Server, directory: Path) -> Replayed:
    """Take the recording through the join into the store."""
    begin = time.perf_counter()
    state, waiting, join_s = HostState(), list[Row](), 0.0
    sink = Sink(lambda: Connection(server.address("writer")), layout.make(directory).deadletter, time.sleep, time.monotonic)
    with open_recording() as file:
        for batch in batches(file, RECORDING):
            before = time.perf_counter()
            waiting += apply(state, batch)
            join_s += time.perf_counter() - before
            if len(waiting) >= ROWS_AT_ONCE:
                sink.write(waiting, "demo")
                waiting = []
    sink.write(waiting, "demo")
    sink.close()
    return Replayed(state.events, sink.stored, join_s, time.perf_counter() - begin)


class Plain(io.StringIO):
    """Takes what a command prints for a person where nobody sits: a pipe gets people's form here, not JSON."""

    def isatty(self) -> bool:
        """So that commands choose the form for people."""
        return True


@contextmanager
def plain_terminal() -> Iterator[io.StringIO]:
    """Stdout that looks to commands like a plain terminal, and what they wrote to it."""
    before = {name: os.environ.get(name) for name in PLAIN}
    os.environ.update(PLAIN)
    try:
        with redirect_stdout(Plain()) as plain:
            yield plain
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def show(scene: Scene, directory: Path) -> int:
    """Print the command as a person types it and its answer; returns its exit code."""
    click.secho(f"\n# {scene.says}", dim=True)
    click.secho(f"$ tasktrail {' '.join(map(typed, scene.command))}", bold=True)
    arguments = [*scene.command, "--store", str(directory)]
    if terminal.on_terminal() and not scene.last:
        return run_command(arguments)
    with plain_terminal() as plain:
        code = run_command(arguments)
    lines = [line.rstrip() for line in plain.getvalue().splitlines()]
    click.echo("\n".join(["…", *lines[-scene.last :]] if scene.last else lines))
    return code


def typed(word: str) -> str:
    """The word as a person types it in a shell."""
    simple = "'" in word and not set(word) & set('"$`\\!')
    return f'"{word}"' if simple else shlex.quote(word)
