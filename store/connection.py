"""One thread's connection to a ClickHouse, over the native protocol. The only module that knows clickhouse_driver.

Strings are bytes, UUIDs are ``uuid.UUID``, Enums are their names (str), DateTime and DateTime64 are the integers that the server
stores: seconds, or 10**-scale seconds, since 1970 in UTC. The driver itself would make datetime of them and lose nanoseconds.
``store.values`` turns a value into text by its type.
"""

import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import accumulate, chain
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import UUID

import clickhouse_driver
from clickhouse_driver.columns import enumcolumn
from clickhouse_driver.columns import service as driver_columns
from clickhouse_driver.columns.arraycolumn import ArrayColumn
from clickhouse_driver.columns.base import FormatColumn
from clickhouse_driver.columns.enumcolumn import Enum8Column
from clickhouse_driver.columns.lowcardinalitycolumn import LowCardinalityColumn
from clickhouse_driver.columns.uuidcolumn import UUIDColumn
from clickhouse_driver.errors import (
    CannotParseUuidError,
    LogicalError,
    NetworkError,
    ServerException,
    SocketTimeoutError,
    TypeMismatchError,
)
from clickhouse_driver.errors import Error as DriverError
from clickhouse_driver.varint import make_varint

from schemas.errors import BadInput, Unavailable
from store import server_errors
from store.address import Address
from store.params import encoded
from store.server_errors import TooMuch, Unstorable

__all__ = ["Address", "Connection", "Result", "Stream", "TooMuch", "Unstorable"]

Settings = Mapping[str, str | int]
Params = Mapping[str, object]
Row = tuple[Any, ...]

SETTINGS: Settings = {"network_compression_method": "lz4"}
"""Servers from 26 on answer in ZSTD unless told otherwise, which the driver cannot read without another package."""

INSERT_SETTINGS: Settings = {
    "async_insert": 0,
    "distributed_foreground_insert": 1,
    "insert_deduplicate": 1,
    "max_partitions_per_insert_block": 0,
}
"""An insert is answered when its part is on disk, on a cluster on the disks of all servers that it concerns. It may hold processes that
began in any number of weeks."""


class Result(NamedTuple):
    """A whole result: (name, type) of each column, and the rows."""

    columns: list[tuple[str, str]]
    rows: list[Row]


