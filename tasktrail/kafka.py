"""Which Kafka the settings name, and the options of the commands that speak to it."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cluster import Cluster, cluster
from schemas.errors import BadInput
from tasktrail.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def kafka_option(command: F) -> F:
    """--kafka."""
    return click.option("--kafka", metavar="HOST:PORT,…", help="Some brokers of the cluster.  [default: see `tasktrail config`]")(command)


def config_option(command: F) -> F:
    """--config."""
    help_text = "Settings file.  [default: /etc/tasktrail/tasktrail.toml]"
    return click.option("--config", "config_file", metavar="FILE", help=help_text)(command)


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that the settings name. Raises BadInput where they do not fit together, or the password cannot be read."""
    if not settings.kafka:
        raise BadInput("no Kafka is named", "give --kafka k1:9092,k2:9092, or kafka in the settings")
    password = ""
    if settings.kafka_password_file:
        try:
            password = Path(settings.kafka_password_file).read_text("utf-8").rstrip("\n")
        except (OSError, UnicodeDecodeError) as failure:
            problem = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
            raise BadInput(f"Kafka's password file {settings.kafka_password_file} cannot be read: {problem}", "mend the setting") from None
    make = functools.partial(cluster, settings.kafka, settings.kafka_ca, settings.kafka_cert, settings.kafka_key)
    return make(settings.kafka_mechanism, settings.kafka_user, password, settings.kafka_prefix)
