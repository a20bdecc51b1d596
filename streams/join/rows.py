"""Rows out of images: what is written of one, and when.

An image is written when it is FOLD_NS old and again when it ends; one that ends sooner is written once. A forked image that
execs sooner is not written at all: the exec's row tells the fork.
"""

from typing import Final

from schemas.identity import NIL
from schemas.limits import ANCESTORS_MAX, CHAIN_ELEMENTS_MAX, FOLD_NS, REFRESH_NS
from schemas.rows import EndKind, ImageKind, ImageRow, LossCause, LossRow, Row
from streams.join.model import NEVER, NO_CHAIN, Ancestry, Chain, HostState, Image, Process, join_intervals

SECOND_NS = 1_000_000_000

# Plain numbers where an image passes: looking up a member of an enumeration takes as long as calling a function.
UNKNOWN = int(ImageKind.UNKNOWN)
LIVING, SUPERSEDED, GONE = int(EndKind.LIVING), int(EndKind.SUPERSEDED), int(EndKind.GONE)

BEGIN: Final = 0
REFRESH: Final = 1
END: Final = 2
"""Which of two rows of one moment is the newer: those of an image's begin, of a refresh, of its end."""


def chain_of(head: Image | None, stamp: int) -> Chain:
    """The chain that ends with this element, as columns; kept with the element until a link is mended."""
    if head is None:
        return NO_CHAIN
    chain = head.chain
    if chain is not None and chain.stamp == stamp:
        return chain
    # Each element keeps its chain, so what hangs from it takes one step.
    todo = [head]
    base = head.base
    while base is not None and (base.chain is None or base.chain.stamp != stamp):
        todo.append(base)
        base = base.base
    chain = NO_CHAIN if base is None or base.chain is None else base.chain
    for element in reversed(todo):
        element.chain = chain = _longer(chain, element, stamp)
    return chain


def _longer(chain: Chain, head: Image, stamp: int) -> Chain:
    """The chain with one more element; the oldest goes where there are too many."""
    kinds, tgids, exec_ids, starts, comms, exes = chain.columns
    full = len(kinds) >= CHAIN_ELEMENTS_MAX
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
        stamp,
    )


def ancestry_of(process: Process, stamp: int) -> Ancestry:
    """The creators of a process; kept with it until a link is mended."""
    ancestry = process.ancestry
    if ancestry is not None and ancestry.stamp == stamp:
        return ancestry
    todo = [process]
    creator = process.creator
    while creator is not None and (creator.ancestry is None or creator.ancestry.stamp != stamp):
        todo.append(creator)
        creator = creator.creator
    for each in reversed(todo):
        each.ancestry = ancestry = _after(each, stamp)
    assert ancestry is not None
    return ancestry


def _after(process: Process, stamp: int) -> Ancestry:
    """The creators of a process whose creator, if it has one, has its own."""
    creator, lost = process.creator, process.lost
    if process.root:
        return Ancestry((), False, process.by_parent, lost, stamp)
    if creator is None or creator.ancestry is None:
        return Ancestry((NIL,), False, process.by_parent or lost == NEVER, lost, stamp)
    plain = not lost and not process.by_parent
    if plain and creator.below is not None and creator.below.stamp == stamp:
        return creator.below
    near = creator.ancestry
    ids = (creator.task_id,) + near.ids
    ancestry = Ancestry(
        ids[:ANCESTORS_MAX],
        near.cut or len(ids) > ANCESTORS_MAX,
        near.before or process.by_parent,
        join_intervals(near.lost, lost) if lost else near.lost,
        stamp,
    )
    if plain:
        creator.below = ancestry
    return ancestry


def image_row(state: HostState, image: Image, stage: int, version_ns: int, seen_wall_ns: int) -> ImageRow:
    """The row of an image as it is known now, newer than the one before even if both were made in one moment."""
    process = image.process
    assert process is not None
    version = version_ns * 4 + stage
    if version <= image.version:
        version = image.version + 1
    image.version = version
    if version > state.newest_version:
        state.newest_version = version
    chain = chain_of(image if image.own else image.base, state.relinks)
    ancestry = ancestry_of(process, state.relinks)
    lost = chain.lost
    if ancestry.lost or image.lost or image.end_lost:
        lost = join_intervals(join_intervals(lost, ancestry.lost), join_intervals(image.lost, image.end_lost))
    end = image.end
    begin = (
        state.host_id, state.host, state.boot_id, process.task_id, process.tgid, process.start_ns,
        image.exec_id, image.kind, process.start_wall_ns, image.begin_wall_ns, image.begin_ns,
    )  # fmt: skip
    rest = (
        1 if chain.whole and not chain.cut and len(chain.columns[0]) == image.exec_id else 0,
        1 if chain.before or ancestry.before or image.before else 0,
        1 if chain.cut else 0,
        1 if lost or end[1] == SUPERSEDED or end[1] == GONE else 0,
        1 if ancestry.cut else 0,
        state.wall_ns(lost[0]) if lost else 0,
        state.wall_ns(lost[1]) if lost else 0,
        image.ring_id, image.position, image.epoch, seen_wall_ns // SECOND_NS, version,
    )  # fmt: skip
    # Tuples are joined, the short ones first, rather than unpacked into one another, which takes twice as long.
    links = process.origin + ((image.end_parent_tgid, ancestry.ids) + (chain.columns + rest))
    return _as_row(begin + (end + (image.comm, image.renamed)) + (image.facts + links))


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
    if not image.due_ns:
        image.due_ns = due_ns = state.now_ns + FOLD_NS
        state.waiting.append((due_ns, image))


def write_due(state: HostState, now_ns: int, rows: list[Row]) -> None:
    """Write the images whose time has come. Those that ended meanwhile have been written at their end."""
    waiting = state.waiting
    while waiting and waiting[0][0] <= now_ns:
        due_ns, image = waiting.popleft()
        if image.due_ns != due_ns:
            continue  # it was folded into an exec'd image, which has its own place
        image.due_ns = 0
        process = image.process
        if process is not None and process.image is image and image.end[1] == LIVING:
            rows.append(image_row(state, image, BEGIN, image.touched_ns, image.touched_wall_ns))


def write_again(state: HostState, image: Image, rows: list[Row]) -> None:
    """Write an image again whose facts have changed after it was written."""
    stage = BEGIN if image.end[1] == LIVING else END
    rows.append(image_row(state, image, stage, image.touched_ns, image.touched_wall_ns))


def refresh(state: HostState, now_ns: int, rows: list[Row]) -> None:
    """Once in REFRESH_NS write all living images, and all that their chains and ancestors consist of, so that none of them expires."""
    if now_ns >= state.refresh_ns:
        boundary_ns = now_ns // REFRESH_NS * REFRESH_NS
        state.refresh_ns = boundary_ns + REFRESH_NS
        write_all(state, boundary_ns, rows)


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
                rows.append(image_row(state, each, REFRESH, boundary_ns, state.wall_ns(boundary_ns)))
