"""What each task event does to the processes of a host: the rules of the kernel, read backwards.

fork   a process begins with the image that it inherited           (copy_process, task_newtask)
exec   the process's image is replaced, its exec_id goes up by one (begin_new_exec, sched_process_exec)
exit   the last thread ends                                        (do_exit, sched_process_exit)
rename the main thread takes another comm                          (__set_task_comm, task_rename)

The exec_id is inherited at fork and counts the execs along the whole chain, so an image with exec_id E ends a chain of exactly E
elements. Wherever the numbers leave a hole, an unknown element stands: never the nearest plausible image.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from schemas import events
from schemas.events import Exec, Exit, Fork, Rename
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, Row
from streams.join.facts import NO_FACTS, fork_facts, program_facts, with_flags
from streams.join.model import NEVER, HostState, Image, Interval, Process, creator_not_recorded
from streams.join.rows import END, image_row, wait, write_again

# Plain numbers, as in streams.join.rows.
EXEC, FORK, UNKNOWN = int(ImageKind.EXEC), int(ImageKind.FORK), int(ImageKind.UNKNOWN)
END_EXEC, END_EXIT, SUPERSEDED, GONE = int(EndKind.EXEC), int(EndKind.EXIT), int(EndKind.SUPERSEDED), int(EndKind.GONE)

NO_EXIT = (0, 0, 0, 0, 0, 0, 0)
"""Columns exit_code to max_rss_kib of an image that did not end with an exit."""


ATTACH_NS = 1_000_000
"""Longest time by which a record's time may be out of the ring's order."""


def new_process(state: HostState, tgid: int, start_ns: int) -> Process:
    """A process that was not known, now living. One that had its tgid must have ended unseen."""
    process = Process(
        tgid,
        start_ns,
        state.task_id(tgid, start_ns),
        state.wall_ns(start_ns),
        born_snapshot=state.open_snapshot,
    )
    state.living[tgid] = process
    return process


def new_image(
    state: HostState, process: Process, exec_id: int, kind: int, own: bool, base: Image | None, begin_ns: int, position: int
) -> Image:
    """An image that is now the current one of its process."""
    now_ns, offset_ns = state.now_ns, state.offset_ns or 0
    process.image = image = Image(
        process,
        exec_id,
        kind,
        own,
        base,
        process.tgid if own else 0,
        begin_ns,
        begin_ns + offset_ns,
        facts=NO_FACTS,
        ring_id=state.ring_id,
        position=position,
        touched_ns=now_ns,
        touched_wall_ns=now_ns + offset_ns,
        sure_ns=now_ns,
    )
    return image


def gap(state: HostState, base: Image | None, exec_id: int, tgid: int, lost: Interval, before: bool) -> Image | None:
    """The chain up to ``exec_id`` where all after ``base`` is missing: one unknown element, or ``base`` itself if nothing is."""
    if exec_id <= (base.exec_id if base is not None else 0):
        return base
    return Image(None, exec_id, UNKNOWN, True, base, tgid, lost=lost, before=before)


def why_missing(state: HostState, from_ns: int, start_ns: int) -> tuple[Interval, bool]:
    """The loss that explains what is missing since ``from_ns``; or that it began before the recorder did."""
    lost = state.hull(from_ns - ATTACH_NS, state.now_ns)
    if start_ns < state.recording_since_ns or not state.recording_since_ns:
        return lost, True  # some of it may have been missed before, some later
    if lost != NEVER:
        return lost, False
    if start_ns < state.recording_since_ns + ATTACH_NS:
        return NEVER, True  # times are no order: it may have been created the moment before
    return (from_ns, state.now_ns), False


def end_image(state: HostState, image: Image, end_kind: int, end_ns: int, rows: list[Row], facts: tuple[int, ...] = NO_EXIT) -> None:
    """The image is over; its last row is written."""
    if end_ns < image.begin_ns:
        end_ns = image.begin_ns
    image.end = (end_ns - image.begin_ns, end_kind) + facts  # type: ignore[assignment]
    state.touch(image)
    rows.append(image_row(state, image, END, image.touched_ns, state.wall_ns(end_ns)))


def end_process(state: HostState, process: Process, end_kind: int, end_ns: int, rows: list[Row], facts: tuple[int, ...] = NO_EXIT) -> None:
    """The process is over; it is forgotten but for what its descendants need."""
    image = process.image
    assert image is not None
    if end_kind in (SUPERSEDED, GONE):
        image.end_lost = why_missing(state, image.sure_ns, state.now_ns)[0]
    end_image(state, image, end_kind, end_ns, rows, facts)
    key = (process.tgid, process.start_ns)
    if state.living.get(process.tgid) is process:
        del state.living[process.tgid]
    state.recent.append(key)
    if state.open_snapshot:
        state.ended_meanwhile[key] = image
    process.image = None  # the ended need no way back, and without it what nobody else holds is freed at once


def find(state: HostState, tgid: int, start_ns: int) -> Process | None:
    """The living process of that key."""
    process = state.living.get(tgid)
    return process if process is not None and process.start_ns == start_ns else None


def make_way(state: HostState, tgid: int, start_ns: int, rows: list[Row]) -> None:
    """Close the process that had the tgid before: the pid was given away, so its exit was lost."""
    other = state.living.get(tgid)
    if other is not None and other.start_ns != start_ns:
        end_process(state, other, SUPERSEDED, max(start_ns, other.start_ns), rows)


def image_at(state: HostState, process: Process, exec_id: int, at_ns: int, position: int, rows: list[Row]) -> Image:
    """The image that the process had at ``at_ns``, when its exec_id was that; an unknown one where its execs were lost.

    For an older exec_id than the current one it is the element of the chain that has it: an ended image of the same process.
    """
    image = process.image
    assert image is not None
    if exec_id == image.exec_id:
        return image
    if exec_id > image.exec_id:
        return lost_exec(state, process, exec_id, at_ns, position, rows)
    element = image.head
    while element is not None and element.exec_id > exec_id:
        element = element.base
    if element is not None and element.exec_id == exec_id and element.process is process:
        return element
    lost, before = why_missing(state, process.start_ns, process.start_ns)
    if element is None or element.exec_id < exec_id:
        element = gap(state, element, exec_id, 0, lost, before)
    return Image(process, exec_id, UNKNOWN, False, element, facts=NO_FACTS, lost=lost, before=before)


def lost_exec(state: HostState, process: Process, exec_id: int, at_ns: int, position: int, rows: list[Row]) -> Image:
    """The process had that exec_id at ``at_ns``, but no record told the exec: an unknown image takes the place of the current one."""
    previous = process.image
    assert previous is not None
    lost, before = why_missing(state, previous.sure_ns, state.now_ns)
    previous.end_lost = lost
    end_image(state, previous, END_EXEC, at_ns, rows)
    base = gap(state, previous.head, exec_id - 1, process.tgid, lost, before)
    image = new_image(state, process, exec_id, UNKNOWN, True, base, at_ns, position)
    image.lost, image.before = lost, before
    wait(state, image)
    return image


def unknown_process(state: HostState, tgid: int, start_ns: int, exec_id: int, position: int, rows: list[Row]) -> Process:
    """A process that must exist, of which nothing is known but its key and its exec_id."""
    make_way(state, tgid, start_ns, rows)
    process = new_process(state, tgid, start_ns)
    lost, before = why_missing(state, start_ns, start_ns)
    process.lost = lost
    # Which process exec'd the image is not known either: it may be inherited. So the chain has a gap, and the image is not its own.
    base = gap(state, None, exec_id, 0, lost, before)
    image = new_image(state, process, exec_id, UNKNOWN, False, base, state.now_ns, position)
    image.lost, image.before = lost, before
    wait(state, image)
    return process


def fork(state: HostState, record: Fork, position: int, rows: list[Row]) -> None:
    """A process was created."""
    known = find(state, record.tgid, record.start_ns)
    if known is None:
        make_way(state, record.tgid, record.start_ns, rows)
    elif known.creator_tid:
        return  # a repeat: a creator's thread is known only from a FORK record
    creator = _creator_of(state, record, position, rows)
    process = known or new_process(state, record.tgid, record.start_ns)
    creator_image = _link(state, process, record, creator, position, rows)
    if known is not None:
        _late_fork(state, process, record, rows)
        return
    base = creator_image.head if creator_image is not None else None
    image = new_image(state, process, record.exec_id, FORK, False, base, record.time_ns, position)
    image.comm, image.epoch = record.comm, record.epoch
    image.facts = fork_facts(state, record, creator_image or image)
    if creator_image is not None:
        image.before = creator_image.before
    wait(state, image)


def _creator_of(state: HostState, record: Fork, position: int, rows: list[Row]) -> Process | None:
    """The process that called fork; None for the kernel's own first task, which has no history."""
    if not record.creator_tgid:
        return None
    creator = find(state, record.creator_tgid, record.creator_start_ns)
    if creator is None:
        creator = unknown_process(state, record.creator_tgid, record.creator_start_ns, record.creator_exec_id, position, rows)
    return creator


