"""Rows made up for tests: any value that a column's type can hold, and plain ones."""

from functools import cache
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from schemas import identity
from schemas.columns import IMAGES, LOSSES, Column
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause, LossRow

ENUMS = {"kind": ImageKind, "end_kind": EndKind, "cause": LossCause, "chain_kind": ImageKind}
TIME_MAX = 2_000_000_000 * 10**9

hostile = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"\0", b"'", b"\\", b"=>", b"a\nb", b"\x1b[2J", b"\xff\xfe", "é".encode(), b"NULL", b"\\N", b"{x:String}", b"%s"]
    ),
)


@cache
def _values(kind: str, name: str) -> st.SearchStrategy[Any]:
    """Values of a column's type."""
    if kind.startswith("Array("):
        return st.lists(_values(kind[6:-1], name), max_size=6).map(tuple)
    if kind.startswith("LowCardinality("):
        return _values(kind[15:-1], name)
    if kind.startswith("Enum8"):
        return st.sampled_from([value.value for value in ENUMS[name]])
    if kind.startswith("DateTime64"):
        return st.integers(0, TIME_MAX)
    simple: dict[str, st.SearchStrategy[Any]] = {
        "UUID": st.uuids(),
        "String": hostile,
        "Bool": st.integers(0, 1),
        "UInt8": st.integers(0, 2**8 - 1),
        "UInt32": st.integers(0, 2**32 - 1),
        "UInt64": st.integers(0, 2**64 - 1),
        # Above now, so that no row expires while it is tested.
        "DateTime('UTC')": st.integers(1_795_000_000, 2**32 - 1 - 90 * 86_400),
    }
    return simple[kind]


def _row(columns: tuple[Column, ...], **fixed: Any) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(*(st.just(fixed[column.name]) if column.name in fixed else _values(column.type, column.name) for column in columns))


def images(**fixed: Any) -> st.SearchStrategy[ImageRow]:
    """Any image row, some columns given."""
    return _row(IMAGES, **fixed).map(lambda values: ImageRow(*values))


def losses(**fixed: Any) -> st.SearchStrategy[LossRow]:
    """Any loss row, some columns given."""
    return _row(LOSSES, **fixed).map(lambda values: LossRow(*values))


HOST = UUID(int=1)
BOOT = UUID(int=2)
BEGIN = 1_795_600_000 * 10**9


def image(number: int, **changes: Any) -> ImageRow:
    """A plain image row: the number-th process of one host, one second after the one before."""
    tgid, start = 1000 + number, (number + 1) * 10**9
    plain: dict[str, Any] = {column.name: _empty(column.type) for column in IMAGES}
    plain |= {
        "host_id": HOST,
        "host": b"host",
        "boot_id": BOOT,
        "task_id": identity.task_id(HOST, BOOT, tgid, start),
        "tgid": tgid,
        "start_boottime": start,
        "exec_id": 5,
        "kind": ImageKind.EXEC.value,
        "start": BEGIN + start,
        "begin": BEGIN + start,
        "begin_boottime": start,
        "comm": b"sh",
        "exe": b"/bin/sh",
        "argv": (b"sh", b"-c", b"true"),
        "chain_kind": (1, 1),
        "chain_comm": (b"systemd", b"sh"),
        "seen": (BEGIN + start) // 10**9,
        "version": start * 4,
    }
    return ImageRow(**(plain | changes))


def loss(number: int, **changes: Any) -> LossRow:
    """A plain loss row."""
    plain: dict[str, Any] = {column.name: _empty(column.type) for column in LOSSES}
    at = BEGIN + number * 10**9
    plain |= {
        "host_id": HOST,
        "host": b"host",
        "boot_id": BOOT,
        "ring_id": 7,
        "position": number,
        "cause": LossCause.RING_FULL.value,
        "begin": at,
        "end": at + 1,
        "seen": at // 10**9,
    }
    return LossRow(**(plain | changes))


def _empty(kind: str) -> Any:
    """The empty value of a type."""
    if kind.startswith("Array"):
        return ()
    if "String" in kind:
        return b""
    return identity.NIL if kind == "UUID" else 0
