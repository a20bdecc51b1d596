"""Rows out of images: what is written of one, and when.

An image is written when it is FOLD_NS old and again when it ends; one that ends sooner is written once. A forked image that
execs sooner is not written at all: the exec's row tells the fork.
"""

from enum import IntEnum
from uuid import UUID

from schemas import limits
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause, LossRow, Row
from streams.join.model import NEVER, NO_CHAIN, Ancestry, Chain, HostState, Image, Process, join_intervals

SECOND_NS = 1_000_000_000
UNKNOWN = int(ImageKind.UNKNOWN)
LIVING, SUPERSEDED, GONE = int(EndKind.LIVING), int(EndKind.SUPERSEDED), int(EndKind.GONE)


class Stage(IntEnum):
    """Which of two rows of one moment is the newer."""

    BEGIN = 0
    REFRESH = 1
    END = 2


def chain_of(head: Image | None, stamp: int) -> Chain:
    """The chain that ends with this element, as columns; kept with the element until a link is mended."""
    if head is None:
        return NO_CHAIN
    if head.chain is not None and head.chain_stamp == stamp:
        return head.chain
    # Each element keeps its chain, so what hangs from it takes one step.
    todo = [head]
    base = head.base
    while base is not None and (base.chain is None or base.chain_stamp != stamp):
        todo.append(base)
        base = base.base
    chain = NO_CHAIN if base is None or base.chain is None else base.chain
    for element in reversed(todo):
        chain = _longer(chain, element)
        element.chain, element.chain_stamp = chain, stamp
    return chain


def _longer(chain: Chain, head: Image) -> Chain:
    """The chain with one more element; the oldest goes where there are too many."""
    kinds, tgids, exec_ids, starts, comms, exes = chain.columns
    full = len(kinds) >= limits.CHAIN_ELEMENTS_MAX
    if full:
        kinds, tgids, exec_ids = kinds[1:], tgids[1:], exec_ids[1:]
        starts, comms, exes = starts[1:], comms[1:], exes[1:]
    known = head.kind != UNKNOWN
    return Chain(
        (
            kinds + (head.kind,),
            tgids + (head.tgid,),
            exec_ids + (head.exec_id,),
            starts + (head.begin_wall_ns if known else 0,),
            comms + (head.comm if known else b"",),
            exes + (head.facts[0] if known and head.facts else b"",),  # type: ignore[operator]
        ),
        chain.whole and known,
        chain.cut or full,
        chain.before or head.before,
        join_intervals(chain.lost, head.lost) if head.lost else chain.lost,
    )


def ancestry_of(process: Process, stamp: int) -> Ancestry:
    """The creators of a process; kept with it until a link is mended."""
    if process.ancestry is not None and process.ancestry_stamp == stamp:
        return process.ancestry
    creator = process.creator
    if creator is not None and not process.root and creator.ancestry is not None and creator.ancestry_stamp == stamp:
        near = creator.ancestry
        ids = (creator.task_id,) + near.ids
        cut = near.cut or len(ids) > limits.ANCESTORS_MAX
        lost = join_intervals(near.lost, process.lost) if process.lost else near.lost
        ancestry = Ancestry(ids[: limits.ANCESTORS_MAX], cut, near.before or process.by_parent, lost)
    else:
        ancestry = _walked_ancestry(process)
    process.ancestry, process.ancestry_stamp = ancestry, stamp
    return ancestry


def _walked_ancestry(process: Process) -> Ancestry:
    """The creators from link to link: the nearest by name, all of them for what is said of the way as a whole."""
    ids: list[UUID] = []
    before, lost = False, NEVER
    each = process
    while True:
        before = before or each.by_parent
        lost = join_intervals(lost, each.lost)
        if each.root:
            break
        if each.creator is None:
            before = before or each.lost == NEVER
            ids.append(NIL)
            break
        each = each.creator
        ids.append(each.task_id)
    return Ancestry(tuple(ids[: limits.ANCESTORS_MAX]), len(ids) > limits.ANCESTORS_MAX, before, lost)


