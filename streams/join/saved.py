"""The state of the join as bytes, and back: what was saved after a batch goes on anywhere with the same result.

JSON, because a person can read it in an incident and no value in it can run code. Bytes stand as text of the same code points
(Latin-1), references between processes and images as numbers into their lists. The last value is the CRC-32 of all before it.
"""

import json
import struct
import zlib
from typing import Any, cast
from uuid import UUID

from schemas.errors import DecodeError
from schemas.identity import NIL
from schemas.limits import REFRESH_NS
from streams.join.model import End, Facts, HostState, Image, Interval, Origin, Process
from streams.join.shape import FACTS, FACTS_AT, SAVED, check_links, fits

VERSION = 2
CHECKSUM = "crc32"
"""The last key of all."""

_PLAIN = (
    "ring_id",
    "position",
    "events",
    "event_ns",
    "now_ns",
    "offset_ns",
    "recording_since_ns",
    "last_snapshot",
    "open_snapshot",
    "snapshot_ns",
    "newest_version",
    "relinks",
)


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def _plain(value: object) -> object:
    """The value with text for bytes and lists for tuples."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value


def _exact(value: object) -> object:
    """The value with bytes for text and tuples for lists."""
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, list):
        return tuple(_exact(one) for one in value)
    return value


def _still_due(state: HostState) -> list[tuple[int, Image]]:
    """What waits and will be written. Those that ended or were folded meanwhile only hold a place; in a storm they are nearly all."""
    return [(due_ns, image) for due_ns, image in state.waiting if image.due_ns == due_ns and image.process and image.process.image is image]


def _reachable(state: HostState, waiting: list[tuple[int, Image]]) -> tuple[dict[Process, int], dict[Image, int]]:
    """Number of each process and image that the state holds, directly or through others."""
    processes: dict[Process, int] = {}
    images: dict[Image, int] = {}
    todo: list[Process | Image | None] = [*state.living.values(), *(image for _, image in waiting), *state.ended_meanwhile.values()]
    todo.reverse()
    while todo:
        each = todo.pop()
        if isinstance(each, Process) and each not in processes:
            processes[each] = len(processes)
            todo += (each.creator, each.creator_image, each.image)
        elif isinstance(each, Image) and each not in images:
            images[each] = len(images)
            todo += (each.process, each.base)
    return processes, images


def dump(state: HostState) -> bytes:
    """The state as bytes."""
    waiting = _still_due(state)
    processes, images = _reachable(state, waiting)
    saved: dict[str, object] = {
        "version": VERSION,
        "host_id": str(state.host_id),
        "boot_id": str(state.boot_id),
        "host": _text(state.host),
        "past_boots": [str(boot) for boot in state.past_boots],
        **{name: getattr(state, name) for name in _PLAIN},
        "refresh_day": state.refresh_ns // REFRESH_NS - 1,
        "counters": state.counters,
        "losses": state.losses,
        "links_lost": state.links_lost,
        "unread": state.unread,
        "reader": state.reader,
        "recent": list(state.recent),
        "snapshots": [[number, arrived, parts, _text(body)] for number, (arrived, parts, body) in state.snapshots.items()],
        "users": [[uid, _text(name)] for uid, name in state.users.items()],
        "living": [processes[process] for process in state.living.values()],
        "waiting": [[due_ns, images[image]] for due_ns, image in waiting],
        "ended_meanwhile": [[*key, images[image]] for key, image in state.ended_meanwhile.items()],
        "processes": [_process_values(process, processes, images) for process in processes],
        "images": [_image_values(image, processes, images) for image in images],
    }
    return signed(json.dumps(saved, separators=(",", ":")).encode("ascii"))


def signed(saved: bytes) -> bytes:
    """A JSON object with its checksum as one more value."""
    return b'%b,"%b":%d}' % (saved[:-1], CHECKSUM.encode(), zlib.crc32(saved[:-1]))


def _process_values(process: Process, processes: dict[Process, int], images: dict[Image, int]) -> list[object]:
    parent_id = process.origin[5]
    return [
        process.tgid, process.start_ns, process.start_wall_ns, process.root, *process.origin[1:5], process.origin[6],
        process.by_parent, process.shown, process.absent, process.born_snapshot, "" if parent_id == NIL else parent_id.hex, process.lost,
        processes[process.creator] if process.creator else -1,
        images[process.creator_image] if process.creator_image else -1,
        images[process.image] if process.image else -1,
    ]  # fmt: skip


def _process(state: HostState, values: list[Any]) -> Process:
    """The process without its links. Its creator's name follows from the link."""
    tgid, start_ns, start_wall_ns, root, *origin, parent_tgid, by_parent, shown, absent, born_snapshot, parent_id, lost = values[:15]
    return Process(
        tgid, start_ns, state.task_id(tgid, start_ns), start_wall_ns, root,
        origin=cast(Origin, (NIL, *origin, UUID(parent_id) if parent_id else NIL, parent_tgid)),
        by_parent=by_parent, shown=shown, absent=absent, born_snapshot=born_snapshot, lost=cast(Interval, tuple(lost)),
    )  # fmt: skip


_NOT_USED, _NO_FLAG = 0, False
"""Where an earlier program saved something that nothing needs."""


