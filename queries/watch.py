"""Execs as they come into the store, none missed and none twice, each with its history.

The join writes an image's first row once the image is 200 ms old or has ended, so rows do not come in order of begin, but what is
not yet written began less than that before the newest begin of its boot. Each look asks for all that began after a mark some
seconds older than the newest begin seen, per boot of each host, and leaves out what was shown. Boottime marks, for wall clocks are
set. Boots are told apart by host and boot: a machine that was copied while it ran has its original's boot_id.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from queries.find import Condition, joined
from queries.history import History, fetch_ancestors, missing, walk
from queries.rows import NEWEST, Chained, Source, columns, make
from schemas.identity import NIL

OVERLAP_NS = 5_000_000_000
"""How much older than the newest begin a look goes back; the join holds a first row back for 200 ms of event time."""
BACK_NS = 6 * 3_600_000_000_000
"""Wall clocks set back by more than this, or as much behind the other hosts', hide execs from watch (never from find); the shorter,
the less a look reads."""
HOLD_LOOKS = 4
"""Looks for which an exec waits for the rows of its ancestors, which may be written a moment after it."""
KNOWN_MAX = 100_000
"""Processes remembered for histories; beyond that they are read again."""

_MARKS = "SELECT cityHash64(host_id, boot_id), max(begin_boottime), max(begin) FROM images WHERE {condition} GROUP BY 1"
_NEW = """
SELECT {columns}, cityHash64(host_id, boot_id) AS boot, begin_boottime FROM images
WHERE kind = 'exec' AND begin >= fromUnixTimestamp64Nano({{floor:Int64}})
  AND begin_boottime > transform(boot, {{boots:Array(UInt64)}}, {{marks:Array(UInt64)}}, toUInt64(0)) AND ({condition})
{newest}"""


@dataclass(slots=True)
class _Waiting:
    """An exec whose ancestors are not all there."""

    image: Chained
    looks: int = 0


@dataclass(slots=True)
class Watcher:
    """Looks again and again at a store.

    source      the store
    now         wall clock in nanoseconds: a host whose clock is ahead must not hide the others
    conditions  which execs are wanted
    hosts       which hosts alone need be looked at, None for all
    """

    source: Source
    now: Callable[[], int]
    conditions: Sequence[Condition] = ()
    hosts: Condition | None = None
    _marks: dict[int, int] = field(default_factory=dict)
    _floor: int = 0
    _shown: dict[tuple[UUID, int], tuple[int, int]] = field(default_factory=dict)
    _waiting: list[_Waiting] = field(default_factory=list)
    _known: dict[UUID, dict[int, Chained]] = field(default_factory=dict)
    _started: bool = False

    def start(self, since_ns: int | None = None) -> None:
        """From now on: what is in the store already is not shown, but for what began at or after ``since_ns``."""
        self._started = True
        if since_ns is not None:
            self._floor = since_ns
            return
        condition, params = joined([self.hosts] if self.hosts else [])
        for boot, boottime, begin in self.source.query(_MARKS.format(condition=condition), params).rows:
            self._marks[boot] = boottime
            self._raise_floor(begin)
        for image, boot, boottime in self._new():
            self._shown[image.task_id, image.exec_id] = (boot, boottime)

    def look(self) -> list[History[Chained]]:
        """Execs that came since the look before, in the order in which they began."""
        assert self._started, "look before start"
        for image, boot, boottime in self._new():
            if (image.task_id, image.exec_id) not in self._shown:
                self._shown[image.task_id, image.exec_id] = (boot, boottime)
                self._marks[boot] = max(self._marks.get(boot, 0), boottime)
                self._raise_floor(image.begin)
                self._waiting.append(_Waiting(image))
        self._forget()
        return self._ready()

    def _raise_floor(self, begin_ns: int) -> None:
        self._floor = max(self._floor, min(begin_ns, self.now()) - BACK_NS)

    def _new(self) -> list[tuple[Chained, int, int]]:
        condition, params = joined([*self.conditions, *([self.hosts] if self.hosts else [])])
        boots = sorted(self._marks)
        sql = _NEW.format(columns=columns(Chained), newest=NEWEST, condition=condition)
        # transform() needs one pair at least.
        marks = [max(0, self._marks[boot] - OVERLAP_NS) for boot in boots] or [0]
        rows = self.source.query(sql, {**params, "floor": self._floor, "boots": boots or [0], "marks": marks}).rows
        images = zip(make(Chained, rows), rows, strict=True)
        found = [(image, row[-2], row[-1]) for image, row in images]
        return sorted(found, key=lambda one: (one[0].begin, one[0].tgid, one[0].exec_id))

    def _forget(self) -> None:
        """What no look can bring again need not be remembered."""
        if len(self._known) > KNOWN_MAX:
            self._known.clear()
        for key, (boot, boottime) in list(self._shown.items()):
            if boottime <= self._marks.get(boot, 0) - OVERLAP_NS:
                del self._shown[key]

    def _ready(self) -> list[History[Chained]]:
        """Histories of what waited long enough or has all its ancestors; order is kept, so one that waits holds up the rest."""
        images = [one.image for one in self._waiting]
        wanted = [image for image in images if missing([image], self._known) or image.creator_exec_id not in self._of(image)]
        if wanted:
            self._known.update(fetch_ancestors(self.source, Chained, wanted))
        ready: list[History[Chained]] = []
        for at, one in enumerate(self._waiting):
            one.looks += 1
            history = walk(one.image, self._known)
            if one.looks < HOLD_LOOKS and missing([one.image], self._known) | self._lacks(one.image):
                for later in self._waiting[at + 1 :]:
                    later.looks += 1
                del self._waiting[:at]
                return ready
            ready.append(history)
        self._waiting.clear()
        return ready

    def _of(self, image: Chained) -> dict[int, Chained]:
        return self._known.get(image.creator_id, {})

    def _lacks(self, image: Chained) -> set[UUID]:
        """The creator, if the image that forked is not there yet."""
        known = image.creator_id != NIL and image.creator_id in image.ancestor_ids and image.creator_exec_id not in self._of(image)
        return {image.creator_id} if known else set()
