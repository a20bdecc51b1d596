"""The join's state out of the rows that were stored: what it knew of a host at some point of its log, when no saved state tells.

Every row bears all columns, its creator, its ancestors and its chain, so the rows of what lived then, of their ancestors and of what
those ran before say all that the state held. What was stored of a time after that point is taken back: it comes again with the log.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast
from uuid import UUID

from schemas.limits import FOLD_NS
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause, LossRow
from streams.join.facts import NO_FACTS
from streams.join.losses import TOUCHES_CHAINS
from streams.join.model import LIVING, NEVER, End, Facts, HostState, Image, Interval, Origin, Process

_END_AT, _FACTS_AT = ImageRow._fields.index("duration"), ImageRow._fields.index("exe")
_COMM_AT, _ORIGIN_AT = ImageRow._fields.index("comm"), ImageRow._fields.index("creator_id")
_ORIGIN_END = ImageRow._fields.index("end_parent_tgid")
AROUND_NS = 1_000_000
"""Longest time by which a record's time may be out of the ring's order: what ended within it before the point is asked for too."""
_COUNTERS = {
    LossCause.RING_FULL: "lost",
    LossCause.SKIPPED: "skipped",
    LossCause.RENAME_DROPPED: "dropped_rename",
    LossCause.ARGV_SHORTENED: "short_argv",
}
FORK, UNKNOWN = int(ImageKind.FORK), int(ImageKind.UNKNOWN)


class Point(NamedTuple):
    """A point of a host's log.

    ring_id, position  where it goes on
    time_ns            of what comes there first
    forks, exits       (tgid, start_ns) of the processes whose forks and exits come there, as far as AROUND_NS after time_ns
    """

    ring_id: int
    position: int
    time_ns: int
    forks: frozenset[tuple[int, int]]
    exits: frozenset[tuple[int, int]]


class Remembered(NamedTuple):
    """What the store has of one boot of a host.

    images   newest rows of the images of processes that began before the point and had not ended AROUND_NS before it, of their creators,
             and so on
    losses   all of the boot
    users    names of user ids
    earlier  boots that began before it
    read     (ring_id, position) up to which its ring has been read and stored at least
    """

    images: Sequence[ImageRow]
    losses: Sequence[LossRow]
    users: Mapping[int, bytes]
    earlier: Sequence[UUID]
    read: tuple[int, int]


def _fork_was_folded(row: ImageRow) -> bool:
    """Whether the process's first row tells of its fork too."""
    return row.kind == ImageKind.EXEC and row.creator_tid > 0 and row.exec_id == row.creator_exec_id + 1


