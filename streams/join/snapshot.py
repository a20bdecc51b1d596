"""A snapshot of the living processes, held against what is known.

It is taken between two marks in the ring and applied at the second, so that it falls into place in the order of all else. While
it is taken processes go on: what began or ended between the marks is known better from its own records.
"""

from schemas.batch import frames
from schemas.errors import DecodeError
from schemas.events import Flag, Seen, User, decode_record
from schemas.rows import EndKind, ImageKind, LossCause, Row
from streams.join.facts import check_creator, program_facts
from streams.join.losses import lose
from streams.join.model import NEVER, HostState, Image, Process
from streams.join.rows import wait, write_again
from streams.join.transitions import (
    end_image,
    end_process,
    find,
    gap,
    image_at,
    make_way,
    new_image,
    new_process,
    parent_id,
    relink,
    why_missing,
)

ABSENT_MAX = 2
"""Snapshots in a row that must miss a process before it counts as gone: one could miss it while a thread of it execs."""


def begin(state: HostState, snapshot_id: int) -> None:
    """From here on what ends is remembered until the snapshot has been applied."""
    state.open_snapshot = snapshot_id
    state.snapshot_ns = state.now_ns
    state.ended_meanwhile.clear()


def end(state: HostState, snapshot_id: int, position: int, rows: list[Row]) -> None:
    """Apply the snapshot of that id, if all of it has arrived."""
    arrived, parts, body = state.snapshots.pop(snapshot_id, (0, 1, b""))
    for older in [one for one in state.snapshots if one < snapshot_id]:
        del state.snapshots[older]
    if arrived == parts and state.open_snapshot == snapshot_id:
        _apply(state, body, snapshot_id, position, rows)
        state.last_snapshot = snapshot_id
    state.open_snapshot = 0
    state.ended_meanwhile.clear()


def _apply(state: HostState, body: bytes, snapshot_id: int, position: int, rows: list[Row]) -> None:
    seen, complete = _read(state, body, position, rows)
    relinks = state.relinks
    present: set[tuple[int, int]] = set()
    for record in seen:
        if record.flags & Flag.ENDED:
            continue
        present.add((record.tgid, record.start_ns))
        process = find(state, record.tgid, record.start_ns)
        if process is not None:
            process.absent = 0
            _verify(state, process, record, position, rows)
        elif (image := state.ended_meanwhile.get((record.tgid, record.start_ns))) is not None:
            _describe_ended(state, image, record, rows)
        elif (record.tgid, record.start_ns) in state.recent:
            continue
        elif (other := state.living.get(record.tgid)) is None or other.start_ns < record.start_ns:
            _add(state, record, position, rows)
    if complete:
        _close_absent(state, present, snapshot_id, rows)
    if state.relinks != relinks:
        _write_relinked(state, rows)


def _read(state: HostState, body: bytes, position: int, rows: list[Row]) -> tuple[list[Seen], bool]:
    """The snapshot's processes, oldest first, so that a creator comes before what it created; and whether all could be read."""
    seen: list[Seen] = []
    bad = 0
    try:
        for at, size in frames(body):
            try:
                record = decode_record(body, at, size)
                if isinstance(record, Seen):
                    check_creator(record)
            except DecodeError:
                bad += 1
                continue
            if isinstance(record, Seen):
                seen.append(record)
            elif isinstance(record, User):
                state.users[record.uid] = record.name
    except DecodeError:
        bad += 1
    if bad:
        detail = f"{bad} records of a snapshot could not be read"
        lose(state, position, LossCause.UNDECODABLE, (state.open_snapshot, state.now_ns), bad, detail, rows)
    seen.sort(key=lambda record: (record.start_ns, record.tgid))
    return seen, not bad


