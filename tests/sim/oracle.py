"""What the store must hold in the end, said from the truth of a simulated host and not from its records.

With no loss every field of every row is expected exactly (``expected_rows``). Where two values are right, ``AnyOf`` names both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from schemas.events import PROBE_COMM, Exec, Flag, Fork, Mark, MarkRecord, Seen
from schemas.identity import NIL, task_id
from schemas.limits import ANCESTORS_MAX, CHAIN_ELEMENTS_MAX, FOLD_NS, REFRESH_NS
from schemas.rows import EndKind, HostRow, ImageKind, ImageRow, LossRow, Row
from tests.sim.channel import Log
from tests.sim.host import Boot, Entry, Image, Process, Snapshot

Key = tuple[UUID, int, int, int]
"""boot_id, start_boottime, tgid, exec_id"""

USERS = {0: b"root", 1000: b"anna"}
COPIED = Flag.ARGV_CUT | Flag.ARGV_FAULT | Flag.ARGV_SHORT | Flag.ARGV_FROM_PROC | Flag.ARGV_MASKED | Flag.FILENAME_CUT
COPIED |= Flag.EXE_CUT | Flag.EXE_DELETED | Flag.EXE_PSEUDO | Flag.EXE_DETACHED
IGNORED = Flag.CREATOR_KNOWN | Flag.ENDED
UNKNOWN_ELEMENT = (int(ImageKind.UNKNOWN),)


class AnyOf(tuple[Any, ...]):
    """Each of these values is right."""


@dataclass(slots=True)
class Store:
    """The rows as the store keeps them: the largest version of each key."""

    images: dict[Key, ImageRow]
    losses: dict[tuple[object, ...], LossRow]


def store_of(rows: Iterable[Row]) -> Store:
    """What remains of the rows of images and losses. Rows that tie must be identical."""
    store = Store({}, {})
    for row in rows:
        kept: dict[Any, Any]
        if isinstance(row, HostRow):
            continue
        if isinstance(row, ImageRow):
            kept, key = store.images, (row.boot_id, row.start_boottime, row.tgid, row.exec_id)
        else:
            kept, key = store.losses, (row.boot_id, row.ring_id, row.position, row.cause)
        old = kept.get(key)
        if old is not None and old.version == row.version:
            assert old == row, f"two rows of one version differ: {differences(old, row)}"
        if old is None or row.version > old.version:
            kept[key] = row
    return store


def differences(left: Any, right: Any) -> str:
    """The fields in which two rows differ."""
    pairs = zip(left._fields, left, right, strict=True)
    return "; ".join(f"{name}: {a!r} / {b!r}" for name, a, b in pairs if a != b)


def wall_second(ns: int) -> int:
    """The second of a wall-clock moment."""
    return ns // 1_000_000_000


def flag_names(flags: int) -> tuple[bytes, ...]:
    """The flags' names in small letters, by bit."""
    return tuple(str(flag.name).lower().encode() for flag in Flag if flags & flag and not flag & IGNORED)


@dataclass(slots=True)
class Moment:
    """What the join knows when it reaches an entry: running maximum of times, wall clock's offset."""

    now_ns: int
    offset_ns: int


@dataclass(slots=True)
class Known:
    """How a process came to be known in a world without loss."""

    entry: Entry
    seen: Seen | None
    snapshot: Snapshot | None


