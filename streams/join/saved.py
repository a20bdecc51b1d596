"""The state of the join as bytes, and back: what was saved after a batch goes on anywhere with the same result.

JSON, because a person can read it in an incident and no value in it can run code. Bytes stand as text of the same code points
(Latin-1), references between processes and images as numbers into their lists.
"""

import json
from collections import deque
from typing import Any, cast
from uuid import UUID

from schemas.errors import DecodeError
from schemas.identity import NIL
from streams.join.model import End, HostState, Image, Interval, Process

VERSION = 2

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
    "refresh_day",
    "newest_version",
    "relinks",
)
_PROCESS_PLAIN = (
    "tgid", "start_ns", "start_wall_ns", "root", "creator_tgid", "creator_exec_id", "creator_tid", "clone_flags",
    "parent_tgid", "by_parent", "shown", "absent", "born_snapshot",
)  # fmt: skip
_IMAGE_PLAIN = (
    "exec_id", "kind", "own", "tgid", "begin_ns", "begin_wall_ns", "ring_id", "position", "epoch", "parent_exec_id",
    "touched_ns", "touched_wall_ns", "sure_ns", "had_child", "version", "waiting", "before", "end_ns", "end_parent_tgid",
)  # fmt: skip


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


def _reachable(state: HostState) -> tuple[dict[Process, int], dict[Image, int]]:
    """Number of each process and image that the state holds, directly or through others."""
    processes: dict[Process, int] = {}
    images: dict[Image, int] = {}
    todo: list[Process | Image | None] = [*state.living.values(), *(image for _, image in state.waiting), *state.ended_meanwhile.values()]
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
    processes, images = _reachable(state)
    saved: dict[str, object] = {
        "version": VERSION,
        "host_id": str(state.host_id),
        "boot_id": str(state.boot_id),
        "host": _text(state.host),
        "past_boots": [str(boot) for boot in state.past_boots],
        **{name: getattr(state, name) for name in _PLAIN},
        "counters": state.counters,
        "losses": state.losses,
        "links_lost": state.links_lost,
        "unread": state.unread,
        "reader": state.reader,
        "recent": list(state.recent),
        "snapshots": [[number, arrived, parts, _text(body)] for number, (arrived, parts, body) in state.snapshots.items()],
        "users": [[uid, _text(name)] for uid, name in state.users.items()],
        "living": [processes[process] for process in state.living.values()],
        "waiting": [[due_ns, images[image]] for due_ns, image in state.waiting],
        "ended_meanwhile": [[*key, images[image]] for key, image in state.ended_meanwhile.items()],
        "processes": [
            [
                *(getattr(process, name) for name in _PROCESS_PLAIN),
                "" if process.parent_id == NIL else process.parent_id.hex,
                process.lost,
                processes[process.creator] if process.creator else -1,
                images[process.creator_image] if process.creator_image else -1,
                images[process.image] if process.image else -1,
            ]
            for process in processes
        ],
        "images": [
            [
                *(getattr(image, name) for name in _IMAGE_PLAIN),
                _text(image.comm),
                _text(image.renamed),
                _plain(image.facts),
                image.lost,
                image.end_lost,
                image.end,
                processes[image.process] if image.process else -1,
                images[image.base] if image.base else -1,
            ]
            for image in images
        ],
    }
    return json.dumps(saved, separators=(",", ":")).encode("ascii")


def load(data: bytes) -> HostState:
    """The state out of bytes that dump made. Raises DecodeError for any others."""
    try:
        saved = json.loads(data)
        if saved["version"] != VERSION:
            cure = "update Tasktrail here" if saved["version"] > VERSION else "remove it; a gap will be recorded"
            raise DecodeError(f"saved state of version {saved['version']}: this program reads version {VERSION}", cure)
        return _loaded(saved)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as broken:
        raise DecodeError(
            f"saved state cannot be read ({type(broken).__name__}: {broken})", "remove it; a gap will be recorded"
        ) from broken


def _loaded(saved: dict[str, Any]) -> HostState:
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
    state.recent.extend((tgid, start_ns) for tgid, start_ns in saved["recent"])
    processes = [_process(state, values) for values in saved["processes"]]
    images = [_image(values) for values in saved["images"]]
    for process, values in zip(processes, saved["processes"], strict=True):
        creator, creator_image, image = values[-3:]
        process.creator = processes[creator] if creator >= 0 else None
        process.creator_image = images[creator_image] if creator_image >= 0 else None
        process.image = images[image] if image >= 0 else None
    for one, values in zip(images, saved["images"], strict=True):
        process_number, base = values[-2:]
        one.process = processes[process_number] if process_number >= 0 else None
        one.base = images[base] if base >= 0 else None
    state.living = {processes[number].tgid: processes[number] for number in saved["living"]}
    state.waiting = deque((due_ns, images[number]) for due_ns, number in saved["waiting"])
    state.ended_meanwhile = {(tgid, start_ns): images[number] for tgid, start_ns, number in saved["ended_meanwhile"]}
    return state


def _process(state: HostState, values: list[Any]) -> Process:
    plain = dict(zip(_PROCESS_PLAIN, values, strict=False))
    parent, lost = values[len(_PROCESS_PLAIN) : len(_PROCESS_PLAIN) + 2]
    name = state.task_id(plain["tgid"], plain["start_ns"])
    return Process(task_id=name, parent_id=UUID(parent) if parent else NIL, lost=cast(Interval, tuple(lost)), **plain)


def _image(values: list[Any]) -> Image:
    plain = dict(zip(_IMAGE_PLAIN, values, strict=False))
    comm, renamed, facts, lost, end_lost, end = values[len(_IMAGE_PLAIN) : len(_IMAGE_PLAIN) + 6]
    return Image(
        process=None,
        base=None,
        comm=comm.encode("latin-1"),
        renamed=renamed.encode("latin-1"),
        facts=cast("tuple[object, ...]", _exact(facts)),
        lost=cast(Interval, tuple(lost)),
        end_lost=cast(Interval, tuple(end_lost)),
        end=cast(End, tuple(end)),
        **plain,
    )