def _add(state: HostState, record: Seen, position: int, rows: list[Row]) -> None:
    """A living process that was not known."""
    make_way(state, record.tgid, record.start_ns, rows)
    process = new_process(state, record.tgid, record.start_ns)
    process.shown = True
    fork_exec_id = _link(state, process, record, position, rows)
    lost, before = why_missing(state, record.start_ns, record.start_ns)
    own = record.exec_id > fork_exec_id
    inherited = process.creator_image.head if process.creator_image is not None else None
    if inherited is None or inherited.exec_id != fork_exec_id:
        inherited = gap(state, None, fork_exec_id, 0, lost, before)
    base = gap(state, inherited, record.exec_id - 1, process.tgid, lost, before) if own else inherited
    image = new_image(state, process, record.exec_id, ImageKind.SEEN, own, base, record.start_ns, position)
    image.lost, image.before = lost, before or process.by_parent
    _describe(state, image, record)
    wait(state, image)


def _link(state: HostState, process: Process, record: Seen, position: int, rows: list[Row]) -> int:
    """Give the process its creator, as far as it is known; returns the exec_id that it inherited."""
    parent = (parent_id(state, record.real_parent_tgid, record.real_parent_start_ns), record.real_parent_tgid)
    process.origin = (*process.origin[:5], *parent)
    if record.flags & Flag.CREATOR_KNOWN:
        creator = _creator(state, record, position, rows)
        process.creator, process.by_parent, process.lost = creator, False, NEVER
        process.origin = (creator.task_id, creator.tgid, record.creator_exec_id, 0, 0, *parent)
        process.creator_image = image_at(state, creator, record.creator_exec_id, record.start_ns, position, rows)
        process.creator_image.had_child = True
        return record.creator_exec_id
    if not record.real_parent_tgid:
        process.root = True
        return 0
    creator_by_parent = find(state, record.real_parent_tgid, record.real_parent_start_ns)
    image = _known_image(creator_by_parent, record.parent_exec_id)
    # Whatever a record says, no process descends from itself.
    older = (record.real_parent_start_ns, record.real_parent_tgid) < (record.start_ns, record.tgid)
    if creator_by_parent is not None and image is not None and older:
        process.creator, process.by_parent, process.lost = creator_by_parent, True, NEVER
        process.origin = (creator_by_parent.task_id, creator_by_parent.tgid, record.parent_exec_id, 0, 0, *parent)
        process.creator_image = image
        image.had_child = True
    else:
        process.lost = why_missing(state, record.start_ns, record.start_ns)[0]
    return min(record.parent_exec_id, record.exec_id)


def _creator(state: HostState, record: Seen, position: int, rows: list[Row]) -> Process:
    """The creator that the kernel-side map names. One that has ended and is forgotten is named, but nothing is said of it."""
    creator = find(state, record.creator_tgid, record.creator_start_ns)
    if creator is not None:
        return creator
    living = state.living.get(record.creator_tgid)
    creator = new_process(state, record.creator_tgid, record.creator_start_ns)
    if living is not None:
        state.living[record.creator_tgid] = living
    else:
        del state.living[record.creator_tgid]
    lost, before = why_missing(state, record.creator_start_ns, record.creator_start_ns)
    creator.lost = lost
    base = gap(state, None, record.creator_exec_id, 0, lost, before)
    image = new_image(state, creator, record.creator_exec_id, ImageKind.UNKNOWN, False, base, record.creator_start_ns, position)
    image.lost, image.before = lost, before
    return creator


def _known_image(process: Process | None, exec_id: int) -> Image | None:
    """The image that the process had with that exec_id, if it is known."""
    element = process.image if process is not None else None
    if element is not None and element.exec_id == exec_id:
        return element
    element = element.head if element is not None else None
    while element is not None and element.exec_id > exec_id:
        element = element.base
    return element if element is not None and element.exec_id == exec_id and element.process is process else None


def _describe(state: HostState, image: Image, record: Seen) -> None:
    image.comm, image.epoch = record.comm, record.epoch
    image.facts = program_facts(state, record)
    image.sure_ns = state.snapshot_ns
    state.touch(image)