class Exact:
    """The expectation for one boot of a log that nothing is missing from, whose first snapshot came in a quiet moment."""

    def __init__(self, log: Log, boot: Boot, last: bool) -> None:
        self.log = log
        self.boot = boot
        self.last = last
        self.host_id = log.host.host_id
        self.moments: dict[int, Moment] = {}
        self.crossings: list[tuple[int, int, set[int]]] = []
        self.entries = [entry for ring in boot.rings for entry in ring.entries]
        self.order = {id(entry): number for number, entry in enumerate(self.entries)}
        self.known = {id(p): known for p in boot.processes if (known := self._known(p))}
        self._walk()

    def _known(self, process: Process) -> Known | None:
        first = self.boot.snapshots[0]
        seen = next((seen for seen, snapshot in process.seen_at if snapshot is first), None)
        if seen is not None and process.fork_entry is None:
            assert first.end is not None
            return None if seen.flags & Flag.ENDED else Known(first.end, seen, first)
        return Known(process.fork_entry, None, None) if process.fork_entry else None

    def _walk(self) -> None:
        """The moments of all entries, and each crossing of a refresh boundary: boundary, offset then, entries before it."""
        now = offset = 0
        for number, entry in enumerate(self.entries):
            record = entry.record
            before = now
            if record.time_ns // REFRESH_NS > before // REFRESH_NS and number:
                self.crossings.append((record.time_ns // REFRESH_NS * REFRESH_NS, offset, {number}))
            now = max(now, record.time_ns)
            if isinstance(record, MarkRecord) and record.mark == Mark.CLOCK:
                offset = record.values[1] - record.values[0]
            self.moments[id(entry)] = Moment(now, offset)
        self.end = Moment(now, offset)

    def at(self, entry: Entry | None) -> Moment:
        """The moment of an entry."""
        assert entry is not None
        return self.moments[id(entry)]

    # -- how images are known ------------------------------------------------------------------------------------------------

    def images(self, process: Process) -> list[Image]:
        """The images of the process that the join knows of."""
        known = self.known.get(id(process))
        if known is None:
            return []
        if known.seen is not None:
            return [image for image in process.images if image.exec_id >= known.seen.exec_id]
        return process.images

    def seen_of(self, image: Image) -> Seen | None:
        """The SEEN record that the image is known by, if it is."""
        known = self.known[id(image.process)]
        return known.seen if known.seen is not None and known.seen.exec_id == image.exec_id else None

    def facts(self, image: Image) -> Seen | Exec | None:
        """The record that says what program the image runs."""
        seen = self.seen_of(image)
        if seen is not None:
            return seen
        if image.how == "fork":
            assert image.process.creator is not None
            return self.facts(image.process.creator)
        return image.program

    def first(self, image: Image) -> Entry:
        """The entry with which the image begins."""
        known = self.known[id(image.process)]
        if self.seen_of(image) is not None or image.how == "fork":
            return known.entry
        assert image.entry is not None
        return image.entry

    def begin_ns(self, image: Image) -> int:
        """The image's begin, boottime."""
        return image.process.start_ns if self.seen_of(image) else image.time_ns

    def creator(self, process: Process) -> tuple[Image | None, bool, bool]:
        """The image that created the process as far as it can be known; whether it is the kernel parent; whether there is none."""
        known = self.known[id(process)]
        if known.seen is None:
            return process.creator, False, False
        seen = known.seen
        if not seen.real_parent_tgid:
            return None, False, True
        for other in self.boot.processes:
            if other.key == (seen.real_parent_tgid, seen.real_parent_start_ns) and id(other) in self.known:
                parent = self.known[id(other)].seen
                if parent is not None and parent.exec_id == seen.parent_exec_id:
                    return next(i for i in other.images if i.exec_id == parent.exec_id), True, False
        return None, False, False

    def element(self, image: Image) -> tuple[Any, ...]:
        """The image as an element of a chain."""
        seen, facts = self.seen_of(image), self.facts(image)
        assert facts is not None
        kind: Any = int(ImageKind.SEEN if seen else ImageKind.EXEC)
        start: Any = self.begin_ns(image) + self.at(self.first(image)).offset_ns
        if image.raced:
            kind, start = AnyOf((ImageKind.SEEN, ImageKind.EXEC)), None
        return kind, image.process.tgid, image.exec_id, start, facts.comm, facts.exe

    def chain(self, image: Image) -> list[tuple[Any, ...]]:
        """The chain of the image, whole, unknown elements collapsed."""
        process = image.process
        creator, _, root = self.creator(process)
        known = self.known[id(process)]
        base = [] if root else self.chain(creator) if creator else [UNKNOWN_ELEMENT]
        if known.seen is not None:
            more = known.seen.exec_id - (0 if root else known.seen.parent_exec_id)
            if more > 1 and base[-1:] != [UNKNOWN_ELEMENT]:
                base.append(UNKNOWN_ELEMENT)
            if more:
                base.append(self.element(self.images(process)[0]))
        return base + [
            self.element(i) for i in self.images(process) if i.how == "exec" and not self.seen_of(i) and i.exec_id <= image.exec_id
        ]

    def line(self, process: Process) -> list[Process]:
        """The process and its creators as far as known, nearest first."""
        out = [process]
        while (creator := self.creator(out[-1])[0]) is not None:
            out.append(creator.process)
        return out

    # -- rows ------------------------------------------------------------------------------------------------------------------

    def folded(self, image: Image) -> bool | None:
        """Whether the image has no row of its own; None where the running maximum of times leaves both open."""
        if image.how != "fork" or self.seen_of(image) or image.end_how != "exec" or image.children:
            return False
        if image.end_ns - image.time_ns >= FOLD_NS:
            return False
        before = self.entries[self.order[id(image.end_entry)] - 1]
        return None if self.at(before).now_ns >= image.time_ns + FOLD_NS else True

    def needed(self, number: int) -> tuple[set[int], set[int]]:
        """Images that must, and others that may, be written again at the crossing just before entry ``number``."""
        must: set[int] = set()
        may: set[int] = set()
        for process in self.boot.processes:
            known = self.known.get(id(process))
            if known is None or self.order[id(known.entry)] >= number:
                continue
            if process.exit_entry and self.order[id(process.exit_entry)] < number:
                continue
            image = [i for i in self.images(process) if self.order[id(self.first(i))] < number][-1]
            must.add(id(image))
            while True:
                may.update(id(i) for i in self.images(image.process))
                must.update(id(i) for i in self.images(image.process) if i.how == "exec" and i.exec_id <= image.exec_id)
                creator = self.creator(image.process)[0]
                if creator is None:
                    break
                image = creator
                must.add(id(image))
        return must, may

    def rows(self) -> dict[Key, tuple[Image, dict[str, Any]]]:
        """All rows of the boot, by key."""
        refreshes = [(boundary, offset, next(iter(at)), *self.needed(next(iter(at)))) for boundary, offset, at in self.crossings]
        out: dict[Key, tuple[Image, dict[str, Any]]] = {}
        for process in self.boot.processes:
            for image in self.images(process):
                if self.folded(image) is not True or image.raced:
                    out[(self.boot.boot_id, process.start_ns, process.tgid, image.exec_id)] = image, self.row(image, refreshes)
        return out

    def row(self, image: Image, refreshes: list[tuple[int, int, int, set[int], set[int]]]) -> dict[str, Any]:
        """All columns of one image."""
        process = image.process
        known, first = self.known[id(process)], self.first(image)
        start = process.start_ns + self.at(known.entry).offset_ns
        begin_ns = self.begin_ns(image)
        position = self.log.placed[id(first)].position
        positions = {position, position + 8}
        if self.seen_of(image):
            assert known.snapshot is not None
            positions.add(self.log.placed[id(known.snapshot.begin)].end)
        row: dict[str, Any] = {
            "host_id": self.host_id,
            "host": b"simhost",
            "boot_id": self.boot.boot_id,
            "task_id": self.id_of(process),
            "tgid": process.tgid,
            "start_boottime": process.start_ns,
            "exec_id": image.exec_id,
            "start": start,
            "begin": begin_ns + self.at(first).offset_ns,
            "begin_boottime": begin_ns,
            "ring_id": first.ring.ring_id,
            "position": AnyOf(positions),
        }
        row.update(self._what(image))
        row.update(self._origin(process))
        row.update(self._history(image))
        row.update(self._end(image, refreshes))
        return row

    def id_of(self, process: Process) -> UUID:
        """The process's task_id."""
        return task_id(self.host_id, self.boot.boot_id, *process.key)

    def _what(self, image: Image) -> dict[str, Any]:
        seen, facts = self.seen_of(image), self.facts(image)
        assert facts is not None
        own: Any = seen or (image.process.fork if image.how == "fork" else facts)
        forked = isinstance(own, Fork)
        row = {name: getattr(facts, name) for name in ("exe", "filename", "interp", "argv", "argc", "argv_bytes")}
        row.update({name: getattr(facts, name) for name in ("exe_dev", "exe_inode", "exe_generation")})
        names = ("comm", "uid", "gid", "euid", "egid", "loginuid", "session", "cgroup_id", "pid_ns", "ns_pid", "mnt_ns", "epoch")
        row.update({name: getattr(own, name) for name in names})
        for name, empty in (("cwd", b""), ("tty", b""), ("cgroup", b""), ("user_ns", 0)):
            row[name] = empty if forked else getattr(own, name)
        row["kind"] = int(ImageKind.SEEN if seen else ImageKind.FORK if forked else ImageKind.EXEC)
        row["flags"] = flag_names(own.flags | (facts.flags & COPIED if forked else 0))
        row["user"] = USERS.get(own.uid, b"")
        row["login_user"] = USERS.get(own.loginuid, b"")
        comms = [comm for comm, entry, _ in image.renames if entry is not None and not comm.startswith(PROBE_COMM)]
        if image.process in self.log.host.readers:
            row["renamed"] = AnyOf({b"", own.comm, *comms})
        else:
            comms = [comm for comm, entry, _ in image.renames if entry is not None]
            row["renamed"] = comms[-1] if comms else b""
        return row

    def _origin(self, process: Process) -> dict[str, Any]:
        """Creator and kernel parent."""
        known = self.known[id(process)]
        creator, _, root = self.creator(process)
        record: Any = known.seen or process.fork
        parent = (record.real_parent_tgid, record.real_parent_start_ns)
        unknown_exec_id = 0 if root else AnyOf((0, record.parent_exec_id))
        return {
            "creator_id": self.id_of(creator.process) if creator else NIL,
            "creator_tgid": creator.process.tgid if creator else 0,
            "creator_exec_id": creator.exec_id if creator else unknown_exec_id,
            "creator_tid": 0 if known.seen else record.creator_tid,
            "clone_flags": 0 if known.seen else record.clone_flags,
            "parent_id": task_id(self.host_id, self.boot.boot_id, *parent) if parent[0] else NIL,
            "parent_tgid": parent[0],
        }

    def _history(self, image: Image) -> dict[str, Any]:
        """Ancestors, chain and what they are worth."""
        line = self.line(image.process)
        root = self.creator(line[-1])[2]
        ancestors = [self.id_of(p) for p in line[1:]] + ([] if root else [NIL])
        chain = self.chain(image)
        whole = root and UNKNOWN_ELEMENT not in chain
        by_parent = any(self.creator(p)[1] for p in line)
        before = any(self.known[id(p)].seen for p in line)
        raced = any(p.raced for p in line)
        return {
            "ancestor_ids": tuple(ancestors[:ANCESTORS_MAX]),
            "ancestors_cut": int(len(ancestors) > ANCESTORS_MAX),
            "chain": chain,
            "chain_cut": int(len(chain) > CHAIN_ELEMENTS_MAX) if whole or len(chain) < CHAIN_ELEMENTS_MAX - 4 else AnyOf((0, 1)),
            "chain_complete": int(whole and len(chain) <= CHAIN_ELEMENTS_MAX),
            "chain_before": AnyOf((0, 1)) if (before and not by_parent) or raced else int(by_parent),
            "chain_lost": 0 if whole else AnyOf((0, 1)),
        }

    def _end(self, image: Image, refreshes: list[tuple[int, int, int, set[int], set[int]]]) -> dict[str, Any]:
        """How it ended, and the newest version."""
        process, first = image.process, self.first(image)
        at = self.at(first)
        begin = self.begin_ns(image)
        seconds = {at.now_ns, first.record.time_ns} | (set() if self.seen_of(image) else {begin})
        candidates = [(at.now_ns * 4, {wall_second(s + at.offset_ns) for s in seconds})]
        optional: list[tuple[int, set[int]]] = []
        own = process in self.log.host.readers
        for comm, entry, time_ns in image.renames:
            if entry is not None and not (own and comm.startswith(PROBE_COMM)):
                then = self.at(entry)
                fresh = not any(self.order[id(first)] < number <= self.order[id(entry)] for _, _, number, _, _ in refreshes)
                seconds = {then.now_ns, time_ns} | ({begin} if fresh and not self.seen_of(image) else set())
                offsets = {then.offset_ns, at.offset_ns}
                fact = then.now_ns * 4, {wall_second(s + o) for s in seconds for o in offsets}
                (optional if own else candidates).append(fact)
        end: dict[str, Any] = dict.fromkeys(
            (
                "duration",
                "end_kind",
                "exit_code",
                "exit_signal",
                "core_dumped",
                "exec_failed",
                "utime",
                "stime",
                "max_rss_kib",
                "end_parent_tgid",
            ),
            0,
        )
        if image.end_how:
            then = self.at(image.end_entry)
            end["duration"] = max(0, image.end_ns - begin)
            end["end_kind"] = int(EndKind.EXEC if image.end_how == "exec" else EndKind.EXIT)
            candidates.append((then.now_ns * 4 + 2, {wall_second(s + then.offset_ns) for s in (then.now_ns, image.end_ns)}))
        elif not self.last:
            end["duration"] = max(0, self.end.now_ns - begin)
            end["end_kind"] = int(EndKind.REBOOT)
            candidates.append((self.end.now_ns * 4 + 2, {wall_second(self.end.now_ns + self.end.offset_ns)}))
        if image.end_how == "exit":
            record = process.exit
            assert record is not None
            status = record.status
            end.update(
                exit_code=status >> 8 & 255, exit_signal=status & 127, core_dumped=status >> 7 & 1, exec_failed=int(process.failed_exec)
            )
            end.update(
                utime=record.utime_ns, stime=record.stime_ns, max_rss_kib=record.max_rss_kib, end_parent_tgid=record.real_parent_tgid
            )
        for boundary, offset, number, must, may in refreshes:
            if self.order[id(first)] < number:
                refresh = (boundary * 4 + 1, {wall_second(boundary + offset)})
                if id(image) in must:
                    candidates.append(refresh)
                elif id(image) in may:
                    optional.append(refresh)
        version, seen = max(candidates, key=lambda pair: pair[0])
        for boundary, _, number, _, _ in refreshes:
            # A fact at the very nanosecond of a refresh, but after it, is the newer one.
            facts = [entry for _, entry, _ in image.renames if entry is not None and not own]
            facts += [image.end_entry] if image.end_entry else []
            late = [entry for entry in facts if self.order[id(entry)] >= number and self.at(entry).now_ns == boundary]
            if late and version == boundary * 4 + 1:
                version, seen = version + 1, {wall_second(boundary + self.at(late[-1]).offset_ns)}
        later = [pair for pair in optional if pair[0] > version]
        end["version"] = AnyOf({version, *(v for v, _ in later)})
        end["seen"] = AnyOf(seen.union(*(s for _, s in later)))
        return end


def chain_of(row: ImageRow) -> list[tuple[Any, ...]]:
    """The row's chain as elements, unknown ones as they are."""
    arrays = (row.chain_kind, row.chain_tgid, row.chain_exec_id, row.chain_start, row.chain_comm, row.chain_exe)
    return list(zip(*arrays, strict=True))


def mismatches(row: ImageRow, expected: dict[str, Any]) -> list[str]:
    """What is not as expected in one row."""
    out = []
    values = row._asdict()
    chain: list[tuple[Any, ...]] = []
    for element in chain_of(row):
        if element[0] != ImageKind.UNKNOWN:
            chain.append(element)
        elif chain[-1:] != [UNKNOWN_ELEMENT]:
            chain.append(UNKNOWN_ELEMENT)
    want_chain = expected["chain"][-CHAIN_ELEMENTS_MAX:]
    if len(chain) != len(want_chain) or not all(_same(a, b) for a, b in zip(chain, want_chain, strict=True)):
        out.append(f"chain: {chain}, expected {want_chain}")
    for name, want in expected.items():
        if name == "chain":
            continue
        value = values[name]
        if name == "version":
            if not any(0 <= value - v <= 256 for v in want):
                out.append(f"version: {value}, expected one of {sorted(want)}")
        elif name == "flags":
            got = {flag for flag in value if flag not in (b"creator_known", b"ended")}
            if got != set(want) or len(set(value)) != len(value):
                out.append(f"flags: {value}, expected {want}")
        elif value not in want if isinstance(want, AnyOf) else value != want:
            out.append(f"{name}: {value!r}, expected {want!r}")
    if not row.chain_lost and (row.lost_from or row.lost_to):
        out.append("lost_from and lost_to without chain_lost")
    return out


def _same(element: tuple[Any, ...], want: tuple[Any, ...]) -> bool:
    """Whether an element is as wanted; None stands for any value."""
    return len(element) == len(want) and all(
        b is None or (a in b if isinstance(b, AnyOf) else a == b) for a, b in zip(element, want, strict=True)
    )


def check_exact(log: Log, store: Store) -> None:
    """Asserts that the store holds what nothing missing must lead to: no row more, none less, every field right."""
    boots = log.host.boots
    problems: list[str] = []
    unexpected = dict(store.images)
    for boot in boots:
        exact = Exact(log, boot, boot is boots[-1])
        for key, (image, expected) in exact.rows().items():
            row = unexpected.pop(key, None)
            name = f"{key[1:]} ({image.how})"
            if image.raced or image.process.raced:
                continue
            if row is None:
                if exact.folded(image) is False:
                    problems.append(f"{name} has no row, expected {expected}")
            else:
                problems += [f"{name} {text}" for text in mismatches(row, expected)]
    problems += [f"{key[1:]} has a row that nothing accounts for: {row}" for key, row in unexpected.items()]
    assert not problems, "\n".join(problems[:12]) + f"\n({len(problems)} problems)"
