"""What the store remembers of a host, for a join whose own state is lost: who it is, what lived, and what that descends from."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from schemas.batch import Batch, BatchKind, frames
from schemas.columns import IMAGES, LOSSES, Column
from schemas.errors import DecodeError
from schemas.events import Exit, Fork, decode_record
from schemas.identity import NIL
from schemas.limits import ANCESTORS_MAX
from schemas.rows import ImageRow, LossRow
from store.connection import Connection
from streams.join import HostState
from streams.join.recall import AROUND_NS, Point, Remembered, recall

IDS_AT_ONCE = 5_000
EVER = (1 << 64) - 1


class KnownMachine(NamedTuple):
    """A machine of which table hosts tells: the host_id that its rows bear, and its fingerprint."""

    host_id: UUID
    machine: bytes


class MemoryEdge(Protocol):
    """What a stream asks of the store when it knows nothing of a host. Each call may raise Unavailable."""

    def machines(self, host_id: UUID) -> list[KnownMachine]:
        """The machines that gave themselves this host_id, the one that has it first; empty if none is known."""

    def recall(self, host_id: UUID, batch: Batch, all_before: bool = False) -> HostState | None:
        """The state of that host before this batch of it; None if nothing was stored of it.

        With ``all_before`` it is known that all that comes before the batch was stored; else the store must prove it.
        """


class Memory:
    """The store's memory; see MemoryEdge. For one thread."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        """``connect`` gives a new connection for each call: it is asked rarely."""
        self._connect = connect

    def machines(self, host_id: UUID) -> list[KnownMachine]:
        """See MemoryEdge."""
        newest = "SELECT host_id, machine FROM hosts WHERE claims = {host_id:UUID} ORDER BY version DESC LIMIT 1 BY host_id"
        with self._connect() as connection:
            rows = connection.query(newest, {"host_id": host_id}).rows
        found = [KnownMachine(one, bytes.fromhex(machine.decode("ascii"))) for one, machine in rows]
        return sorted(found, key=lambda one: one.host_id != host_id) if any(one.host_id == host_id for one in found) else []

    def recall(self, host_id: UUID, batch: Batch, all_before: bool = False) -> HostState | None:
        """See MemoryEdge."""
        with self._connect() as connection:
            boots = self._boots(connection, host_id)
            if not boots:
                return None
            if batch.boot_id in boots:
                boot_id, point = batch.boot_id, point_before(batch)
                earlier = boots[: boots.index(boot_id)]
            else:
                # The host has started anew since: all of the boot before was stored, and ends when the batch is joined.
                boot_id, earlier = boots[-1], boots[:-1]
                point = Point(EVER, EVER, self._last_ns(connection, host_id, boot_id), frozenset(), frozenset())
            read = self._read(connection, host_id, boot_id)
            if all_before and read[0] == point.ring_id:
                read = point[:2]
            return recall(self._remembered(connection, host_id, boot_id, point)._replace(earlier=earlier[-8:], read=read), point)

    def _boots(self, connection: Connection, host_id: UUID) -> list[UUID]:
        """In the order in which they were first heard of."""
        order = "SELECT boot_id FROM images WHERE host_id = {host_id:UUID} GROUP BY boot_id ORDER BY max(seen), max(begin)"
        return [row[0] for row in connection.query(order, {"host_id": host_id}).rows]

    def _read(self, connection: Connection, host_id: UUID, boot_id: UUID) -> tuple[int, int]:
        """How far the boot has been read, by the latest report and the latest image."""
        where = "WHERE host_id = {host_id:UUID} AND boot_id = {boot_id:UUID}"
        latest = f"SELECT max((ring_id, position)) FROM hosts {where} UNION ALL SELECT max((ring_id, position)) FROM images {where}"
        rows = connection.query(latest, {"host_id": host_id, "boot_id": boot_id}).rows
        return max((int(ring_id), int(position)) for ((ring_id, position),) in rows)

    def _last_ns(self, connection: Connection, host_id: UUID, boot_id: UUID) -> int:
        last = "SELECT max(version) FROM images WHERE host_id = {host_id:UUID} AND boot_id = {boot_id:UUID}"
        return int(connection.query(last, {"host_id": host_id, "boot_id": boot_id}).rows[0][0]) // 4

    def _remembered(self, connection: Connection, host_id: UUID, boot_id: UUID, point: Point) -> Remembered:
        where = "host_id = {host_id:UUID} AND boot_id = {boot_id:UUID}"
        params: dict[str, object] = {"host_id": host_id, "boot_id": boot_id}
        params |= {"until": min(EVER, point.time_ns + AROUND_NS), "since": max(0, point.time_ns - AROUND_NS)}
        newest = "ORDER BY version DESC LIMIT 1 BY host_id, boot_id, start_boottime, tgid, exec_id"
        begun = f"SELECT * FROM images WHERE {where} AND start_boottime <= {{until:UInt64}} {newest}"
        lived = f"SELECT task_id, ancestor_ids FROM ({begun}) WHERE end_kind = 'living' OR begin_boottime + duration >= {{since:UInt64}}"
        rows = connection.query(lived, params).rows
        images: list[ImageRow] = []
        known: set[UUID] = {NIL}
        wanted = {task_id for task_id, _ in rows} | {one for _, ancestors in rows for one in ancestors}
        while wanted - known:
            ids = sorted(wanted - known)
            known |= wanted
            for at in range(0, len(ids), IDS_AT_ONCE):
                some = f"SELECT {_columns(IMAGES)} FROM images WHERE {where} AND task_id IN ({{ids:Array(UUID)}}) {newest}"
                found = connection.query(some, {**params, "ids": ids[at : at + IDS_AT_ONCE]}).rows
                images += [ImageRow(*_values(IMAGES, row)) for row in found]
            # Lists of ancestors are cut; what is farther is told by the farthest.
            wanted = {one for row in images if len(row.ancestor_ids) >= ANCESTORS_MAX for one in row.ancestor_ids} - known
        losses = connection.query(f"SELECT {_columns(LOSSES)} FROM losses FINAL WHERE {where}", params).rows
        return Remembered(images, [LossRow(*_values(LOSSES, row)) for row in losses], self._users(connection, where, params), [], (0, 0))

    def _users(self, connection: Connection, where: str, params: dict[str, object]) -> dict[int, bytes]:
        users: dict[int, bytes] = {}
        for number, name in (("loginuid", "login_user"), ("uid", "user")):
            some = f"SELECT {number}, any({name}) FROM images WHERE {where} AND {name} != '' GROUP BY {number}"
            users |= {int(uid): bytes(text) for uid, text in connection.query(some, params).rows}
        return users


