"""What the join remembers of one host: its living processes, and what their descendants still need.

Everything hangs together by references: a living process holds its current image, an image the image before it on the chain
(``base``) and its process, a process its creator and the creator's image at the moment of fork. What no living process reaches
is forgotten by itself, so the state grows with the living and their ancestors, never with history.
"""

from collections import deque
from dataclasses import dataclass, field
from uuid import UUID

from schemas import limits
from schemas.identity import NIL, Names

Facts = tuple[object, ...]
"""Columns exe to flags of schemas.rows.ImageRow, in its order."""

End = tuple[int, int, int, int, int, int, int, int, int]
"""Columns duration to max_rss_kib of schemas.rows.ImageRow, in its order."""

LIVING: End = (0, 0, 0, 0, 0, 0, 0, 0, 0)

Origin = tuple[UUID, int, int, int, int, UUID, int]
"""Columns creator_id to parent_tgid of schemas.rows.ImageRow, in its order."""

NO_ORIGIN: Origin = (NIL, 0, 0, 0, 0, NIL, 0)


def creator_not_recorded(parent_tgid: int) -> Origin:
    """The origin of a process of which no more is known than the kernel's parent's tgid."""
    return (*NO_ORIGIN[:6], parent_tgid)


Interval = tuple[int, int] | tuple[()]
"""Boottime in nanoseconds, from and to; empty for none."""

NEVER: Interval = ()


@dataclass(slots=True, eq=False, repr=False)
class Process:
    """A process, living or needed by a living one.

    tgid, start_ns   its key within the boot
    task_id          its name everywhere
    start_wall_ns    wall clock at its start, fixed when it was first known
    root             nobody created it (the first user process, kthreadd)
    creator          who called fork; None if root or not known
    creator_image    the creator's image at that moment
    origin           what the records say of the creator and the kernel's parent
    by_parent        the creator is not recorded: it is the kernel's parent in a snapshot
    lost             the loss that hides its creator
    image            its newest image
    shown            a snapshot has shown it
    absent           snapshots in a row that did not show it
    born_snapshot    the snapshot that was open when it was first known, 0 if none
    ancestry         its creators; below: those of all that it created and of which nothing else is to be said
    """

    tgid: int
    start_ns: int
    task_id: UUID
    start_wall_ns: int
    root: bool = False
    creator: "Process | None" = None
    creator_image: "Image | None" = None
    origin: Origin = NO_ORIGIN
    by_parent: bool = False
    lost: Interval = NEVER
    image: "Image | None" = None
    shown: bool = False
    absent: int = 0
    born_snapshot: int = 0
    ancestry: "Ancestry | None" = None
    below: "Ancestry | None" = None

    @property
    def creator_tid(self) -> int:
        """The thread that called fork, known only from a FORK record; else 0."""
        return self.origin[3]

    @property
    def creator_recorded(self) -> bool:
        """Whether the creator is a recorded fact rather than missing or taken from a snapshot."""
        return self.root or (self.creator is not None and not self.by_parent)


@dataclass(slots=True, eq=False, repr=False)
class Image:
    """One image of a process, or a gap in a chain (``process`` is None, ``tgid`` 0 where not even that is known).

    own          it was exec'd, so it is an element of its chain; a forked image is not
    base         the element before it on the chain
    begin_ns     boottime of its first record; wall clock beside it
    touched_ns   the join's now when its last fact arrived; wall clock beside it
    sure_ns      the join's now when a record last proved that it was its process's image
    had_child    a process was forked while it was the current image
    version      of its newest row, 0 if none was given out yet
    due_ns       when its row becomes due: its place in the queue ``waiting``; 0 if it is in none
    end_lost     the loss that hides how it ended
    lost, before why something is missing right before it or in it
    chain        its columns chain_kind to chain_exe
    """

    process: Process | None
    exec_id: int
    kind: int
    own: bool
    base: "Image | None"
    tgid: int = 0
    begin_ns: int = 0
    begin_wall_ns: int = 0
    comm: bytes = b""
    renamed: bytes = b""
    facts: Facts = ()
    ring_id: int = 0
    position: int = 0
    epoch: int = 0
    touched_ns: int = 0
    touched_wall_ns: int = 0
    sure_ns: int = 0
    had_child: bool = False
    version: int = 0
    due_ns: int = 0
    lost: Interval = NEVER
    before: bool = False
    end: End = LIVING
    end_lost: Interval = NEVER
    end_parent_tgid: int = 0
    chain: "Chain | None" = None

    @property
    def written(self) -> bool:
        """Whether a row of it has been given out."""
        return self.version > 0

    @property
    def head(self) -> "Image | None":
        """The newest element of its chain: itself if it was exec'd, else the one that it inherited."""
        return self if self.own else self.base


