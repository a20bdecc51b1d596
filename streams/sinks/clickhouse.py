"""Puts rows into ClickHouse so that each is there once, whatever breaks in between.

The join is deterministic: the same stretch of the log gives the same rows. So rows may be written again at any time: the tables'
engine keeps one row of each key and version, and where tables are replicated, a token made of the rows' content lets the servers
drop the repeat at once.
"""

import hashlib
import marshal
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from schemas import columns as vocabulary
from schemas.columns import Column
from schemas.errors import Unavailable
from schemas.rows import HostRow, ImageRow, LossRow, Row
from store.connection import Connection, TooMuch, Unstorable

ROWS_MAX = 20_000
"""Rows of one insert: enough for full speed, little enough for the server's memory even if every row is at its largest."""
ROWS_MIN = 1_000
"""A server that has no memory for an insert gets halves of it, down to so many rows; from there on it is given time."""
WAIT_FIRST_S = 0.05
WAIT_MAX_S = 2.0


class Table(NamedTuple):
    """A table, its columns, and those that tell any two of its rows apart (the join never makes two rows of one key and version)."""

    name: str
    columns: tuple[Column, ...]
    key: frozenset[str]


IMAGES = Table("images", vocabulary.IMAGES, frozenset(("host_id", "boot_id", "start_boottime", "tgid", "exec_id", "version")))
LOSSES = Table("losses", vocabulary.LOSSES, frozenset(("host_id", "boot_id", "ring_id", "position", "cause", "version")))

HOSTS = Table("hosts", vocabulary.HOSTS, frozenset(("host_id", "boot_id", "version")))
_TABLES: tuple[tuple[type, Table], ...] = ((ImageRow, IMAGES), (LossRow, LOSSES), (HostRow, HOSTS))


class Sink:
    """Writes rows to one server. For one thread.

    Counters: ``stored`` rows that the server has confirmed, ``retries`` attempts that failed (the last one with ``problem``), ``dead``
    rows that no server would take, each kept in a file of its own in ``deadletter``.
    """

    def __init__(
        self,
        connect: Callable[[], Connection],
        deadletter: Path,
        wait: Callable[[float], None],
        clock: Callable[[], float],
        budget_s: float = 30.0,
    ) -> None:
        """``connect`` gives a new connection, after a failure perhaps to another server (store.connection.in_turn).

        ``wait`` waits for so many seconds, ``clock`` counts them; ``budget_s`` is for one write."""
        self.stored = self.retries = self.dead = 0
        self.problem = ""
        self._connect = connect
        self._connection: Connection | None = None
        self._deadletter = deadletter
        self._wait = wait
        self._clock = clock
        self._budget_s = budget_s

    def write(self, rows: Sequence[Row], token_base: str) -> None:
        """Store all rows; returns when the server has them on disk.

        token_base  names where the rows come from; the same rows get the same token, other rows another.

        Raises Unavailable when the server does not take them within the budget: some may be stored, so write the same rows again.
        Raises BadInput when the server refuses us (no such table, no right). Rows that can never be stored go to the dead letters.
        """
        deadline = self._clock() + self._budget_s
        for kind, table in _TABLES:
            part = [row for row in rows if isinstance(row, kind)]
            for start in range(0, len(part), ROWS_MAX):
                self._store(table, part[start : start + ROWS_MAX], token_base, deadline)

    def newest_version(self, host_id: UUID, boot_id: UUID) -> int:
        """The largest version of the images of that boot that are stored, 0 if none are. Raises Unavailable."""
        if self._connection is None:
            self._connection = self._connect()
        newest = "SELECT max(version) FROM images WHERE host_id = {host_id:UUID} AND boot_id = {boot_id:UUID}"
        return int(self._connection.query(newest, {"host_id": host_id, "boot_id": boot_id}).rows[0][0])

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _store(self, table: Table, rows: Sequence[Row], base: str, deadline: float) -> None:
        """One insert, halved until the rows that cannot be stored are found, or until the server has the memory for it."""
        try:
            names, columns = _transposed(table, rows)
            self._insert(table.name, names, columns, f"{base}:{table.name}:{content_hash(table, columns)}", deadline)
            self.stored += len(rows)
        except TooMuch:
            if len(rows) <= ROWS_MIN:
                raise
            self._halve(table, rows, base, deadline)
        except (Unstorable, ValueError, TypeError, AttributeError) as error:
            if len(rows) == 1:
                self._bury(table, rows[0], error)
                return
            self._halve(table, rows, base, deadline)

    def _halve(self, table: Table, rows: Sequence[Row], base: str, deadline: float) -> None:
        half = len(rows) // 2
        self._store(table, rows[:half], base, deadline)
        self._store(table, rows[half:], base, deadline)

    def _insert(self, table: str, names: Sequence[str], columns: list[list[Any]], token: str, deadline: float) -> None:
        """One insert, tried again with the same token until the deadline."""
        pause = WAIT_FIRST_S
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                # The driver works on the lists in place, so it gets its own.
                self._connection.insert_columns(table, names, [list(column) for column in columns], token)
                return
            except Unavailable as problem:
                self.retries += 1
                self.problem = problem.problem
                self.close()
                too_much = isinstance(problem, TooMuch) and len(columns[0]) > ROWS_MIN
                if too_much or self._clock() + pause > deadline:
                    raise
            self._wait(pause)
            pause = min(2 * pause, WAIT_MAX_S)

    def _bury(self, table: Table, row: Row, error: Exception) -> None:
        """Keep a row that cannot be stored as a file named by its content, so that a repeat makes no second one."""
        text = f"table: {table.name}\nproblem: {error}\nrow: {row!r}\n"
        name = hashlib.sha256(repr(row).encode()).hexdigest()[:32]
        path = self._deadletter / f"{name}.txt"
        if path.exists():
            return
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(text, "utf-8", "backslashreplace")
        os.replace(temporary, path)
        self.dead += 1


def content_hash(table: Table, columns: Sequence[Sequence[Any]]) -> str:
    """A name of the rows: the same in every process, for marshal's version 2 looks at values only. Hashing all columns would cost
    as much time as sending them."""
    digest = hashlib.blake2b(digest_size=16)
    for column, values in zip(table.columns, columns, strict=True):
        if column.name in table.key:
            plain = [value.int for value in values] if column.type == "UUID" else list(values)
            digest.update(marshal.dumps(plain, 2))
    return digest.hexdigest()


def _transposed(table: Table, rows: Sequence[Row]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """The rows as columns. Enums become plain numbers, for the driver would look for their names as Python spells them."""
    columns: list[list[Any]] = []
    for column, values in zip(table.columns, zip(*rows, strict=True), strict=True):
        if column.type.startswith("Enum8"):
            columns.append([int(value) for value in values])
        elif column.type.startswith("Array(Enum8"):
            plain: dict[tuple[int, ...], tuple[int, ...]] = {}  # there are few different ones
            columns.append([plain.get(value) or plain.setdefault(value, tuple(map(int, value))) for value in values])
        else:
            columns.append(list(values))
    return tuple(column.name for column in table.columns), columns