def point_before(batch: Batch) -> Point:
    """The point of its host's log at which the batch begins."""
    time_ns, forks, exits = -1, list[tuple[int, int]](), list[tuple[int, int]]()
    try:
        for at, size in frames(batch.body) if batch.kind == BatchKind.EVENTS else ():
            try:
                record = decode_record(batch.body, at, size)
            except DecodeError:
                continue
            time_ns = record.time_ns if time_ns < 0 else time_ns
            if isinstance(record, Fork | Exit) and record.time_ns <= time_ns + AROUND_NS:
                (forks if isinstance(record, Fork) else exits).append((record.tgid, record.start_ns))
    except DecodeError:
        pass
    return Point(batch.ring_id, batch.start, time_ns if time_ns >= 0 else batch.boottime_ns, frozenset(forks), frozenset(exits))


def _columns(columns: Iterable[Column]) -> str:
    """A SELECT list that gives enums as numbers."""
    return ", ".join(
        f"CAST(`{one.name}` AS Int8)"
        if one.type.startswith("Enum8")
        else f"arrayMap(kind -> CAST(kind AS Int8), `{one.name}`)"
        if one.type.startswith("Array(Enum8")
        else f"`{one.name}`"
        for one in columns
    )


def _values(columns: Sequence[Column], row: Sequence[Any]) -> list[Any]:
    """Values as the join makes them: tuples, and numbers for what is true or false."""
    return [
        tuple(value) if isinstance(value, list) else int(value) if one.type == "Bool" else value
        for one, value in zip(columns, row, strict=True)
    ]
