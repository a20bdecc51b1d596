"""Rows of the store as the values of schemas.rows, whole or only some of their columns.

A shape is a NamedTuple whose fields are columns of the table; ``columns`` gives the SELECT list and ``fetch`` the values. Enums
arrive from the connection as their names and become numbers here, as in ImageRow; all else is as the connection gives it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

from schemas.rows import EndKind, ImageKind, LossCause

Params = Mapping[str, object]
Settings = Mapping[str, str | int]


class Answer(Protocol):
    """A whole result."""

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """The rows."""


class Arriving(Protocol):
    """A result that is read while it arrives."""

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Name and type of each column."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...

    def close(self) -> None:
        """Stop early."""


class Source(Protocol):
    """What the reading side needs of a store: store.connection.Connection, or whatever a test gives."""

    def query(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Answer:
        """All rows."""

    def stream(self, sql: str, params: Params | None = None, settings: Settings | None = None) -> Arriving:
        """Rows while they arrive."""


S = TypeVar("S", bound=tuple[Any, ...])
"""A NamedTuple of columns."""


def fields_of(shape: type[S]) -> tuple[str, ...]:
    """The shape's columns."""
    fields: tuple[str, ...] = shape._fields  # type: ignore[attr-defined]  # every NamedTuple has it; there is no type for "any of them"
    return fields


class Brief(NamedTuple):
    """The columns of an image that trees and lists need; meanings in schemas.rows.IMAGES."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    task_id: UUID
    tgid: int
    exec_id: int
    kind: int
    start: int
    begin: int
    duration: int
    end_kind: int
    exit_code: int
    exit_signal: int
    core_dumped: int
    comm: bytes
    exe: bytes
    argv: tuple[bytes, ...]
    user: bytes
    uid: int
    tty: bytes
    creator_id: UUID
    creator_tgid: int
    creator_exec_id: int
    parent_tgid: int
    ancestor_ids: tuple[UUID, ...]


class Chained(NamedTuple):
    """A Brief and its chain, for what walks or shows histories of many images."""

    host_id: UUID
    host: bytes
    boot_id: UUID
    task_id: UUID
    tgid: int
    exec_id: int
    kind: int
    start: int
    begin: int
    duration: int
    end_kind: int
    exit_code: int
    exit_signal: int
    core_dumped: int
    comm: bytes
    exe: bytes
    argv: tuple[bytes, ...]
    user: bytes
    uid: int
    tty: bytes
    creator_id: UUID
    creator_tgid: int
    creator_exec_id: int
    parent_tgid: int
    ancestor_ids: tuple[UUID, ...]
    chain_kind: tuple[int, ...]
    chain_tgid: tuple[int, ...]
    chain_exec_id: tuple[int, ...]
    chain_start: tuple[int, ...]
    chain_comm: tuple[bytes, ...]
    chain_exe: tuple[bytes, ...]
    chain_complete: int
    chain_before: int
    chain_cut: int
    chain_lost: int
    ancestors_cut: int
    lost_from: int
    lost_to: int


NEWEST = "ORDER BY version DESC LIMIT 1 BY host_id, boot_id, start_boottime, tgid, exec_id"
"""Of each image the newest row. Right only where WHERE filters on columns that never change (identity, start, tgid)."""


def _numbers(kinds: type[IntEnum]) -> dict[str, int]:
    return {kind.name.lower(): int(kind) for kind in kinds}


_ENUMS = {"kind": _numbers(ImageKind), "end_kind": _numbers(EndKind), "cause": _numbers(LossCause)}
_KINDS = _ENUMS["kind"]


def _chain_kinds(names: Iterable[str]) -> tuple[int, ...]:
    return tuple(_KINDS[name] for name in names)


def _reader(field: str) -> Callable[[Any], Any] | None:
    """What a column's value must go through, None for nothing."""
    if field in _ENUMS:
        return _ENUMS[field].__getitem__
    if field == "chain_kind":
        return _chain_kinds
    if field == "argv" or field == "flags" or field.startswith("chain_") or field == "ancestor_ids":
        return tuple if field not in ("chain_complete", "chain_before", "chain_cut", "chain_lost") else None
    return None


def columns(shape: type[S]) -> str:
    """The SELECT list for the shape."""
    return ", ".join(f"`{field}`" for field in fields_of(shape))


def make(shape: type[S], rows: Iterable[tuple[Any, ...]]) -> Iterator[S]:
    """Values of the shape from rows whose first columns are its fields."""
    readers = [(at, read) for at, read in enumerate(map(_reader, fields_of(shape))) if read]
    build: Callable[[list[Any]], S] = shape._make  # type: ignore[attr-defined]
    width = len(fields_of(shape))
    for row in rows:
        values = list(row[:width])
        for at, read in readers:
            values[at] = read(values[at])
        yield build(values)


def fetch(source: Source, shape: type[S], rest: str, params: Params | None = None, table: str = "images") -> list[S]:
    """All rows of ``SELECT <the shape's columns> FROM <table> <rest>``."""
    return list(make(shape, source.query(f"SELECT {columns(shape)} FROM {table} {rest}", params).rows))
