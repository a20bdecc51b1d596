"""The history of an image: every process on the way from the root to it, and every program that they ran until then.

A row names its creator and the image that the creator ran at the moment of fork (creator_id, creator_exec_id). From image to image
this leads to the root; all rows on the way are fetched by ancestor_ids at once. Where rows are missing (expired, or never
written), the chain in the last row that is there goes on: it has all exec'd images, but not the processes that only forked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar
from uuid import UUID

from queries.quoting import UNKNOWN, quote_name
from queries.rows import NEWEST, Chained, Source, fetch
from schemas.identity import NIL
from schemas.rows import ImageKind, ImageRow

STEPS_MAX = 4096
"""Processes that one history shows at most; a longer one says that it was cut."""


class Origin(Enum):
    """Where a step is known from."""

    ROW = "row"
    """its row is in the store"""
    CHAIN = "chain"
    """only from the chain in a descendant's row"""
    UNKNOWN = "unknown"
    """that it was there is known, what it was is not"""


class Chain(Protocol):
    """The columns that say how complete a chain is."""

    @property
    def chain_complete(self) -> int: ...
    @property
    def chain_before(self) -> int: ...
    @property
    def chain_cut(self) -> int: ...
    @property
    def chain_lost(self) -> int: ...
    @property
    def lost_from(self) -> int: ...
    @property
    def lost_to(self) -> int: ...