@dataclass(slots=True)
class Ancestry:
    """The task_ids of a process's creators, nearest first, with what is to be said of the way to them; void once a link is mended.

    stamp  ``relinks`` of the state when it was made
    """

    ids: tuple[UUID, ...]
    cut: bool
    before: bool
    lost: Interval
    stamp: int


Columns = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[bytes, ...], tuple[bytes, ...]]
"""Columns chain_kind to chain_exe of schemas.rows.ImageRow, in its order."""


@dataclass(slots=True)
class Chain:
    """A chain as columns, root first, with what is to be said of it as a whole; void once a link is mended.

    stamp  ``relinks`` of the state when it was made
    """

    columns: Columns
    whole: bool
    cut: bool
    before: bool
    lost: Interval
    stamp: int


NO_CHAIN = Chain(((), (), (), (), (), ()), True, False, False, NEVER, 0)


@dataclass(slots=True, repr=False)
class HostState:
    """All that the join knows of one host after some batch. A value: see streams.join.saved.

    ring_id, position  how far the log is read
    events             records that were read in this boot
    event_ns           the latest time of a record that an attached program wrote: marks can be put without any
    now_ns             the running maximum of record times
    offset_ns          realtime - boottime of the latest clock mark, None before the first
    counters           what the recorder had counted at the latest record or mark, by name
    recording_since_ns boottime of the first attachment in this boot, 0 before it
    losses             intervals in which records of fork, exec or exit were lost
    links_lost         ring position and begin of a time without recorder that has not ended; begin 0: since before the recorder
    unread             records that could not be read since the last good one: how many, position of the first, begin
    reader             (tgid, start_ns) of the process that put the latest mark
    recent             keys that ended last, newest last: repeats of their exits are known by it
    last_snapshot      id of the latest snapshot that was applied
    open_snapshot      id of the snapshot that is being taken, 0 if none; ended_meanwhile: what ended since
    snapshot_ns        now when it began: what it proves it proves for no later moment
    snapshots          snapshots whose end mark was not reached yet, by id: parts that arrived, parts in all, body so far
    waiting            images whose row is due at a time: (due_ns, image), in order
    newest_version     the largest version of the rows of this boot that were given out
    refresh_ns         boottime at which all that lives is written again
    relinks            how often a link of a chain was mended; older columns of chains are void
    names              gives names to this boot's processes; made at need
    """

    host_id: UUID = NIL
    host: bytes = b""
    boot_id: UUID = NIL
    past_boots: list[UUID] = field(default_factory=list)
    ring_id: int = 0
    position: int = 0
    events: int = 0
    event_ns: int = 0
    now_ns: int = 0
    offset_ns: int | None = None
    counters: dict[str, int] = field(default_factory=dict)
    recording_since_ns: int = 0
    losses: list[Interval] = field(default_factory=list)
    links_lost: tuple[int, int] | None = None
    unread: tuple[int, int, int] | None = None
    reader: tuple[int, int] = (0, 0)
    living: dict[int, Process] = field(default_factory=dict)
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=256))
    last_snapshot: int = 0
    open_snapshot: int = 0
    snapshot_ns: int = 0
    ended_meanwhile: dict[tuple[int, int], Image] = field(default_factory=dict)
    snapshots: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)
    users: dict[int, bytes] = field(default_factory=dict)
    waiting: deque[tuple[int, Image]] = field(default_factory=deque)
    refresh_ns: int = limits.REFRESH_NS
    newest_version: int = 0
    relinks: int = 0
    names: Names | None = None

    def task_id(self, tgid: int, start_ns: int) -> UUID:
        """Name of a process of this boot."""
        if self.names is None:
            self.names = Names(self.host_id, self.boot_id)
        return self.names.task_id(tgid, start_ns)

    def touch(self, image: Image) -> None:
        """A fact about the image arrived now."""
        image.touched_ns = now_ns = self.now_ns
        image.touched_wall_ns = now_ns + (self.offset_ns or 0)

    def wall_ns(self, boottime_ns: int) -> int:
        """Wall clock at that boottime, by the clock pair in force."""
        return boottime_ns + (self.offset_ns or 0)

    def hull(self, from_ns: int, to_ns: int) -> Interval:
        """From the begin of the first to the end of the last loss that overlaps the interval, NEVER if none does."""
        hull: Interval = NEVER
        if self.links_lost is not None and 0 < self.links_lost[1] <= to_ns:
            hull = (self.links_lost[1], max(to_ns, self.now_ns))  # it has not ended
        for loss in self.losses:
            if loss and loss[0] <= to_ns and loss[1] >= from_ns:
                hull = join_intervals(hull, loss)
        return hull


def join_intervals(one: Interval, other: Interval) -> Interval:
    """The smallest interval that holds both; NEVER counts for nothing."""
    if not one:
        return other
    if not other:
        return one
    return min(one[0], other[0]), max(one[1], other[1])
