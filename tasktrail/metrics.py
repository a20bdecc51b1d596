"""Numbers for Prometheus over HTTP. The only module that knows its client, which is loaded when somebody wants the numbers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from itertools import groupby
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.errors import BadInput, Unavailable


class Kind(Enum):
    """What a number does: a counter only grows."""

    COUNTER = "counter"
    GAUGE = "gauge"


class Number(NamedTuple):
    """One number.

    name    without the leading tasktrail_, and without _total for a counter
    says    what it is, one sentence
    labels  what of several of one name it is; those of one name follow each other
    """

    name: str
    kind: Kind
    says: str
    value: float
    labels: Mapping[str, str] = MappingProxyType({})


class _Numbers(Collector):
    """Asks for the numbers whenever Prometheus does."""

    def __init__(self, numbers: Callable[[], Iterable[Number]]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        for name, several in groupby(self._numbers(), key=attrgetter("name")):
            numbers = list(several)
            first = numbers[0]
            kind = CounterMetricFamily if first.kind == Kind.COUNTER else GaugeMetricFamily
            family = kind(f"tasktrail_{name}", first.says, labels=tuple(first.labels))
            for number in numbers:
                family.add_metric(tuple(number.labels.values()), number.value)
            yield family


def parse_address(text: str) -> tuple[str, int]:
    """``127.0.0.1:9477`` or ``[::]:9477`` as host and port. Raises BadInput."""
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise BadInput(f"address {text!r} for metrics is not host:port", "write it like 127.0.0.1:9477")
    return host, int(port)


def serve(address: str, numbers: Callable[[], Iterable[Number]]) -> int:
    """Serve the numbers from a thread; gives the port. ``numbers`` is called in that thread. Raises BadInput, Unavailable."""
    host, port = parse_address(address)
    registry = CollectorRegistry()
    registry.register(_Numbers(numbers))
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as failure:
        raise Unavailable(f"metrics cannot be served on {address}: {failure.strerror or failure}", "choose another address") from None
    return int(server.server_port)