class Image(Chain, Protocol):
    """The columns that a walk needs (ImageRow and queries.rows.Chained have them)."""

    @property
    def host_id(self) -> UUID: ...
    @property
    def host(self) -> bytes: ...
    @property
    def task_id(self) -> UUID: ...
    @property
    def tgid(self) -> int: ...
    @property
    def exec_id(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def begin(self) -> int: ...
    @property
    def comm(self) -> bytes: ...
    @property
    def creator_id(self) -> UUID: ...
    @property
    def creator_tgid(self) -> int: ...
    @property
    def creator_exec_id(self) -> int: ...
    @property
    def ancestor_ids(self) -> tuple[UUID, ...]: ...
    @property
    def ancestors_cut(self) -> int: ...
    @property
    def chain_kind(self) -> tuple[int, ...]: ...
    @property
    def chain_tgid(self) -> tuple[int, ...]: ...
    @property
    def chain_exec_id(self) -> tuple[int, ...]: ...
    @property
    def chain_start(self) -> tuple[int, ...]: ...
    @property
    def chain_comm(self) -> tuple[bytes, ...]: ...


I = TypeVar("I", bound=Image)  # noqa: E741  # a type variable for images
R = TypeVar("R", ImageRow, Chained)


class Step(NamedTuple):
    """One process on the way.

    tgid      0 where not known
    comm      name of the image that it ran when it created the next process on the way; None where not known
    begin_ns  when that image began, wall clock; 0 where not known
    task_id   NIL where not known
    exec_id   of that image; -1 where not known
    origin    where all this is known from
    """

    tgid: int
    comm: bytes | None
    begin_ns: int
    task_id: UUID
    exec_id: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class History(Generic[I]):
    """How an image came to be.

    image      the image itself
    steps      the processes on the way, root first, the image's own last
    images     every stored image on the way, root first: of each process those up to its fork of the next
    whole      the steps reach the root
    fallback   steps that are only known from a chain, because their rows are not in the store
    """

    image: I
    steps: tuple[Step, ...]
    images: tuple[I, ...]
    whole: bool
    fallback: int


Known = Mapping[UUID, Mapping[int, I]]
"""task_id → exec_id → the newest row of that image."""


def label(tgid: int, comm: bytes | None) -> str:
    """``make(4650)``; ``?(4650)`` without a name, ``?`` without anything."""
    name = UNKNOWN if comm is None else quote_name(comm)
    return f"{name}({tgid})" if tgid else name


def readable(steps: Iterable[Step]) -> str:
    """``systemd(1) > sshd(812) > bash(901)``."""
    return " > ".join(label(step.tgid, step.comm) for step in steps)


def known_of(rows: Iterable[I]) -> dict[UUID, dict[int, I]]:
    """The rows by process and exec id."""
    known: dict[UUID, dict[int, I]] = {}
    for row in rows:
        known.setdefault(row.task_id, {})[row.exec_id] = row
    return known


def _name(image: Image) -> bytes | None:
    """What the image is called; None for one that is only proven to have been."""
    return None if image.kind == ImageKind.UNKNOWN and not image.comm else image.comm


def _own(image: Image) -> Step:
    return Step(image.tgid, _name(image), image.begin, image.task_id, image.exec_id, Origin.ROW)


def _inherited(image: Image) -> list[Step]:
    """The creators of an image as far as its chain tells, root first: of each process its last image there."""
    steps: list[Step] = []
    chain = zip(image.chain_tgid, image.chain_exec_id, image.chain_comm, image.chain_kind, image.chain_start, strict=True)
    for tgid, exec_id, comm, kind, start in chain:
        if exec_id > image.creator_exec_id:
            break
        unknown = kind == ImageKind.UNKNOWN and not comm
        step = Step(tgid, None if unknown else comm, start, NIL, exec_id, Origin.UNKNOWN if unknown else Origin.CHAIN)
        if steps and tgid and steps[-1].tgid == tgid:
            steps[-1] = step
        else:
            steps.append(step)
    if image.creator_tgid and (not steps or steps[-1].tgid != image.creator_tgid):
        steps.append(Step(image.creator_tgid, None, 0, image.creator_id, image.creator_exec_id, Origin.UNKNOWN))
    elif not steps:
        steps.append(Step(0, None, 0, NIL, -1, Origin.UNKNOWN))
    return steps


def is_root(image: Image) -> bool:
    """Nobody created it: process 1, kthreadd. (An unknown creator is a nil id in ancestor_ids.)"""
    return not image.ancestor_ids and image.creator_id == NIL and not image.ancestors_cut


def walk(image: I, known: Known[I]) -> History[I]:
    """The history of the image, as far as the rows in ``known`` and their chains tell."""
    steps = [_own(image)]
    images = [[row for exec_id, row in sorted(known.get(image.task_id, {}).items()) if exec_id < image.exec_id] + [image]]
    before: list[Step] = []
    current: I = image
    whole = True
    while not is_root(current):
        rows = known.get(current.creator_id, {})
        if not rows or len(steps) >= STEPS_MAX:
            before = _inherited(current)
            whole = bool(current.ancestor_ids) and current.ancestor_ids[-1] != NIL and not current.ancestors_cut and not current.chain_cut
            break
        upto = current.creator_exec_id
        images.append([row for exec_id, row in sorted(rows.items()) if exec_id <= upto])
        if upto in rows:
            current = rows[upto]
            steps.append(_own(current))
        else:
            task_id, tgid = current.creator_id, current.creator_tgid
            current = rows[max((exec_id for exec_id in rows if exec_id < upto), default=min(rows))]
            steps.append(Step(tgid, None, 0, task_id, upto, Origin.UNKNOWN))
    fallback = sum(step.origin is Origin.CHAIN for step in before)
    flat = tuple(row for rows_of_one in reversed(images) for row in rows_of_one)
    return History(image, (*before, *reversed(steps)), flat, whole, fallback)


def missing(images: Iterable[Image], known: Mapping[UUID, object]) -> set[UUID]:
    """The ancestors that a walk from these images may come to and that are not in ``known``."""
    return {task_id for image in images for task_id in image.ancestor_ids if task_id != NIL and task_id not in known}


ANCESTORS = f"""
WHERE host_id IN ({{hosts:Array(UUID)}}) AND task_id IN ({{ids:Array(UUID)}})
    AND start <= fromUnixTimestamp64Nano({{latest:Int64}})
{NEWEST}"""
"""The rows of processes of these hosts by their ids, none of which began after ``latest`` (nanoseconds)."""

IDS_AT_ONCE = 2000
"""Ids in one query, which may be 256 KiB long; and enough of them that a query more costs little beside what it finds."""


def fetch_ancestors(source: Source, shape: type[R], images: Sequence[Image]) -> dict[UUID, dict[int, R]]:
    """The rows of the images' processes and of all their ancestors, also of those beyond the 64 that a row holds.

    Some hosts at a time: the rows of one lie together, and to look for all ids among the rows of all hosts for each query would read
    nearly all of them each time.
    """
    by_host: dict[UUID, list[Image]] = {}
    for image in images:
        by_host.setdefault(image.host_id, []).append(image)
    known: dict[UUID, dict[int, R]] = {}
    wanted = {host_id: {image.task_id for image in some} | missing(some, {}) for host_id, some in by_host.items()}
    asked: set[UUID] = set()
    while wanted:
        fresh: dict[UUID, list[R]] = {}
        for part in portions_of(wanted):
            latest = max(image.start for host_id in part for image in by_host[host_id])
            params = {"hosts": sorted(part), "ids": [task_id for ids in part.values() for task_id in ids], "latest": latest}
            for row in fetch(source, shape, ANCESTORS, params):
                fresh.setdefault(row.host_id, []).append(row)
        asked.update(*wanted.values())
        known.update(known_of(row for rows in fresh.values() for row in rows))
        wanted = {host_id: ids for host_id, rows in fresh.items() if (ids := missing(rows, {}) - asked)}
    return known


def portions_of(wanted: Mapping[UUID, set[UUID]]) -> Iterator[dict[UUID, list[UUID]]]:
    """The ids by their hosts, so many at a time; a host's are together unless they alone are more."""
    portion: dict[UUID, list[UUID]] = {}
    held = 0
    for host_id, ids in wanted.items():
        if held + len(ids) > IDS_AT_ONCE and portion:
            yield portion
            portion, held = {}, 0
        ordered = sorted(ids)
        for at in range(0, len(ordered) - IDS_AT_ONCE, IDS_AT_ONCE):
            yield {host_id: ordered[at : at + IDS_AT_ONCE]}
        rest = ordered[(len(ordered) - 1) // IDS_AT_ONCE * IDS_AT_ONCE :]
        portion[host_id] = rest
        held += len(rest)
    if portion:
        yield portion


def history_of(source: Source, image: ImageRow) -> History[ImageRow]:
    """The history of one image."""
    return walk(image, fetch_ancestors(source, ImageRow, [image]))