class Stream:
    """A result that is read while it arrives: ``columns`` at once, rows by iterating. Close it (or use ``with``) to stop early."""

    def __init__(self, connection: "Connection", columns: list[tuple[str, str]], rows: Iterator[Row]) -> None:
        self.columns = columns
        self._connection = connection
        self._rows = rows
        self._done = False

    def __iter__(self) -> Iterator[Row]:
        with self._connection._failures(inserting=False):
            yield from self._rows
        self._done = True

    def close(self) -> None:
        """End the query if it still runs; the connection can be used again."""
        if not self._done:
            self._connection.close()
        self._done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Connection:
    """A connection that is made when it is first needed, and made again after it broke.

    Every method raises Unavailable when the server cannot be reached, cuts the connection or cannot answer now (what was asked
    may or may not have happened), and BadInput with the server's words when it refuses.
    """

    def __init__(self, address: Address, settings: Settings | None = None, timeout_s: float = 300.0) -> None:
        _fit_driver()
        if address.ca_certs and not os.access(address.ca_certs, os.R_OK):
            raise BadInput(f"store {address}: ca_certs {address.ca_certs} cannot be read", "name a file with the authorities' certificates")
        self.address = address
        self._client = clickhouse_driver.Client(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            database=address.database,
            secure=address.secure,
            verify=address.verify,
            ca_certs=address.ca_certs or None,
            alt_hosts=address.alt_hosts or None,
            client_name="tasktrail",
            compression="lz4",
            connect_timeout=min(timeout_s, 10.0),
            send_receive_timeout=timeout_s,
            tcp_keepalive=True,
            settings={"strings_as_bytes": True, "server_side_params": True, **SETTINGS, **(settings or {})},
        )

    def query(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Result:
        """All rows that the statement gives. ``{name:Type}`` in it stands for params["name"] (str, bytes, int, UUID, or a list of one)."""
        with self._failures(inserting=False):
            answer = self._client.execute(sql, encoded(params), with_column_types=True, settings=settings)
        rows, columns = answer if isinstance(answer, tuple) else ([], [])
        return Result(list(columns), list(rows))

    def execute(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> None:
        """Run a statement that gives no rows."""
        self.query(sql, params, settings)

    def stream(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Stream:
        """As query, but rows are given out while they arrive. The connection does nothing else until the stream ends."""
        with self._failures(inserting=False):
            rows = self._client.execute_iter(sql, encoded(params), with_column_types=True, settings=settings)
            columns: list[tuple[str, str]] = next(rows, [])
        return Stream(self, list(columns), rows)

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Row], token: str) -> None:
        """Store rows, each a tuple in the order of ``columns``; see insert_columns."""
        self.insert_columns(table, columns, [list(column) for column in zip(*rows, strict=True)], token)

    def insert_columns(self, table: str, columns: Sequence[str], data: list[list[Any]], token: str) -> None:
        """Store one block given as a list of values for each of ``columns``; the lists are used up.

        A block of the same token (if it has one) is stored once by replicated tables; ours that are not take it again and count it
        once. Raises Unstorable when some row can never be stored (then none is), Unavailable when it is not known whether they are.
        """
        if not data or not data[0]:
            return
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token} if token else INSERT_SETTINGS
        with self._failures(inserting=True):
            self._client.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES", data, columnar=True, settings=settings)

    def close(self) -> None:
        """Cut the connection; a query that still runs is cancelled by the server. The next call connects again."""
        self._client.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _failures(self, inserting: bool) -> Iterator[None]:
        """The driver's and the system's exceptions as ours. After any of them the connection starts afresh."""
        server = str(self.address)
        try:
            yield
        except ServerException as error:
            raise server_errors.failure(error.code, error.message or "", server, inserting) from None
        except (NetworkError, SocketTimeoutError) as error:
            self.close()
            if "CERTIFICATE_VERIFY_FAILED" in error.message:
                raise BadInput(f"store {server} is not trusted: {error.message}", "name its authority with ca_certs=FILE") from None
            raise Unavailable(f"store {server} cannot be reached: {error.message}", "is it running?") from None
        except (OSError, EOFError) as error:
            # A server that ends in the middle shows as these, not as a driver's error.
            self.close()
            raise Unavailable(f"store {server} cut the connection: {error or 'end of stream'}") from None
        except (TypeMismatchError, CannotParseUuidError, LogicalError, ValueError, TypeError, AttributeError) as error:
            # The driver finds out while it packs a column, by whatever exception the packing ends in.
            self.close()
            if inserting:
                raise Unstorable(f"rows cannot be stored: {error}") from None
            raise
        except DriverError as error:
            self.close()
            if inserting:
                # Whoever answered so may not be the server. Rows are held back and tried again, never dropped.
                raise Unavailable(f"the answer of store {server} cannot be read: {error}") from None
            raise BadInput(f"the answer of store {server} cannot be read: {error}") from None


WRITE_TIMEOUT_S = 60.0
"""An insert that is not answered for so long is tried again, with the next server if there are several."""


def in_turn(address: Address) -> Callable[[], Connection]:
    """Gives a connection to the address's first server, at the next call to its second, and so on: for whoever asks again after a failure.

    The driver itself goes to the next one only when it cannot connect, not when a server takes connections and then fails.
    """
    turn = iter(_turns(address))
    return lambda: Connection(next(turn), timeout_s=WRITE_TIMEOUT_S)


def _turns(address: Address) -> Iterator[Address]:
    while True:
        yield address
        address = address.next()


class _IntegerTime(FormatColumn):  # type: ignore[misc]
    """DateTime: the stored 32-bit number of seconds."""

    ch_type = "DateTime"
    py_types = (int,)
    format = "I"


class _IntegerTime64(FormatColumn):  # type: ignore[misc]
    """DateTime64: the stored 64-bit number, in units of the type's scale."""

    ch_type = "DateTime64"
    py_types = (int,)
    format = "q"