def image_row(state: HostState, image: Image, stage: Stage, version_ns: int, seen_wall_ns: int) -> ImageRow:
    """The row of an image as it is known now, newer than the one before even if both were made in one moment."""
    process = image.process
    assert process is not None
    stamp = state.relinks
    image.version = version = max(version_ns * 4 + stage, image.version + 1)
    if version > state.newest_version:
        state.newest_version = version
    chain = chain_of((image.own and image) or image.base, stamp)
    ancestry = ancestry_of(process, stamp)
    lost = chain.lost
    if ancestry.lost or image.lost or image.end_lost:
        lost = join_intervals(join_intervals(lost, ancestry.lost), join_intervals(image.lost, image.end_lost))
    creator = process.creator
    end = image.end
    # Tuples are joined rather than unpacked into one another: this runs for every image, and it is twice as fast.
    return _as_row(
        (
            state.host_id, state.host, state.boot_id, process.task_id, process.tgid, process.start_ns,
            image.exec_id, image.kind, process.start_wall_ns, image.begin_wall_ns, image.begin_ns,
        )
        + end
        + (image.comm, image.renamed)
        + image.facts
        + (
            NIL if creator is None else creator.task_id, process.creator_tgid, process.creator_exec_id, process.creator_tid,
            process.clone_flags, process.parent_id, process.parent_tgid, image.end_parent_tgid, ancestry.ids,
        )
        + chain.columns
        + (
            1 if chain.whole and not chain.cut and len(chain.columns[0]) == image.exec_id else 0,
            1 if chain.before or ancestry.before or image.before else 0,
            1 if chain.cut else 0,
            1 if lost or end[1] == SUPERSEDED or end[1] == GONE else 0,
            1 if ancestry.cut else 0,
            state.wall_ns(lost[0]) if lost else 0,
            state.wall_ns(lost[1]) if lost else 0,
            image.ring_id, image.position, image.epoch, seen_wall_ns // SECOND_NS, version,
        )
    )  # fmt: skip


def _as_row(values: tuple[object, ...]) -> ImageRow:
    return tuple.__new__(ImageRow, values)


def loss_row(state: HostState, position: int, cause: LossCause, interval: tuple[int, int], amount: int, detail: str) -> LossRow:
    """The row of something missing. Time 0 of the boot stands for its begin."""
    begin_ns, end_ns = interval
    end_wall_ns = state.wall_ns(end_ns)
    return LossRow(
        state.host_id,
        state.host,
        state.boot_id,
        state.ring_id,
        position,
        cause,
        state.wall_ns(begin_ns),
        end_wall_ns,
        begin_ns,
        end_ns,
        amount,
        detail.encode(),
        end_wall_ns // SECOND_NS,
        end_ns * 4,
    )


def wait(state: HostState, image: Image) -> None:
    """Have the image written FOLD_NS from now, unless it ends or is folded before."""
    if not image.waiting:
        image.waiting = True
        state.waiting.append((state.now_ns + limits.FOLD_NS, image))


def write_due(state: HostState, now_ns: int, rows: list[Row]) -> None:
    """Write the images whose time has come. Those that ended meanwhile have been written at their end."""
    waiting = state.waiting
    while waiting and waiting[0][0] <= now_ns:
        image = waiting.popleft()[1]
        image.waiting = False
        process = image.process
        if process is not None and process.image is image and image.end[1] == EndKind.LIVING:
            rows.append(image_row(state, image, Stage.BEGIN, image.touched_ns, image.touched_wall_ns))


def write_end(state: HostState, image: Image, rows: list[Row]) -> None:
    """Write an image that has ended."""
    rows.append(image_row(state, image, Stage.END, image.touched_ns, state.wall_ns(image.end_ns)))


def write_again(state: HostState, image: Image, rows: list[Row]) -> None:
    """Write an image again whose facts have changed after it was written."""
    stage = Stage.BEGIN if image.end[1] == EndKind.LIVING else Stage.END
    rows.append(image_row(state, image, stage, image.touched_ns, image.touched_wall_ns))


def refresh(state: HostState, now_ns: int, rows: list[Row]) -> None:
    """Once in REFRESH_NS write all living images, and all that their chains and ancestors consist of, so that none of them expires."""
    day = now_ns // limits.REFRESH_NS
    if day <= state.refresh_day:
        return
    state.refresh_day = day
    write_all(state, day * limits.REFRESH_NS, rows)


def write_all(state: HostState, boundary_ns: int, rows: list[Row]) -> None:
    """Write all living images, and all that their chains and ancestors consist of, again."""
    done: set[Image] = set()
    for process in state.living.values():
        _refresh_from(state, process.image, boundary_ns, done, rows)


def _refresh_from(state: HostState, image: Image | None, boundary_ns: int, done: set[Image], rows: list[Row]) -> None:
    """Write the image and all that it reaches, each once."""
    todo = [image]
    while todo:
        each = todo.pop()
        if each is None or each in done:
            continue
        done.add(each)
        todo.append(each.base)
        if each.process is not None:
            todo.append(each.process.creator_image)
            if each.written:
                rows.append(image_row(state, each, Stage.REFRESH, boundary_ns, state.wall_ns(boundary_ns)))
