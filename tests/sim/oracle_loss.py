"""What may be in the store when something is missing: nothing wrong, and everything unknown marked as such.

Each value of each row is either the truth or says that it is not known; a chain with an unknown element is flagged, and the
interval that it names covers the moment of what is missing. What did arrive must be there in full.
"""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from schemas.events import Exec, Mark, MarkRecord, Seen
from schemas.identity import NIL, task_id
from schemas.limits import ANCESTORS_MAX, CHAIN_ELEMENTS_MAX, FOLD_NS
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause
from tests.sim.channel import Log
from tests.sim.host import JITTER_NS, Boot, Image, Process, Snapshot
from tests.sim.oracle import Key, Store, chain_of, flag_names

SLACK_NS = 4 * JITTER_NS
ATTACH_NS = 1_000_000
"""Times are no order: so soon after the first mark it cannot be known which of the two came first."""
PROGRAM = ("exe", "filename", "interp", "argv", "argc", "argv_bytes", "exe_dev", "exe_inode", "exe_generation")
OWN = ("comm", "uid", "gid", "euid", "egid", "loginuid", "session", "cgroup_id", "pid_ns", "ns_pid", "mnt_ns", "epoch")
PLACE = ("cwd", "tty", "cgroup", "user_ns")


@dataclass(slots=True)
class Judge:
    """One boot's truth, and what of its records arrived. ``problems`` collects what is wrong."""

    log: Log
    boot: Boot
    last: bool
    processes: dict[tuple[int, int], Process] = field(default_factory=dict)
    ids: dict[UUID, Process] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    attached_ns: int = 0
    offset_ns: int = 0

    def prepare(self) -> None:
        """Look-ups by key and by task_id; when the recorder began."""
        for process in self.boot.processes:
            self.processes[process.key] = process
            self.ids[self.id_of(process)] = process
        self.offset_ns = self.log.host.offset_ns
        entries = [entry for ring in self.boot.rings for entry in ring.entries if self.log.got(entry)]
        marks = [e for e in entries if isinstance(e.record, MarkRecord) and e.record.mark == Mark.ATTACHED and not e.record.values[0]]
        records = [entry for entry in entries if not isinstance(entry.record, MarkRecord)]
        first = marks[:1] if marks and marks[0].index < 2 else records[:1]
        self.attached_ns = first[0].record.time_ns if first else 1 << 63

    def id_of(self, process: Process) -> UUID:
        """The process's task_id."""
        return task_id(self.log.host.host_id, self.boot.boot_id, *process.key)

    def sights(self, process: Process) -> list[tuple[Seen, Snapshot]]:
        """What applied snapshots say of the process."""
        return [(seen, snapshot) for seen, snapshot in process.seen_at if self.log.got_snapshot(snapshot)]

    def truth_chain(self, image: Image | None) -> list[Image]:
        """The exec'd images up to this one, root first: the n-th has exec_id n."""
        out: list[Image] = []
        while image is not None:
            exec_id = image.exec_id
            out += [i for i in reversed(image.process.images) if i.how == "exec" and i.exec_id <= exec_id]
            image = image.process.creator
        return out[::-1]

    # -- one row ---------------------------------------------------------------------------------------------------------------

    def row(self, row: ImageRow) -> None:
        """Everything that the row says, held against the truth."""
        process = self.processes.get((row.tgid, row.start_boottime))
        if process is None:
            self.bad(row, "no such process")
            return
        image = next((i for i in process.images if i.exec_id == row.exec_id), None)
        failed = image is None and process.failed_exec and row.exec_id == process.exec_id + 1
        if image is None and not failed:
            self.bad(row, "no such image")
            return
        self.want(row, "task_id", self.id_of(process))
        self.want(row, "start", process.start_ns + self.offset_ns)
        self.want(row, "begin", row.begin_boottime + self.offset_ns)
        if image is None:
            self.want(row, "kind", int(ImageKind.UNKNOWN))
        else:
            self.what(row, image)
        self.end(row, process, image or process.image, failed)
        self.origin(row, process)
        self.ancestors(row)
        self.chain(row, image or process.image, failed)
        self.missing(row, process, image or process.image, failed)

    def bad(self, row: ImageRow, text: str) -> None:
        """One problem of one row."""
        kind = ImageKind(row.kind).name
        self.problems.append(f"({row.start_boottime}, {row.tgid}, {row.exec_id}) {kind}: {text}")

    def want(self, row: ImageRow, name: str, *right: object) -> None:
        """The value must be one of these."""
        value = getattr(row, name)
        if value not in right:
            self.bad(row, f"{name}: {value!r}, expected {right!r}")

    def within(self, row: ImageRow, name: str, value: int, low: int, high: int) -> None:
        """The value must lie between these, but for the jitter of times."""
        if not low - SLACK_NS <= value <= high + SLACK_NS:
            self.bad(row, f"{name}: {value}, expected between {low} and {high}")

    def what(self, row: ImageRow, image: Image) -> None:
        """Kind, begin and facts."""
        process, log = image.process, self.log
        renames = [comm for comm, entry, _ in image.renames if log.got(entry)]
        self.want(row, "renamed", b"", *renames)
        if renames and not image.raced and process not in log.host.readers and row.kind in (ImageKind.EXEC, ImageKind.FORK):
            self.want(row, "renamed", renames[-1])
        end = image.end_ns or 1 << 63
        if row.kind == ImageKind.EXEC:
            if image.how != "exec" or not log.got(image.entry):
                self.bad(row, "its EXEC never arrived")
            record = image.program
            assert record is not None
            if not image.raced:
                self.want(row, "begin_boottime", image.time_ns)
            for name in (*PROGRAM, *OWN, *PLACE):
                self.want(row, name, getattr(record, name))
            if set(row.flags) != set(flag_names(record.flags)):
                self.bad(row, f"flags: {row.flags}")
        elif row.kind == ImageKind.FORK:
            if image.how != "fork" or not log.got(image.entry):
                self.bad(row, "its FORK never arrived")
            if not image.raced:
                self.want(row, "begin_boottime", image.time_ns)
            for name in OWN:
                self.want(row, name, getattr(process.fork, name))
            if not self.is_program(row, image.program):
                self.bad(row, f"program: {[getattr(row, name) for name in PROGRAM]}, expected {image.program} or nothing")
        elif row.kind == ImageKind.SEEN:
            sights = [(seen, snapshot) for seen, snapshot in self.sights(process) if seen.exec_id == row.exec_id]
            names = (*PROGRAM, *PLACE, *OWN)
            if not any(all(getattr(row, name) == getattr(seen, name) for name in names) for seen, _ in sights):
                self.bad(row, f"no snapshot saw it so: {[getattr(row, name) for name in names]}")
            if row.begin_boottime not in (process.start_ns, image.time_ns):
                ends = [s.end.record.time_ns for _, s in sights if s.end]
                self.within(row, "begin_boottime", row.begin_boottime, image.time_ns, max(ends, default=0))
        else:
            comms = [image.program.comm if image.program else process.comm, process.fork.comm if process.fork else process.comm]
            self.want(row, "comm", b"", *comms, *(comm for comm, _, _ in image.renames))
            self.want(row, "exe", b"", image.program.exe if image.program else b"")
            if row.begin_boottime != process.start_ns:
                self.within(row, "begin_boottime", row.begin_boottime, image.time_ns, end)

    def is_program(self, row: ImageRow, program: Exec | None) -> bool:
        """Whether the row's program is that one, or none."""
        values = [getattr(row, name) for name in PROGRAM]
        return not any(values) or (program is not None and values == [getattr(program, name) for name in PROGRAM])

    def end(self, row: ImageRow, process: Process, image: Image, failed: bool) -> None:
        """How it ended."""
        log, kind = self.log, EndKind(row.end_kind)
        raced = image.raced or process.raced
        ended_ns = row.begin_boottime + row.duration
        exit_got = log.got(process.exit_entry)
        exec_got = image.end_how == "exec" and log.got(image.end_entry)
        newest = image is process.image
        if newest and exit_got and kind != EndKind.EXIT and not (process.failed_exec and not failed and kind == EndKind.EXEC):
            self.bad(row, f"end_kind {kind.name}, but its EXIT arrived")
        if exec_got and kind != EndKind.EXEC:
            self.bad(row, f"end_kind {kind.name}, but the EXEC that ended it arrived")
        status = row.exit_code, row.exit_signal, row.core_dumped, row.utime, row.stime, row.max_rss_kib, row.end_parent_tgid
        if kind != EndKind.EXIT and (any(status) or row.exec_failed):
            self.bad(row, f"a status without an exit: {status}")
        if row.exec_failed and not (process.failed_exec and not failed):
            self.bad(row, "exec_failed, which did not happen")
        if kind == EndKind.EXIT:
            record = process.exit
            if record is None or not exit_got or not newest:
                self.bad(row, "an exit that did not arrive")
                return
            code, signal, core = record.status >> 8 & 255, record.status & 127, record.status >> 7 & 1
            if status != (code, signal, core, record.utime_ns, record.stime_ns, record.max_rss_kib, record.real_parent_tgid):
                self.bad(row, f"status {status}, expected that of {record}")
            if row.duration != max(0, record.time_ns - row.begin_boottime):
                self.bad(row, f"duration {row.duration}, ended at {record.time_ns}")
        elif kind == EndKind.EXEC:
            if image.end_how != "exec" and not (process.failed_exec and not failed):
                self.bad(row, "ended by an exec that did not happen")
            elif exec_got and not raced and ended_ns != max(image.end_ns, row.begin_boottime):
                self.bad(row, f"duration {row.duration}, replaced at {image.end_ns}")
            elif image.end_how == "exec" and not raced and ended_ns < image.end_ns - SLACK_NS:
                self.bad(row, f"duration {row.duration} is too short: replaced at {image.end_ns}")
        elif kind in (EndKind.SUPERSEDED, EndKind.GONE):
            if not process.ended:
                self.bad(row, f"{kind.name}, but it lives")
            if not row.chain_lost:
                self.bad(row, f"{kind.name} without chain_lost")
        elif kind == EndKind.REBOOT and self.last:
            self.bad(row, "no reboot followed")
        elif kind == EndKind.LIVING and (row.duration or not self.last):
            self.bad(row, "living, with a duration or in a boot that is over")

    def by_parent(self, process: Process, creator_id: UUID) -> bool:
        """Whether a snapshot named this process as the kernel parent, with a fitting exec_id."""
        other = self.ids.get(creator_id)
        if other is None:
            return False
        for seen, _ in self.sights(process):
            if (seen.real_parent_tgid, seen.real_parent_start_ns) == other.key and any(
                i.exec_id == seen.parent_exec_id for i in other.images
            ):
                return True
        return False

    def origin(self, row: ImageRow, process: Process) -> None:
        """Creator and kernel parent."""
        creator = process.creator
        parents = {(p.tgid, self.id_of(p)) for p in process.parents} | {(0, NIL)}
        either = row.parent_id == NIL and row.parent_tgid in {tgid for tgid, _ in parents}
        if (row.parent_tgid, row.parent_id) not in parents and not either:
            self.bad(row, f"parent {row.parent_tgid} {row.parent_id}, expected one of {parents}")
        truth = self.id_of(creator.process) if creator else NIL
        if self.log.got(process.fork_entry):
            self.want(row, "creator_id", truth)
        if row.creator_id == truth and creator is not None:
            self.want(row, "creator_tgid", creator.process.tgid)
            self.want(row, "creator_exec_id", creator.exec_id)
            assert process.fork is not None
            self.want(row, "creator_tid", 0, process.fork.creator_tid)
            self.want(row, "clone_flags", 0, process.fork.clone_flags)
        elif row.creator_id == NIL:
            self.want(row, "creator_tgid", 0)
        elif not (row.chain_before and self.by_parent(process, row.creator_id)):
            self.bad(row, f"creator {row.creator_tgid}, which it is not")

    def ancestors(self, row: ImageRow) -> None:
        """Each link must be a true one, or the kernel parent's where the row says so."""
        here: Process = self.ids[row.task_id]
        if row.ancestor_ids[:1] != (row.creator_id,) and not (row.creator_id == NIL and not row.ancestor_ids):
            self.bad(row, "ancestor_ids does not begin with the creator")
        if row.ancestors_cut != (len(row.ancestor_ids) == ANCESTORS_MAX) and row.ancestors_cut:
            self.bad(row, "ancestors_cut without reason")
        for number, ancestor in enumerate(row.ancestor_ids):
            if ancestor == NIL:
                if number != len(row.ancestor_ids) - 1:
                    self.bad(row, "ancestors after an unknown one")
                return
            truth = self.id_of(here.creator.process) if here.creator else NIL
            if ancestor != truth and not (row.chain_before and self.by_parent(here, ancestor)):
                self.bad(row, f"ancestor {number} is not the creator of the one before")
                return
            here = self.ids[ancestor]
        if here.creator is not None and not row.ancestors_cut:
            self.bad(row, "ancestor_ids ends as if a root were reached")

    def chain(self, row: ImageRow, image: Image, failed: bool) -> None:
        """Elements in order, each the true one or unknown, no hole without an unknown element in it."""
        chain = chain_of(row)
        truth = {i.exec_id: i for i in self.truth_chain(image)}
        line = {row.task_id, *row.ancestor_ids}
        before, gap = 0, bool(row.chain_cut)
        if row.chain_cut and len(chain) != CHAIN_ELEMENTS_MAX:
            self.bad(row, f"chain_cut with {len(chain)} elements")
        for kind, tgid, exec_id, start, comm, exe in chain:
            want = truth.get(exec_id)
            if kind == ImageKind.UNKNOWN:
                gap = True
                died_in_exec = failed and (tgid, exec_id) == (row.tgid, row.exec_id)
                if tgid and (want is None or want.process.tgid != tgid) and not row.chain_before and not died_in_exec:
                    self.bad(row, f"chain: unknown element {exec_id} of {tgid}, which did not run it first")
                if start or comm or exe:
                    self.bad(row, f"chain: unknown element {exec_id} says {start} {comm!r} {exe!r}")
                if exec_id and exec_id <= before:
                    self.bad(row, f"chain: unknown element {exec_id} after {before}")
                continue
            if exec_id <= before or (exec_id != before + 1 and not gap):
                self.bad(row, f"chain: {exec_id} follows {before}, and nothing says that something is missing")
            before, gap = exec_id, False
            if want is None or want.process.tgid != tgid:
                want = next(
                    (i for p in self.boot.processes if p.tgid == tgid for i in p.images if i.exec_id == exec_id and self.id_of(p) in line),
                    None,
                )
                if want is None or not row.chain_before:
                    self.bad(row, f"chain: {exec_id} of {tgid} is not in it")
                    continue
            facts: Any = want.program
            if (comm, exe) not in {
                (facts.comm, facts.exe),
                *((s.comm, s.exe) for s, _ in self.sights(want.process) if s.exec_id == exec_id),
            }:
                self.bad(row, f"chain: {exec_id} of {tgid} is {comm!r} {exe!r}, expected {facts.comm!r} {facts.exe!r}")
            if kind == ImageKind.EXEC and start != want.time_ns + self.offset_ns and not want.raced:
                self.bad(row, f"chain: {exec_id} of {tgid} began at {start}, expected {want.time_ns + self.offset_ns}")
        if not gap and before != row.exec_id:
            self.bad(row, f"chain ends with {before}")
        kinds = [element[0] for element in chain]
        whole = ImageKind.UNKNOWN not in kinds and not row.chain_cut and NIL not in row.ancestor_ids
        if row.chain_complete and (len(chain) != row.exec_id or ImageKind.UNKNOWN in kinds or row.chain_cut):
            self.bad(row, "chain_complete, which it is not")
        if whole and not row.chain_complete and row.kind != ImageKind.UNKNOWN and not row.ancestors_cut:
            self.bad(row, "chain_complete is not set, but nothing is missing")

    def missing(self, row: ImageRow, process: Process, image: Image, failed: bool) -> None:
        """What is missing from the chain must be flagged, and the interval must cover it."""
        unknown = {exec_id for kind, _, exec_id, *_ in chain_of(row) if kind == ImageKind.UNKNOWN}
        moments: list[tuple[str, int]] = []
        links: list[int] = []
        shown = {exec_id for kind, _, exec_id, *_ in chain_of(row) if kind != ImageKind.UNKNOWN}
        if row.kind == ImageKind.UNKNOWN and image.how != "root" and not failed:
            moments.append(("the image", process.start_ns if image.how == "fork" else image.time_ns))
        if row.end_kind in (EndKind.SUPERSEDED, EndKind.GONE):
            moments.append(("the exit", process.exit_ns))
        line = [process]
        upto = image
        for ancestor in (*row.ancestor_ids, None):
            here = line[-1]
            for one in here.images:
                if one.how == "exec" and one.exec_id <= upto.exec_id and one.exec_id not in shown and unknown and not row.chain_cut:
                    moments.append((f"image {one.exec_id} of {here.tgid}", self.when_lost(one, line)))
            if unknown and not self.log.got(here.fork_entry):
                links.append(here.start_ns)
            if ancestor == NIL:
                moments.append((f"the fork of {here.tgid}", self.when_lost(here.images[0], line)))
            if ancestor in (None, NIL) or here.creator is None or ancestor != self.id_of(here.creator.process):
                break
            upto = here.creator
            line.append(upto.process)
        since_ns = self.attached_ns + ATTACH_NS
        late = [(name, at_ns) for name, at_ns in moments if at_ns >= since_ns]
        early = [(name, at_ns) for name, at_ns in moments if at_ns < since_ns]
        if early and not (row.chain_lost or row.chain_before):
            self.bad(row, f"missing from before the recorder, and nothing says so: {early}")
        if late and not row.chain_lost:
            self.bad(row, f"missing, and chain_lost is not set: {late}")
        low, high = row.lost_from - self.offset_ns - SLACK_NS, row.lost_to - self.offset_ns + SLACK_NS
        if late and row.chain_lost and not any(low <= at_ns <= high for at_ns in [*links, *(at_ns for _, at_ns in late)]):
            self.bad(row, f"missing, but not from {low} to {high}, as the row says: {late}")
        if not row.chain_lost and (row.lost_from or row.lost_to):
            self.bad(row, "lost_from and lost_to without chain_lost")

    def when_lost(self, image: Image, line: list[Process]) -> int:
        """When what says of the image was lost: its own record, or, if that arrived, the fork below that would have kept it in mind."""
        if not self.log.got(image.entry):
            return image.process.start_ns if image.how == "fork" else image.time_ns
        for process in reversed(line[:-1]):
            if not self.log.got(process.fork_entry):
                return process.start_ns
        self.problems.append(f"({image.process.start_ns}, {image.process.tgid}, {image.exec_id}) arrived and was forgotten")
        return image.time_ns

    # -- what must be there --------------------------------------------------------------------------------------------------------

    def presence(self, images: dict[Key, ImageRow]) -> None:
        """Every record that arrived has its row."""
        for process in self.boot.processes:
            for image in process.images:
                row = images.get((self.boot.boot_id, process.start_ns, process.tgid, image.exec_id))
                name = f"({process.start_ns}, {process.tgid}, {image.exec_id})"
                if not self.log.got(image.entry):
                    continue
                if image.how == "exec" and (row is None or row.kind != ImageKind.EXEC):
                    self.problems.append(f"{name}: EXEC arrived, the row is {row}")
                if image.how == "fork" and row is None and not self.may_fold(image):
                    self.problems.append(f"{name}: FORK arrived and there is no row")
                if image.how == "fork" and row is not None and not image.raced and self.must_fold(image):
                    self.problems.append(f"{name}: it should be folded")
            if self.log.got(process.exit_entry) and not process.raced:
                keys = [
                    (self.boot.boot_id, process.start_ns, process.tgid, process.exec_id + more) for more in (0, int(process.failed_exec))
                ]
                if not any((row := images.get(key)) and row.end_kind == EndKind.EXIT for key in keys):
                    self.problems.append(f"({process.start_ns}, {process.tgid}): EXIT arrived and no row says so")

    def may_fold(self, image: Image) -> bool:
        """Whether the fork image's row may be left out: the process exec'd soon."""
        following = next((i for i in image.process.images if i.how == "exec"), None)
        return following is not None and following.time_ns - image.time_ns < FOLD_NS + SLACK_NS

    def must_fold(self, image: Image) -> bool:
        """Whether it must: no child in it, the exec arrived, and it was not so late that the row was out."""
        following = next((i for i in image.process.images if i.how == "exec"), None)
        if following is None or image.children or not self.log.got(following.entry) or following.raced:
            return False
        return following.time_ns - image.time_ns < FOLD_NS - SLACK_NS