def _link(state: HostState, process: Process, record: Fork, creator: Process | None, position: int, rows: list[Row]) -> Image | None:
    """Give the process its recorded creator; returns the creator's image at that moment."""
    process.creator, process.by_parent, process.lost, process.root = creator, False, NEVER, creator is None
    creator_id = NIL if creator is None else creator.task_id
    if record.real_parent_start_ns == record.creator_start_ns and record.real_parent_tgid == record.creator_tgid:
        parent = creator_id
    else:
        parent = parent_id(state, record.real_parent_tgid, record.real_parent_start_ns)
    process.origin = (
        creator_id, record.creator_tgid, record.creator_exec_id, record.creator_tid, record.clone_flags, parent, record.real_parent_tgid
    )  # fmt: skip
    if creator is not None:
        process.creator_image = image = image_at(state, creator, record.creator_exec_id, record.time_ns, position, rows)
        image.had_child = True
    return process.creator_image


def parent_id(state: HostState, tgid: int, start_ns: int) -> UUID:
    """Name of the kernel's parent; nil for tgid 0, the kernel itself."""
    if not tgid:
        return NIL
    parent = find(state, tgid, start_ns)
    return parent.task_id if parent is not None else state.task_id(tgid, start_ns)


def _late_fork(state: HostState, process: Process, record: Fork, rows: list[Row]) -> None:
    """A process that a snapshot or a child showed first gets its creator, and its chain hangs from there."""
    image, creator_image = process.image, process.creator_image
    assert image is not None
    relink(state, process, image, record.exec_id)
    if image.exec_id == record.exec_id and not image.own:
        image.kind, image.comm, image.epoch = FORK, record.comm, record.epoch
        image.facts = fork_facts(state, record, creator_image or image)
        image.begin_ns, image.begin_wall_ns = record.time_ns, state.wall_ns(record.time_ns)
        image.lost = NEVER
    state.touch(image)
    if image.written:
        write_again(state, image, rows)


