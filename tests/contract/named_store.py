"""The ClickHouse that TASKTRAIL_TEST_CLICKHOUSE names: tests make databases of their own in it and leave what is there alone.

Its user must be allowed to make and drop databases, and to do in them what the writer of a store does.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

from store import address
from store.address import Address
from store.connection import Connection

VARIABLE = "TASKTRAIL_TEST_CLICKHOUSE"


def needs_its_own_clickhouse(why: str) -> None:
    """Skips a test that cannot be run on somebody's ClickHouse."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"{VARIABLE} names another ClickHouse, and this test {why}")


def named_address() -> Address | None:
    """What the environment names, None if it names nothing."""
    url = os.environ.get(VARIABLE)
    return address.parse(url, os.environ) if url else None


@contextmanager
def private_database(server: Address) -> Iterator[Address]:
    """A database there that is dropped at the end, still to be made."""
    ours = server._replace(database=f"tasktrail_test_{uuid4().hex[:12]}")
    try:
        yield ours
    finally:
        with Connection(ours._replace(database="system")) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {ours.database} SYNC")