def check_losses(log: Log, store: Store) -> list[str]:
    """The table of losses: what was counted must add up."""
    problems = []
    for boot in log.host.boots:
        rows = [row for row in store.losses.values() if row.boot_id == boot.boot_id]
        for row in rows:
            if row.begin_boottime > row.end_boottime:
                problems.append(f"a loss that ends before it begins: {row}")
        for ring, placed in log.rings:
            if ring.boot is not boot:
                continue
            got = [one for one in placed if log.got(one.entry)]
            for cause, count in (
                (LossCause.RING_FULL, max((int.from_bytes(one.data[48:56], "little") for one in got), default=0)),
                (LossCause.UNDECODABLE, sum(one.damaged for one in placed if not log.in_hole(one.entry))),
                (LossCause.LOG_HOLE, hole_bytes(log, placed)),
            ):
                amount = sum(row.amount for row in rows if row.cause == cause and row.ring_id == ring.ring_id)
                if amount != count:
                    problems.append(f"ring {ring.ring_id}: {cause.name} adds up to {amount}, expected {count}")
            if ring is boot.rings[0] and log.got(ring.entries[1]):
                covered = [row for row in rows if row.cause == LossCause.NO_RECORDER or row.cause == LossCause.LOG_HOLE]
                if not any(row.begin_boottime == 0 for row in covered):
                    problems.append(f"ring {ring.ring_id}: nothing says that the time before the recorder is missing")
        for begin, end in boot.outages:
            if end < 0 or not any(log.got(e) for r in boot.rings for e in r.entries if e.record.time_ns > end + SLACK_NS):
                continue
            causes = (LossCause.NO_RECORDER, LossCause.LOG_HOLE)
            cover = [r for r in rows if r.cause in causes and r.begin_boottime <= begin + SLACK_NS and end - SLACK_NS <= r.end_boottime]
            if not cover:
                problems.append(f"nobody recorded from {begin} to {end}, and no loss covers it")
    return problems


def hole_bytes(log: Log, placed: list[Any]) -> int:
    """Missing bytes that a later record of the ring makes visible."""
    seen = [number for number, one in enumerate(placed) if not log.in_hole(one.entry)]
    return sum(len(one.data) for one in placed[: seen[-1]] if log.in_hole(one.entry)) if seen else 0


def check_loss(log: Log, store: Store) -> None:
    """Asserts that nothing in the store is wrong and that everything unknown is marked."""
    problems: list[str] = []
    boots = {boot.boot_id: Judge(log, boot, boot is log.host.boots[-1]) for boot in log.host.boots}
    for judge in boots.values():
        judge.prepare()
    for row in store.images.values():
        boots[row.boot_id].row(row)
    for judge in boots.values():
        judge.presence(store.images)
        problems += judge.problems
    problems += check_losses(log, store)
    assert not problems, "\n".join(problems[:12]) + f"\n({len(problems)} problems)"
