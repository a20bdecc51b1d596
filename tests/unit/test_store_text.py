"""Addresses, parameters, values and server messages: everything of the store that needs no server."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import BadInput, TasktrailError, Unavailable
from store import address, params, values
from store.address import Address
from store.server_errors import TooMuch, Unstorable, failure, sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("clickhouse://db", Address("db", 9000, "default", "", "tasktrail")),
        ("clickhouse://me:a%40b@db.example:9001/other", Address("db.example", 9001, "me", "a@b", "other")),
        ("clickhouses://db/", Address("db", 9440, "default", "", "tasktrail", True)),
        ("clickhouse://db?secure=1", Address("db", 9440, "default", "", "tasktrail", True)),
        ("clickhouse://me@[::1]:9000/x", Address("::1", 9000, "me", "", "x")),
        ("clickhouse://me:p:q@a,b:9001,[::1]/x", Address("a", 9000, "me", "p:q", "x", alt_hosts="b:9001,[::1]:9000")),
        ("clickhouse://a?alt_hosts=b,c:1", Address("a", 9000, "default", "", alt_hosts="b:9000,c:1")),
        (
            "clickhouses://a,b?verify=0&ca_certs=/etc/x.pem",
            Address("a", 9440, "default", "", secure=True, verify=False, ca_certs="/etc/x.pem", alt_hosts="b:9440"),
        ),
        ("clickhouse://a?secure=0&verify=1", Address("a", 9000, "default", "")),
    ],
)
def test_addresses(url: str, expected: Address) -> None:
    assert address.parse(url, {}) == expected
    assert address.parse(url, {"TASKTRAIL_PASSWORD": "env"}).password == "env"


@pytest.mark.parametrize(
    "url",
    [
        "clickhouse://",
        "clickhouse://db:port",
        "clickhouse://db:99999",
        "clickhouse://u:secret@db,other:port",
        "clickhouse://u:secret@/x",
        "http://db",
        "clickhouse://u:secret@db?x=1",
        "clickhouse://u:secret@db?verify=perhaps",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(BadInput) as refusal:
        address.parse(url, {})
    assert "secret" not in str(refusal.value)


def test_a_password_is_never_shown() -> None:
    given_address = address.parse("clickhouse://me:secret@db", {})
    assert "secret" not in f"{given_address} {given_address!r} {[given_address]}"
    with pytest.raises(BadInput) as refusal:
        address.parse("clickhouse://me:secret@db:port", {})
    assert "secret" not in str(refusal.value)


def test_servers_are_taken_in_turn() -> None:
    one = address.parse("clickhouse://u@a,b:1,[::1]:2/x", {})
    two = one.next()
    assert (two.host, two.port, two.alt_hosts) == ("b", 1, "[::1]:2,a:9000")
    assert two.next().host == "::1" and two.next().next() == one
    alone = address.parse("clickhouse://a", {})
    assert alone.next() == alone
    assert str(one) == "clickhouse://u@a:9000,b:1,[::1]:2/x" and address.parse(str(one), {}) == one


def test_what_is_an_address() -> None:
    assert address.is_address("clickhouse://x") and address.is_address("clickhouses://x")
    assert not address.is_address("/var/lib/tasktrail") and not address.is_address("clickhouse")


@given(st.binary())
def test_parameters_are_plain_ascii(data: bytes) -> None:
    text = str(params.encoded({"x": data})["x"])  # type: ignore[index]
    assert text.isascii() and text.isprintable() and "'" not in text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("DateTime64(9, 'UTC')", 1_795_621_704_961_484_401, "2026-11-25 15:48:24.961484401"),
        ("DateTime64(9, 'UTC')", 1, "1970-01-01 00:00:00.000000001"),
        ("DateTime64(3)", -1, "1969-12-31 23:59:59.999"),
        ("DateTime('UTC')", 0, "1970-01-01 00:00:00"),
        ("Nullable(DateTime64(9, 'UTC'))", None, None),
        ("Array(DateTime64(0))", [1, 2], ["1970-01-01 00:00:01", "1970-01-01 00:00:02"]),
        ("UUID", UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        ("Array(Nullable(UUID))", [UUID(int=5), None], ["00000000-0000-0000-0000-000000000005", None]),
        ("Tuple(String, at DateTime('UTC'))", (b"x", 0), [b"x", "1970-01-01 00:00:00"]),
        ("Tuple(Enum8('a, b' = 1), UUID)", ("a, b", UUID(int=1)), ["a, b", "00000000-0000-0000-0000-000000000001"]),
        ("Map(String, Array(DateTime))", {b"k": [0]}, {b"k": ["1970-01-01 00:00:00"]}),
    ],
)
def test_values_as_text(kind: str, value: object, text: object) -> None:
    read = values.reader(kind)
    assert read is not None and read(value) == text


@pytest.mark.parametrize(
    "kind", ["String", "UInt64", "Array(String)", "LowCardinality(String)", "Enum8('DateTime' = 1)", "Tuple(a String, b Bool)"]
)
def test_values_that_are_fit_already(kind: str) -> None:
    assert values.reader(kind) is None


def test_messages_become_one_sentence() -> None:
    message = (
        "DB::Exception. DB::Exception: Unknown table expression identifier 'nope' in scope SELECT 1. (UNKNOWN_TABLE) "
        "(version 26.9.2.1)\n\nStack trace:\n\n0. DB::Exception::Exception(x)"
    )
    assert sentence(message) == "Unknown table expression identifier 'nope' in scope SELECT 1"
    assert len(sentence("x" * 10_000)) < 500


@pytest.mark.parametrize(
    ("code", "inserting", "kind"),
    [
        (53, True, Unstorable),
        (None, True, Unavailable),
        (60, False, BadInput),
        (159, False, BadInput),
        (241, False, BadInput),
        (241, True, TooMuch),
        (202, False, Unavailable),
        (12345, False, BadInput),
        # What passes is tried again, and so is what nobody has thought of.
        *((code, True, Unavailable) for code in (3, 159, 202, 209, 210, 236, 242, 243, 252, 279, 319, 415, 999, 12345)),
        # What does not pass is not.
        *((code, True, BadInput) for code in (16, 47, 48, 60, 81, 115, 164, 194, 195, 452, 497, 516, 701)),
        # A row that no server takes is looked for.
        *((code, True, Unstorable) for code in (6, 27, 38, 41, 53, 69, 70, 72, 131, 321, 349, 376, 441, 469, 691)),
    ],
)
def test_what_a_servers_error_is_to_us(code: int | None, inserting: bool, kind: type[TasktrailError]) -> None:
    assert type(failure(code, "DB::Exception: words", "server", inserting)) is kind


def test_a_cluster_that_is_not_all_there_is_told() -> None:
    words = "DB::Exception: Distributed DDL task /clickhouse/task_queue/ddl/query-1 is not finished on 1 of 2 hosts. (TIMEOUT_EXCEEDED)"
    told = failure(159, words, "server", False)
    assert isinstance(told, Unavailable) and "not all servers" in str(told) and "is not finished on 1 of 2 hosts" in str(told)


def test_columns_that_are_not_there_are_told_with_the_cure() -> None:
    assert "tasktrail store init" in str(failure(16, "No such column claims in table", "server", True))
