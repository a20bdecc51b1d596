"""What Kafka's client says went wrong, as an error that a person can mend."""

import confluent_kafka as kafka

from schemas.errors import BadInput, TasktrailError, Unavailable
from schemas.topics import MAKE_TOPICS

_GIVE_RIGHTS = "give this user the rights; see deploy/"
_CURES = {
    kafka.KafkaError.MSG_SIZE_TOO_LARGE: "make the batches smaller, or the topic's max.message.bytes larger",
    kafka.KafkaError.UNKNOWN_TOPIC_OR_PART: MAKE_TOPICS,
    kafka.KafkaError._UNKNOWN_TOPIC: MAKE_TOPICS,
    kafka.KafkaError.TOPIC_AUTHORIZATION_FAILED: _GIVE_RIGHTS,
    kafka.KafkaError.GROUP_AUTHORIZATION_FAILED: _GIVE_RIGHTS,
    kafka.KafkaError.CLUSTER_AUTHORIZATION_FAILED: _GIVE_RIGHTS,
    kafka.KafkaError.INVALID_REPLICATION_FACTOR: "give --replication, at most as many as there are brokers",
    kafka.KafkaError.INVALID_CONFIG: "mend the settings of the topic",
    kafka.KafkaError.INVALID_RECORD: "see the broker's log",
}
"""What the cluster refuses for good until a person does something, and what to do."""

_UNREACHABLE = (kafka.KafkaError._TRANSPORT, kafka.KafkaError._ALL_BROKERS_DOWN, kafka.KafkaError._RESOLVE, kafka.KafkaError._TIMED_OUT)


def told(what: str, error: kafka.KafkaError) -> TasktrailError:
    """The client's error as one of ours: BadInput where trying again is of no use, else Unavailable."""
    words = error.str().strip().rstrip(".")
    if error.code() == kafka.KafkaError._GAPLESS_GUARANTEE:
        return Unavailable(f"{what} refuses a message: {words.partition(' failed: ')[2].partition(' (')[0] or words}")
    if error.code() in _UNREACHABLE:
        return Unavailable(f"{what} cannot be reached ({words.partition(' (after ')[0]})")
    cure = _CURES.get(error.code())
    if cure is not None:
        return BadInput(f"{what}: {words}", cure)
    if error.code() == kafka.KafkaError._AUTHENTICATION:
        return Unavailable(f"{what}: {words}", "see the user and password for Kafka in the settings")
    return Unavailable(f"{what}: {words}")


def error_of(failure: kafka.KafkaException) -> kafka.KafkaError:
    """The error that an exception of the client carries."""
    error = failure.args[0]
    assert isinstance(error, kafka.KafkaError)
    return error