def relink(state: HostState, process: Process, image: Image, fork_exec_id: int) -> None:
    """Hang the process's chain from its creator's image instead of from a gap, as far as the process's own elements go back."""
    creator_image = process.creator_image
    inherited = creator_image.head if creator_image is not None else None
    state.relinks += 1
    oldest: Image | None = None
    element = image.head
    while element is not None and element.exec_id > fork_exec_id and element.tgid == process.tgid and element.process in (process, None):
        oldest, element = element, element.base
    if oldest is None and not image.own and image.exec_id == fork_exec_id:
        image.base = inherited
    elif oldest is not None and (oldest.exec_id == fork_exec_id + 1 or oldest.process is None):
        oldest.base = inherited
    elif oldest is not None and oldest.base is not None:
        gap_before = oldest.base
        oldest.base = gap(state, inherited, oldest.exec_id - 1, process.tgid, gap_before.lost, gap_before.before)


def exec_(state: HostState, record: Exec, position: int, rows: list[Row]) -> None:
    """A process replaced its image."""
    process = find(state, record.tgid, record.start_ns)
    if process is None:
        process = _exec_of_unknown(state, record, position, rows)
        image = process.image
        assert image is not None
    else:
        image = process.image
        assert image is not None
        if record.exec_id < image.exec_id or (record.exec_id == image.exec_id and image.kind in (EXEC, FORK)):
            return
        if record.exec_id > image.exec_id:
            image = _next_image(state, process, image, record, position, rows)
        else:
            _named_at_last(state, process, image, record, position)
    image.comm, image.epoch = record.comm, record.epoch
    image.facts = program_facts(state, record)
    image.sure_ns = state.now_ns
    state.touch(image)
    if image.version:
        write_again(state, image, rows)
    else:
        wait(state, image)


def _next_image(state: HostState, process: Process, previous: Image, record: Exec, position: int, rows: list[Row]) -> Image:
    """The next image; the one before ends, or is folded into it."""
    base = previous.head
    lost, before = NEVER, previous.before
    if record.exec_id > previous.exec_id + 1:
        lost, before = why_missing(state, previous.sure_ns, state.now_ns)
        base = gap(state, base, record.exec_id - 1, process.tgid, lost, before)
    if previous.kind == FORK and not previous.version and not previous.had_child:
        return _folded(state, previous, record, base, before, position)
    previous.end_lost = lost  # it may have ended any time before: its duration is the longest possible
    end_image(state, previous, END_EXEC, record.time_ns, rows)
    image = new_image(state, process, record.exec_id, EXEC, True, base, record.time_ns, position)
    image.before = before
    return image