def _image_values(image: Image, processes: dict[Process, int], images: dict[Image, int]) -> list[object]:
    return [
        image.exec_id, image.kind, image.own, image.tgid, image.begin_ns, image.begin_wall_ns, image.ring_id, image.position, image.epoch,
        _NOT_USED, image.touched_ns, image.touched_wall_ns, image.sure_ns, image.had_child, image.version, _NO_FLAG, image.before,
        _NOT_USED, image.end_parent_tgid, _text(image.comm), _text(image.renamed), _plain(image.facts), image.lost, image.end_lost,
        image.end, processes[image.process] if image.process else -1, images[image.base] if image.base else -1,
    ]  # fmt: skip


def _image(values: list[Any]) -> Image:
    """The image without its links."""
    exec_id, kind, own, tgid, begin_ns, begin_wall_ns, ring_id, position, epoch, _ = values[:10]
    touched_ns, touched_wall_ns, sure_ns, had_child, version, _, before, _, end_parent_tgid = values[10:19]
    comm, renamed, facts, lost, end_lost, end = values[19:25]
    return Image(
        None, exec_id, kind, own, None, tgid, begin_ns, begin_wall_ns, comm.encode("latin-1"), renamed.encode("latin-1"),
        cast(Facts, _exact(facts)), ring_id, position, epoch, touched_ns, touched_wall_ns, sure_ns, had_child, version,
        lost=cast(Interval, tuple(lost)), before=before, end=cast(End, tuple(end)), end_lost=cast(Interval, tuple(end_lost)),
        end_parent_tgid=end_parent_tgid,
    )  # fmt: skip


def load(data: bytes) -> HostState:
    """The state out of bytes that dump made. Raises DecodeError for any others."""
    try:
        saved = json.loads(data)
        if saved["version"] != VERSION:
            cure = "update Tasktrail here" if saved["version"] > VERSION else "remove it; a gap will be recorded"
            raise DecodeError(f"saved state of version {saved['version']}: this program reads version {VERSION}", cure)
        # Earlier programs saved no checksum.
        if CHECKSUM in saved and zlib.crc32(data[: data.rindex(f',"{CHECKSUM}"'.encode())]) != saved[CHECKSUM]:
            raise ValueError("its checksum does not fit")
        return _loaded(saved)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError, struct.error) as broken:
        raise DecodeError(
            f"saved state cannot be read ({type(broken).__name__}: {broken})", "remove it; a gap will be recorded"
        ) from broken


def _check_shape(saved: dict[str, Any]) -> None:
    """Raises ValueError where a value is not what dump makes."""
    for name, shape in SAVED.items():
        if not fits(saved[name], shape):
            raise ValueError(f"{name} is not what was saved")
    for name in _PLAIN:
        if type(saved[name]) is not int and name != "offset_ns":
            raise ValueError(f"{name} is no number")
    for values in saved["images"]:
        if values[FACTS_AT] and not fits(values[FACTS_AT], FACTS):
            raise ValueError("facts of an image are not what was saved")
    if not all(type(count) is int for count in saved["counters"].values()):
        raise ValueError("a counter is no number")
    numbers = saved["living"], (one for _, one in saved["waiting"]), (one for *_, one in saved["ended_meanwhile"])
    if any(number < 0 for some in numbers for number in some):
        raise ValueError("a link leads nowhere")


def _loaded(saved: dict[str, Any]) -> HostState:
    _check_shape(saved)
    state = HostState(
        host_id=UUID(saved["host_id"]),
        host=saved["host"].encode("latin-1"),
        boot_id=UUID(saved["boot_id"]),
        past_boots=[UUID(boot) for boot in saved["past_boots"]],
        counters=dict(saved["counters"]),
        losses=[cast(Interval, tuple(loss)) for loss in saved["losses"]],
        links_lost=tuple(saved["links_lost"]) if saved["links_lost"] else None,
        unread=tuple(saved["unread"]) if saved["unread"] else None,
        reader=tuple(saved["reader"]),
        snapshots={number: (arrived, parts, body.encode("latin-1")) for number, arrived, parts, body in saved["snapshots"]},
        users={uid: name.encode("latin-1") for uid, name in saved["users"]},
        **{name: saved[name] for name in _PLAIN},
    )
    state.refresh_ns = (saved["refresh_day"] + 1) * REFRESH_NS
    state.recent.extend((tgid, start_ns) for tgid, start_ns in saved["recent"])
    processes = [_process(state, values) for values in saved["processes"]]
    images = [_image(values) for values in saved["images"]]
    for process, values in zip(processes, saved["processes"], strict=True):
        creator, creator_image, image = values[-3:]
        if creator >= 0:
            process.creator = processes[creator]
            process.origin = (process.creator.task_id, *process.origin[1:])
        process.creator_image = images[creator_image] if creator_image >= 0 else None
        process.image = images[image] if image >= 0 else None
    for one, values in zip(images, saved["images"], strict=True):
        process_number, base = values[-2:]
        one.process = processes[process_number] if process_number >= 0 else None
        one.base = images[base] if base >= 0 else None
    state.living = {processes[number].tgid: processes[number] for number in saved["living"]}
    for due_ns, number in saved["waiting"]:
        state.waiting.append((due_ns, images[number]))
        images[number].due_ns = due_ns
    state.ended_meanwhile = {(tgid, start_ns): images[number] for tgid, start_ns, number in saved["ended_meanwhile"]}
    check_links(state, processes, images)
    return state
