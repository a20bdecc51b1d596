"""``tasktrail keys``: keys that hosts sign their batches with."""

import re
import secrets
import stat
from pathlib import Path
from uuid import UUID

import click

from producers import host
from schemas.errors import BadInput
from schemas.signing import KEY_BYTES, host_key
from tasktrail.kafka import config_option
from tasktrail.settings import read_settings


def read_key(path: str) -> bytes:
    """The key that the file holds as hex digits. Raises BadInput where it holds none, or others may read it too."""
    try:
        with Path(path).open("rb") as file:
            mode = stat.S_IMODE(Path(f"/proc/self/fd/{file.fileno()}").stat().st_mode)
            text = file.read(4096)
    except OSError as failure:
        raise BadInput(f"key file {path} cannot be read: {failure.strerror}", "mend the setting") from None
    if mode & 0o007:
        raise BadInput(f"key file {path} can be read by everybody", f"run chmod 0600 {path}")
    if not re.fullmatch(rb"\s*[0-9a-fA-F]{%d}\s*" % (2 * KEY_BYTES), text):
        raise BadInput(f"key file {path} does not hold {2 * KEY_BYTES} hex digits", "make one by `tasktrail keys new`")
    return bytes.fromhex(text.decode("ascii").strip())


@click.group()
def keys() -> None:
    """Keys that hosts sign their batches with, so that no host can speak for another.

    A fleet has one master key, which workers are given (sign_master_file). From it follows a key for each host, which that host alone is
    given (sign_key_file). Write them to files that only their owner can read.

    \b
    Examples:
      umask 077; tasktrail keys new > master.key
      tasktrail keys host --master master.key 0f8e8a52-8d0c-4d54-9f0b-6a1c30a0b1de > web-17.key
      tasktrail keys id                    on a host: the host_id that its key is for
    """


@keys.command()
def new() -> None:
    """Print a new master key.

    \b
    Examples:
      umask 077; tasktrail keys new > master.key
    """
    click.echo(secrets.token_hex(KEY_BYTES))


@keys.command("host")
@click.option("--master", required=True, metavar="FILE", help="File with the master key.")
@click.argument("host_id", type=click.UUID)
def of_host(master: str, host_id: UUID) -> None:
    """Print the key of a host.

    \b
    Examples:
      tasktrail keys host --master master.key 0f8e8a52-8d0c-4d54-9f0b-6a1c30a0b1de > web-17.key
    """
    click.echo(host_key(read_key(master), str(host_id)).hex())


@keys.command("id")
@config_option
def own_id(config_file: str | None) -> None:
    """Print this host's host_id; it is made if there is none yet.

    \b
    Examples:
      sudo tasktrail keys id
    """
    click.echo(str(host.host_id(Path(read_settings(file=config_file).settings.state_dir))))
