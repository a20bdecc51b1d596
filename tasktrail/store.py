"""``tasktrail store``: make a store, and say how to get into it."""

import json
from pathlib import Path

import click

from schemas.errors import BadInput
from store import address as addresses
from store import migrate
from store.address import Address
from store.layout import Layout
from store.opening import open_for_writing
from store.server import holder, stored_address
from tasktrail.settings import Settings, read_settings

_store = click.option(
    "--store", "place", metavar="DIR|URL", help="Directory or clickhouse://user@host:port/database.  [default: /var/lib/tasktrail]"
)


@click.group()
def store() -> None:
    """Where the rows are: a directory with a ClickHouse of its own, or any ClickHouse server.

    \b
    Examples:
      tasktrail store init
      tasktrail store init --store clickhouse://admin@db.example:9000/tasktrail
      tasktrail store init --store clickhouse://admin@db1.example/tasktrail --cluster fleet
      tasktrail store info
    """


@store.command()
@_store
@click.option("--retention-days", type=int, metavar="DAYS", help="Days for which rows of ended processes are kept.  [default: 90]")
@click.option("--cluster", default="", metavar="NAME", help="Spread the tables over the servers of this cluster, by host.")
def init(place: str | None, retention_days: int | None, cluster: str) -> None:
    """Make the store's tables, or bring them to this version; does nothing to those that are there.

    Rows of an older version are put into tables that it lacked. That may be ended: the next call goes on with it. One of them is table
    programs, for questions by name over many hosts; `tasktrail run` leaves it out, and keeps it filled where it is.

    The password for another server is taken from TASKTRAIL_PASSWORD.

    With --cluster each server of the cluster (as in its system.clusters) keeps the rows of some hosts. Where its servers have the macros
    shard and replica, tables are Replicated ones, made ON CLUSTER; where they have not, each server is asked in turn to make its own, and
    the user must be there too. A database that is spread already is known to be, so later calls need no --cluster.

    \b
    Examples:
      tasktrail store init
      tasktrail store init --store /srv/tasktrail --retention-days 30
      tasktrail store init --store clickhouse://admin@db1.example/tasktrail --cluster fleet
    """
    settings = read_settings({"store": place, "retention_days": retention_days}).settings
    with open_for_writing(settings.store, settings.retention_days, cluster=cluster) as address:
        migrate.fill(address)
        where = settings.store if not addresses.is_address(settings.store) else str(address)
    click.echo(f"store {where} is ready; rows are kept for {settings.retention_days} days after they last held", err=True)


@store.command()
@_store
@click.option("--writer", is_flag=True, help="The writer's credentials instead of the reader's.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, password included.")
@click.option("--password", "only_password", is_flag=True, help="Only the password, for a script.")
def info(place: str | None, writer: bool, as_json: bool, only_password: bool) -> None:
    """Say where the store is, whether its server runs, and how to get in with other tools.

    \b
    Examples:
      tasktrail store info
      curl -u "tasktrail_reader:$(tasktrail store info --password)" 'http://127.0.0.1:PORT/?query=SELECT+1'
    """
    settings: Settings = read_settings({"store": place}).settings
    if addresses.is_address(settings.store):
        raise BadInput(f"store {settings.store} is another server", "its own administrator says how to get in")
    role = "writer" if writer else "reader"
    directory = Path(settings.store)
    address = stored_address(directory, role)
    if address is None:
        raise BadInput(f"there is no store in {directory}", "make one with tasktrail store init, or record with tasktrail run")
    if only_password:
        click.echo(address.password)
    elif as_json:
        click.echo(json.dumps({"directory": str(directory.absolute()), "pid": holder(directory), **address._asdict()}))
    else:
        _show(directory, role, address)


def _show(directory: Path, role: str, address: Address) -> None:
    """The same for people, without the password."""
    pid = holder(directory)
    click.echo(f"directory    {directory.absolute()}")
    click.echo(f"server       {'runs for process ' + str(pid) if pid else 'does not run; tasktrail run starts it'}")
    click.echo(f"native       {address}")
    click.echo(f"http         http://{address.host}:{address.http_port}")
    click.echo(f"user         {address.user}")
    click.echo(f"credentials  {Layout(directory.absolute()).credential(role)}")
