"""``tasktrail topics``: the fleet's topics in Kafka."""

import json
import sys

import click

from broker.cluster import Cluster
from broker.connection import Admin
from broker.edges import TopicFound
from schemas import topics as wanted
from schemas.errors import BadInput, Unavailable
from tasktrail.kafka import cluster_of, config_option, kafka_option
from tasktrail.settings import read_settings


@click.group()
def topics() -> None:
    """The fleet's topics: batches of all hosts, states of the join, dead letters.

    \b
    Examples:
      tasktrail topics create --kafka k1:9092,k2:9092
      tasktrail topics show --kafka k1:9092
    """


def _cluster(kafka: str | None, config_file: str | None) -> Cluster:
    return cluster_of(read_settings({"kafka": kafka}, file=config_file).settings)


@topics.command()
@kafka_option
@config_option
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    default=wanted.PARTITIONS_DEFAULT,
    show_default=True,
    help="Of events and states: as many as workers may ever be. Not to be changed later.",
)
@click.option(
    "--retention-hours",
    type=click.IntRange(1, 24 * 365),
    default=wanted.RETENTION_HOURS_DEFAULT,
    show_default=True,
    help="How long batches are kept: workers may be away this long.",
)
@click.option("--replication", type=click.IntRange(1, 100), default=wanted.REPLICATION_DEFAULT, show_default=True, help="Copies of each.")
def create(kafka: str | None, config_file: str | None, partitions: int, retention_hours: int, replication: int) -> None:
    """Make the topics that are not there. Those that are there stay as they are; what differs is told.

    \b
    Exit codes:
      0  they are there, as they should be
      2  an option or a setting does not fit, or a topic that was there differs
      4  Kafka cannot be reached

    \b
    Examples:
      tasktrail topics create --kafka k1:9092,k2:9092
      tasktrail topics create --kafka localhost:9092 --replication 1 --partitions 8
    """
    cluster, chosen = _cluster(kafka, config_file), wanted.topics(partitions, retention_hours, replication)
    admin = Admin(cluster)
    made = admin.create_topics(chosen, replication)
    for name in made:
        click.echo(f"tasktrail: made topic {cluster.ours(name)}", err=True)
    old = [topic for topic in chosen if topic.name not in made]
    found = admin.describe([topic.name for topic in old])
    wrong = [text for topic in old if topic.name in found for text in differences(topic, found[topic.name])]
    if wrong:
        raise BadInput("; ".join(wrong), "change it with Kafka's own tools, or give the options that it was made with")


def differences(topic: wanted.Topic, found: TopicFound) -> list[str]:
    """How a topic differs from what it should be, one sentence each."""
    texts = []
    if found.partitions != topic.partitions:
        texts.append(f"topic {topic.name} has {found.partitions} partitions, not {topic.partitions}")
    for name, value in topic.configuration.items():
        if found.configuration.get(name) != value:
            texts.append(f"topic {topic.name} has {name}={found.configuration.get(name, 'the default')}, not {value}")
    return texts


@topics.command()
@kafka_option
@config_option
def show(kafka: str | None, config_file: str | None) -> None:
    """Show the topics as they are, one JSON object per line.

    \b
    Exit codes:
      0  done
      4  Kafka cannot be reached, or a topic is not there

    \b
    Examples:
      tasktrail topics show --kafka k1:9092
      tasktrail topics show --kafka k1:9092 | jq -c '[.topic, .partitions]'
    """
    names, cluster = [topic.name for topic in wanted.topics()], _cluster(kafka, config_file)
    found = Admin(cluster).describe(names)
    for name in names:
        if name in found:
            one = found[name]
            told = {
                "topic": cluster.ours(name),
                "partitions": one.partitions,
                "replication": one.replication,
                "configuration": one.configuration,
            }
            sys.stdout.write(json.dumps(told, sort_keys=True) + "\n")
    missing = [cluster.ours(name) for name in names if name not in found]
    if missing:
        raise Unavailable(f"Kafka has no topic {', '.join(missing)}", wanted.MAKE_TOPICS)