def _integer_time(spec: str, options: dict[str, Any]) -> Any:
    """The column for a type that begins with DateTime."""
    return (_IntegerTime64 if spec.startswith("DateTime64") else _IntegerTime)(**options)


FEW = 8
"""Arrays are packed one by one where each stands in so many rows on average: alone, one costs what some ten in a column do."""


class _RepeatedUUID(UUIDColumn):  # type: ignore[misc]
    """UUID: the same few objects stand in many rows of a block (a host, a boot, ancestors), so each is packed once."""

    before_write_items = None

    def write_items(self, items: list[UUID], buf: Any) -> None:
        """Two 64-bit numbers each, the more significant one first. ``items`` holds the objects, so none takes another's id."""
        packed = {}
        for number, item in dict(zip(map(id, items), items, strict=True)).items():
            raw = item.int.to_bytes(16)
            packed[number] = raw[7::-1] + raw[:7:-1]
        buf.write(b"".join(map(packed.__getitem__, map(id, items))))


class _Packed(BytesIO):
    """A buffer that strings can be written to, as the driver's."""

    def write_strings(self, items: Sequence[bytes]) -> None:
        """Each as its length and its bytes."""
        self.write(b"".join(chain.from_iterable((make_varint(len(item)), item) for item in items)))


class _FlatArray(ArrayColumn):  # type: ignore[misc]
    """Array of plain values: where each ends, then all values as one column. The driver goes through them several times.

    Where the same few objects stand in many rows (ancestors, chains that were inherited), each is packed once.
    """

    def write_data(self, data: list[Sequence[Any]], buf: Any) -> None:
        """Arrays of arrays, and of what may be NULL, are the driver's."""
        nested = self.nested_column
        if isinstance(nested, ArrayColumn) or self.nullable or nested.nullable:
            super().write_data(data, buf)
            return
        buf.write(struct.pack(f"<{len(data)}Q", *accumulate(map(len, data))))
        numbers = list(map(id, data))  # ``data`` holds the objects, so none takes another's id
        distinct = dict(zip(numbers, data, strict=True))
        if len(distinct) * FEW > len(data) or isinstance(nested, LowCardinalityColumn):
            items = list(chain.from_iterable(data))
            if items:
                nested._write_data(items, buf)
            return
        packed = {}
        for number, one in distinct.items():
            alone = _Packed()
            nested._write_data(list(one), alone)
            packed[number] = alone.getvalue()
        buf.write(b"".join(map(packed.__getitem__, numbers)))


def _array(spec: str, column_of: Callable[[str], Any], options: dict[str, Any]) -> _FlatArray:
    """The column for a type that begins with Array."""
    return _FlatArray(column_of(spec.removeprefix("Array(").removesuffix(")")), **options)


class _NumberedEnum8(Enum8Column):  # type: ignore[misc]
    """Enum8: a block of the numbers themselves is looked through at once, not number by number."""

    def before_write_items(self, items: list[Any], nulls_map: list[bool] | None = None) -> None:
        """Names become numbers; raises LogicalError for what is neither."""
        if nulls_map or set(map(type, items)) != {int} or not self.name_by_value.keys() >= set(items):
            super().before_write_items(items, nulls_map)


def _fit_driver() -> None:
    """Make the driver keep times as integers, and pack what our rows consist of quickly.

    It has no setting for times and computes in floating point, which is wrong from the tenth of a microsecond on. The driver's
    version is pinned, and the contract tests hold times to the nanosecond and every type to what the server reads.
    """
    driver_columns.create_datetime_column = _integer_time
    driver_columns.create_array_column = _array
    driver_columns.column_by_type["UUID"] = _RepeatedUUID
    # What a block leaves out because nearly all values are false would come as the number 0, the others as bool.
    driver_columns.column_by_type["Bool"].null_value = False
    enumcolumn.Enum8Column = _NumberedEnum8
    # Without a handler of its own, Python would print the driver's remarks about lost connections to stderr.
    logger = logging.getLogger("clickhouse_driver")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