def recall(memory: Remembered, point: Point) -> HostState | None:
    """The state at that point; None if nothing was stored of a time before it."""
    begun = [row for row in memory.images if (row.ring_id, row.position) < point[:2]]
    if not begun:
        return None
    newest = max(begun, key=lambda row: (row.ring_id, row.position))
    # What lies between what was read and the point is a hole, and is told when the log goes on.
    ring_id, position = min(point[:2], max(memory.read, (newest.ring_id, newest.position)))
    state = HostState(newest.host_id, newest.host, newest.boot_id, list(memory.earlier), ring_id, position)
    state.now_ns = point.time_ns
    state.event_ns = min(point.time_ns, max(row.version // 4 for row in begun))
    state.offset_ns = newest.begin - newest.begin_boottime
    state.users = dict(memory.users)
    _recall_losses(state, memory.losses, point)
    if not state.recording_since_ns:
        state.recording_since_ns = min(row.begin_boottime for row in memory.images)
    _Recalling(state, memory.images, point).go()
    day_ns = state.refresh_ns
    state.refresh_ns = (point.time_ns // day_ns + 1) * day_ns
    return state


def _recall_losses(state: HostState, losses: Iterable[LossRow], point: Point) -> None:
    for row in sorted(losses, key=lambda one: (one.ring_id, one.position)):
        if (row.ring_id, row.position) >= (point.ring_id, point.position):
            continue
        if row.cause == LossCause.NO_RECORDER and not row.begin_boottime:
            state.recording_since_ns = row.end_boottime
        elif row.cause in TOUCHES_CHAINS:
            state.losses.append((row.begin_boottime, row.end_boottime))
        name = _COUNTERS.get(LossCause(row.cause))
        if name and row.ring_id == point.ring_id:
            state.counters[name] = state.counters.get(name, 0) + row.amount


class _Recalling:
    """Processes and images out of rows, each made once."""

    def __init__(self, state: HostState, rows: Iterable[ImageRow], point: Point) -> None:
        self._state, self._point = state, point
        self._of: dict[UUID, list[ImageRow]] = {}
        for row in rows:
            self._of.setdefault(row.task_id, []).append(row)
        for images in self._of.values():
            images.sort(key=lambda row: row.exec_id)
        self._processes: dict[UUID, Process] = {}
        self._images: dict[tuple[UUID, int], Image] = {}
        self._elements: dict[tuple[int, int, int], Image] = {}

    def go(self) -> None:
        """Fill the state."""
        # Creators are older than what they created.
        order = sorted(self._of, key=lambda task_id: (self._of[task_id][0].start_boottime, self._of[task_id][0].tgid))
        for task_id in order:
            self._process(self._of[task_id])
        for task_id, process in self._processes.items():
            self._settle(process, self._of[task_id])
        self._state.waiting = deque(sorted(self._state.waiting, key=lambda due: due[0]))

    def _begun(self, rows: list[ImageRow]) -> list[ImageRow]:
        """The images that had begun at the point. What a snapshot found after it had been there before, if the process had."""
        point = self._point
        found = [row for row in rows if (row.ring_id, row.position) < point[:2]]
        first = rows[0]
        return found or ([first] if first.kind == ImageKind.SEEN and first.start_boottime < point.time_ns else [])

    def _ended(self, row: ImageRow) -> bool:
        """Whether it had ended at the point. Near it, times are no order: the exit comes after it or came before."""
        after_ns = row.begin_boottime + row.duration - self._point.time_ns
        if row.end_kind == EndKind.EXIT and abs(after_ns) <= AROUND_NS:
            return (row.tgid, row.start_boottime) not in self._point.exits
        return row.end_kind != EndKind.LIVING and after_ns < 0

    def _process(self, rows: list[ImageRow]) -> None:
        first = rows[0]
        begun = self._begun(rows)
        if not begun and ((first.tgid, first.start_boottime) in self._point.forks or not _fork_was_folded(first)):
            return  # its first record comes after the point
        process = Process(first.tgid, first.start_boottime, first.task_id, first.start)
        process.origin = cast(Origin, tuple(first[_ORIGIN_AT:_ORIGIN_END]))
        process.creator = self._processes.get(first.creator_id)
        process.root = not first.ancestor_ids
        process.by_parent = bool(first.chain_before) and not first.creator_tid
        process.shown = True
        if process.creator is None and not process.root:
            process.lost = self._lost(first)
        self._processes[first.task_id] = process
        for row in begun:
            self._image(process, row)
        if process.creator is not None:
            process.creator_image = self._creator_image(first, process.creator)
        if not begun:
            self._fork_to_come(process, first)

    def _creator_image(self, row: ImageRow, creator: Process) -> Image | None:
        """The creator's image at the fork."""
        image = self._images.get((creator.task_id, row.creator_exec_id))
        if image is None:
            return None
        image.had_child = True
        return image

    def _image(self, process: Process, row: ImageRow) -> Image:
        own = bool(row.chain_exec_id) and (row.chain_tgid[-1], row.chain_exec_id[-1]) == (row.tgid, row.exec_id) and row.kind != FORK
        image = Image(process, row.exec_id, row.kind, own, None, row.tgid if own else 0, row.begin_boottime, row.begin)
        image.comm, image.renamed = row.comm, row.renamed
        image.facts = cast(Facts, tuple(row[_FACTS_AT:_ORIGIN_AT]))
        image.ring_id, image.position, image.epoch = row.ring_id, row.position, row.epoch
        taken_back = row.end_kind != EndKind.LIVING and not self._ended(row)
        known = row.version // 4 <= self._point.time_ns + AROUND_NS and not taken_back
        image.version = row.version if known else row.begin_boottime * 4
        image.touched_ns = image.sure_ns = image.version // 4
        image.touched_wall_ns = image.touched_ns + (self._state.offset_ns or 0)
        # Its row does not tell whether what was lost is of its chain or of its end; the rows of what descends from it do.
        image.lost = image.end_lost = self._lost(row)
        image.before = bool(row.chain_before)
        if self._ended(row):
            image.end = cast(End, tuple(row[_END_AT:_COMM_AT]))
            image.end_parent_tgid = row.end_parent_tgid
        else:
            image.end = LIVING
        self._images[row.task_id, row.exec_id] = image
        image.base = self._chain(row, len(row.chain_kind) - (1 if own else 0))
        return image

    def _chain(self, row: ImageRow, length: int) -> Image | None:
        """The newest of the first ``length`` elements of the row's chain, each below the one before."""
        base: Image | None = None
        if row.chain_cut and length:
            base = Image(None, row.chain_exec_id[0] - 1, UNKNOWN, True, None)  # what was cut off
        family = (row.task_id, *row.ancestor_ids)
        for at in range(length):
            tgid, exec_id = row.chain_tgid[at], row.chain_exec_id[at]
            known = next((one for one in family if (one, exec_id) in self._images and self._processes[one].tgid == tgid), None)
            image = self._images[known, exec_id] if known is not None else None
            base = image if image is not None and image.own else self._element(row, at, base)
            if not row.chain_lost:
                base.lost = NEVER
        return base

    def _element(self, row: ImageRow, at: int, base: Image | None) -> Image:
        """An element of which the store has no row (any more), or that is a gap."""
        key = (row.chain_tgid[at], row.chain_exec_id[at], row.chain_start[at])
        element = self._elements.get(key)
        if element is None or element.base is not base:
            tgid, exec_id, start = key
            element = Image(None, exec_id, row.chain_kind[at], True, base, tgid, begin_wall_ns=start, comm=row.chain_comm[at])
            if row.chain_kind[at] != UNKNOWN:
                element.facts = (row.chain_exe[at], *NO_FACTS[1:])
            element.lost, element.before = self._lost(row), bool(row.chain_before)
            self._elements[key] = element
        return element

    def _lost(self, row: ImageRow) -> Interval:
        """The loss that touches its chain, if it was known by then."""
        to_ns = row.lost_to - (self._state.offset_ns or 0)
        if not row.lost_to or to_ns > self._point.time_ns + AROUND_NS:
            return NEVER
        return (max(0, row.lost_from - row.lost_to + to_ns), to_ns)

    def _fork_to_come(self, process: Process, row: ImageRow) -> None:
        """It had been forked, and what was stored begins with its exec, which comes after the point: the fork was folded into it."""
        creator = process.creator_image
        image = Image(process, row.creator_exec_id, FORK, False, creator.head if creator is not None else None, 0)
        image.begin_ns, image.begin_wall_ns = row.start_boottime, row.start
        image.touched_ns = image.sure_ns = row.start_boottime
        image.facts = creator.facts if creator is not None else NO_FACTS
        image.before = creator.before if creator is not None else bool(row.chain_before)
        self._images[row.task_id, row.creator_exec_id] = image
        process.image = image

    def _settle(self, process: Process, rows: list[ImageRow]) -> None:
        """The process is among the living, or it has ended and only others need it."""
        begun = self._begun(rows)
        if not begun:
            self._state.living[process.tgid] = process
            return
        last = begun[-1]
        image = self._images[last.task_id, last.exec_id]
        if last.end_kind == EndKind.EXEC:
            image.end = LIVING  # the next image comes after the point
        if image.end != LIVING:
            self._state.recent.append((process.tgid, process.start_ns))
            return
        process.image = image
        self._state.living[process.tgid] = process
        due_ns = last.begin_boottime + FOLD_NS
        if due_ns > self._point.time_ns and last.kind != ImageKind.SEEN:
            image.version, image.due_ns = 0, due_ns
            self._state.waiting.append((due_ns, image))