def _folded(state: HostState, image: Image, record: Exec, base: Image | None, before: bool, position: int) -> Image:
    """A forked image that nothing refers to becomes the exec'd one: no row tells it apart."""
    image.exec_id, image.kind, image.own, image.base, image.before = record.exec_id, EXEC, True, base, before
    image.tgid, image.begin_ns, image.begin_wall_ns = record.tgid, record.time_ns, state.wall_ns(record.time_ns)
    image.ring_id, image.position = state.ring_id, position
    image.renamed, image.due_ns = b"", 0
    return image


def _named_at_last(state: HostState, process: Process, image: Image, record: Exec, position: int) -> None:
    """The record of an exec whose image a child or a snapshot had shown before it came."""
    if not image.own:
        image.own, image.tgid = True, process.tgid
        if image.base is not None and image.base.exec_id == image.exec_id:
            image.base = gap(state, image.base.base, image.exec_id - 1, 0, image.base.lost, image.base.before)
    image.kind, image.lost = EXEC, NEVER
    image.begin_ns, image.begin_wall_ns = record.time_ns, state.wall_ns(record.time_ns)
    image.ring_id, image.position = state.ring_id, position
    state.relinks += 1


def _exec_of_unknown(state: HostState, record: Exec, position: int, rows: list[Row]) -> Process:
    """The process whose exec this is was not known: its fork was lost, or it is older than the recorder."""
    make_way(state, record.tgid, record.start_ns, rows)
    process = new_process(state, record.tgid, record.start_ns)
    lost, before = why_missing(state, record.start_ns, record.start_ns)
    process.lost = lost
    process.origin = creator_not_recorded(record.real_parent_tgid)
    base = gap(state, None, record.exec_id - 1, 0, lost, before)
    image = new_image(state, process, record.exec_id, EXEC, True, base, record.time_ns, position)
    image.before = before
    return process


def exit_(state: HostState, record: Exit, position: int, rows: list[Row]) -> None:
    """The last thread of a process ended."""
    process = find(state, record.tgid, record.start_ns)
    if process is None:
        if (record.tgid, record.start_ns) in state.recent:
            return
        process = unknown_process(state, record.tgid, record.start_ns, record.exec_id, position, rows)
        assert process.image is not None
        process.image.comm, process.image.epoch = record.comm, record.epoch
        process.origin = creator_not_recorded(record.real_parent_tgid)
    image = process.image
    assert image is not None
    failed = 0
    if record.exec_id > image.exec_id:
        # An exec that fails past the point of no return ends in a signal (fs/exec.c, bprm_execve); else its record was lost.
        if record.status & 0x7F and record.exec_id == image.exec_id + 1 and state.hull(image.sure_ns, state.now_ns) == NEVER:
            failed = 1
        else:
            image = lost_exec(state, process, record.exec_id, record.time_ns, position, rows)
            image.comm = record.comm
    image.end_parent_tgid = record.real_parent_tgid
    if record.flags:
        image.facts = with_flags(image.facts, record.flags)
    status = record.status
    signal = status & 0x7F
    facts = (
        (status >> 8) & 0xFF if not signal else 0,
        signal,
        status >> 7 & 1,
        failed,
        record.utime_ns,
        record.stime_ns,
        record.max_rss_kib,
    )
    end_process(state, process, END_EXIT, record.time_ns, rows, facts)


def rename(state: HostState, record: Rename, _position: int, _rows: list[Row]) -> None:
    """The main thread took another comm. A burst of renames becomes one row."""
    probing = record.comm.startswith(events.PROBE_COMM) or record.old_comm.startswith(events.PROBE_COMM)
    if probing and (record.tgid, record.start_ns) == state.reader:
        return
    process = find(state, record.tgid, record.start_ns)
    if process is None or process.image is None or process.image.exec_id != record.exec_id:
        return
    process.image.renamed = record.comm
    process.image.sure_ns = state.now_ns
    state.touch(process.image)
    wait(state, process.image)


RULES: dict[type, Callable[[HostState, Any, int, list[Row]], None]] = {Fork: fork, Exec: exec_, Exit: exit_, Rename: rename}
"""What is done with a record of each class that tells of a process: state, record, its position in the ring, rows that follow."""
