"""The topics of the fleet in Kafka: what lies in each, how it is kept, and what stands beside a message.

tasktrail.events      batches (schemas.batch), one a message; key = text of the host_id, so one host stays in order in one partition
tasktrail.state       the join's state of each host; key = group/host_id, the same partition as the host's events; compacted
tasktrail.deadletter  messages that no worker can read, with the reason in a header; key and value as they were

Brokers stamp the time at which a message arrived (LogAppendTime): the clocks of hosts may be wrong, and a broker refuses a message
that says it is from the future (``message.timestamp.after.max.ms``) and throws away at once one from 1970.
"""

import struct
import zlib
from typing import NamedTuple

from schemas.errors import BadInput
from schemas.limits import BATCH_BYTES_MAX

MAKE_TOPICS = "make it by `tasktrail topics create`"
"""The cure where a topic is missing."""

EVENTS = "tasktrail.events"
STATE = "tasktrail.state"
DEADLETTER = "tasktrail.deadletter"

PARTITIONS_DEFAULT = 64
"""Of events and state, which must have equally many. More partitions later would send hosts elsewhere: have enough from the start."""
REPLICATION_DEFAULT = 3
RETENTION_HOURS_DEFAULT = 7 * 24
EVENTS_MESSAGE_BYTES_MAX = 2 * BATCH_BYTES_MAX + 64 * 1024
"""A batch with its header, whatever a producer puts together in one request included."""
STATE_MESSAGE_BYTES_MAX = 64 * 1024 * 1024
"""The state of one host, compressed: hundreds of thousands of living processes."""
DEADLETTER_PARTITIONS = 4
DEADLETTER_RETENTION_HOURS = 30 * 24

VERSION = "version"
"""Header: version of the message, decimal text. Readers set aside what they do not know."""
MESSAGE_VERSION = b"1"
SIGNATURE = "signature"
"""Header: HMAC-SHA-256 of the message under the key of the host (schemas.signing); absent where messages are not signed."""
SESSION = "session"
"""Header: 8 random bytes of one run of the producer."""
SEQUENCE = "sequence"
"""Header: number of the message in its session from 1 (u64) and ``print_of`` the message before it (u32), little-endian."""
MACHINE = "machine"
"""Header: fingerprint of the machine that the producer runs on: two of them with one host_id are a clash."""
REASON = "reason"
"""Header of a dead letter: why it is one, UTF-8."""
ORIGIN = "origin"
"""Header of a dead letter: ``topic/partition/offset`` where it lay."""

_SEQUENCE = struct.Struct("<QI")
_BATCH_HEADER_BYTES = 176


def sequence(number: int, before: int) -> bytes:
    """The header SEQUENCE."""
    return _SEQUENCE.pack(number, before)


def read_sequence(header: bytes) -> tuple[int, int]:
    """Number and print of the message before; (0, 0) when the header is none."""
    return _SEQUENCE.unpack(header) if len(header) == _SEQUENCE.size else (0, 0)


def print_of(value: bytes) -> int:
    """What two messages of one number differ in: CRC-32 of the batch's header, which holds the CRC-32 of its body."""
    return zlib.crc32(value[:_BATCH_HEADER_BYTES])


class Topic(NamedTuple):
    """A topic as it should be.

    name           its name
    partitions     how many
    configuration  settings of the topic by Kafka's names; what is not named is the broker's choice
    """

    name: str
    partitions: int
    configuration: dict[str, str]


def no_topic(name: str) -> BadInput:
    """What is told of a topic that is not there."""
    return BadInput(f"Kafka has no topic {name}", MAKE_TOPICS)


def topics(
    partitions: int = PARTITIONS_DEFAULT,
    retention_hours: int = RETENTION_HOURS_DEFAULT,
    replication: int = REPLICATION_DEFAULT,
) -> list[Topic]:
    """All topics. ``retention_hours`` is how far the log reaches back: how long workers may be away, and how much can be replayed.

    With three or more replicas two must have a message before it counts as written, so that one broker may go at any moment.
    """
    common = {
        "min.insync.replicas": str(2 if replication >= 3 else 1),
        "message.timestamp.type": "LogAppendTime",
        "compression.type": "producer",
    }
    kept = {"cleanup.policy": "delete", "retention.bytes": "-1"}
    events = {
        **common,
        **kept,
        "retention.ms": str(retention_hours * 3_600_000),
        "max.message.bytes": str(EVENTS_MESSAGE_BYTES_MAX),
    }
    state = {
        **common,
        "cleanup.policy": "compact",
        "max.message.bytes": str(STATE_MESSAGE_BYTES_MAX),
        # Only closed segments are compacted, and whoever takes a partition over reads all that is left: keep that little.
        "segment.bytes": str(2 * STATE_MESSAGE_BYTES_MAX),
        "segment.ms": str(3_600_000),
        "min.cleanable.dirty.ratio": "0.1",
        "max.compaction.lag.ms": str(3_600_000),
    }
    dead = {
        **common,
        **kept,
        "retention.ms": str(DEADLETTER_RETENTION_HOURS * 3_600_000),
        "max.message.bytes": str(STATE_MESSAGE_BYTES_MAX),
    }
    return [Topic(EVENTS, partitions, events), Topic(STATE, partitions, state), Topic(DEADLETTER, DEADLETTER_PARTITIONS, dead)]