def _describe_ended(state: HostState, image: Image, record: Seen, rows: list[Row]) -> None:
    """It ended while the snapshot was taken; if nothing else told what it was, the snapshot does."""
    if image.kind == ImageKind.UNKNOWN and image.exec_id == record.exec_id and image.process is not None:
        image.kind = ImageKind.SEEN
        state.relinks += 1
        if image.process.creator is None and not image.process.root:
            _hang(state, image.process, image, record, image.position, rows)
        _describe(state, image, record)
        write_again(state, image, rows)


def _verify(state: HostState, process: Process, record: Seen, position: int, rows: list[Row]) -> None:
    """A process that is known: its exec_id proves whether execs were lost, and what was not known is filled in."""
    image = process.image
    assert image is not None
    shown, process.shown = process.shown, True
    if record.exec_id < image.exec_id:
        return
    if record.exec_id == image.exec_id:
        image.sure_ns = max(image.sure_ns, state.snapshot_ns)
    changed = False
    if record.exec_id > image.exec_id:
        image = _unseen_exec(state, process, image, record, position, rows)
        changed = True
    elif image.kind == ImageKind.UNKNOWN:
        image.kind = ImageKind.SEEN
        state.relinks += 1
        changed = True
    if not process.creator_recorded and (not shown or record.flags & Flag.CREATOR_KNOWN):
        linked = process.creator
        _hang(state, process, image, record, position, rows)
        changed = changed or process.creator is not linked or process.root
    if changed:
        if image.kind == ImageKind.SEEN:
            _describe(state, image, record)
        state.touch(image)
        if image.written:
            write_again(state, image, rows)
        else:
            wait(state, image)


def _hang(state: HostState, process: Process, image: Image, record: Seen, position: int, rows: list[Row]) -> None:
    """Link a known process whose creator was not known, and hang its chain from there."""
    hidden_by = process.lost
    fork_exec_id = _link(state, process, record, position, rows)
    if process.creator is None and not process.root:
        process.lost = hidden_by
        return
    if image.kind == ImageKind.SEEN and not image.own and record.exec_id > fork_exec_id:
        image.own, image.tgid = True, process.tgid
        image.base = gap(state, None, image.exec_id - 1, process.tgid, image.lost, image.before)
    relink(state, process, image, fork_exec_id)
    image.before = image.before or process.by_parent


def _unseen_exec(state: HostState, process: Process, previous: Image, record: Seen, position: int, rows: list[Row]) -> Image:
    """The process runs a later image than the one known; its exec was lost, or its record comes after the snapshot."""
    lost, before = why_missing(state, previous.sure_ns, state.now_ns)
    previous.end_lost = lost
    end_image(state, previous, EndKind.EXEC, state.now_ns, rows)
    base = gap(state, previous.head, record.exec_id - 1, process.tgid, lost, before)
    image = new_image(state, process, record.exec_id, ImageKind.SEEN, True, base, state.now_ns, position)
    image.lost, image.before = lost, before or previous.before
    return image


def _close_absent(state: HostState, present: set[tuple[int, int]], snapshot_id: int, rows: list[Row]) -> None:
    """What lived before the snapshot and is not in it has ended without a record of it."""
    for process in list(state.living.values()):
        if (process.tgid, process.start_ns) not in present and process.born_snapshot != snapshot_id:
            process.absent += 1
            if process.absent >= ABSENT_MAX:
                end_process(state, process, EndKind.GONE, state.now_ns, rows)


def _write_relinked(state: HostState, rows: list[Row]) -> None:
    """Links were mended: chains that hang from them read differently now, so the living are written again."""
    for process in state.living.values():
        image = process.image
        if image is not None and image.written and image.touched_ns < state.now_ns:
            state.touch(image)
            write_again(state, image, rows)
