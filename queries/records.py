"""Images and histories as JSON objects: columns by their names, enums by theirs, times as ISO 8601 in UTC with all nine digits."""

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

from queries.completeness import is_complete, state
from queries.history import Chain, History, Origin, Step, readable
from queries.jsonlines import as_object
from queries.rows import fields_of
from queries.times import iso_time
from schemas.columns import HOSTS, IMAGES, LOSSES
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, LossCause

_ENUMS: dict[str, type[IntEnum]] = {"kind": ImageKind, "end_kind": EndKind, "chain_kind": ImageKind, "cause": LossCause}
_TYPES = {column.name: column.type for column in (*HOSTS, *LOSSES, *IMAGES)}


def _value(name: str, value: Any) -> object:
    """The column's value as JSON shows it."""
    if name in _ENUMS:
        kinds = _ENUMS[name]
        return [kinds(one).name.lower() for one in value] if isinstance(value, tuple) else kinds(value).name.lower()
    kind = _TYPES.get(name, "")
    if "DateTime64" in kind:
        return [_time(one) for one in value] if isinstance(value, tuple) else _time(value)
    if kind.startswith("DateTime"):
        return iso_time(value * 1_000_000_000)[:19] + "Z"
    return bool(value) if kind == "Bool" else value


def _time(time_ns: int) -> str | None:
    """ISO 8601; null for the epoch, which stands for a time that is not known."""
    return iso_time(time_ns) if time_ns else None


def columns_of(row: Any) -> Iterator[tuple[str, object]]:
    """Name and value of each column of a row; ``ended`` follows where it can be told."""
    for name in fields_of(type(row)):
        yield name, _value(name, getattr(row, name))
    if hasattr(row, "end_kind") and hasattr(row, "duration"):
        yield "ended", None if row.end_kind == EndKind.LIVING else iso_time(row.begin + row.duration)


def row_object(row: Any) -> dict[str, object]:
    """A row as an object."""
    return as_object(columns_of(row))


def step_object(step: Step) -> dict[str, object]:
    """A step of a history: what is not known is null."""
    return as_object(
        [
            ("tgid", step.tgid or None),
            ("comm", step.comm),
            ("begin", _time(step.begin_ns)),
            ("task_id", None if step.task_id == NIL else step.task_id),
            ("exec_id", None if step.exec_id < 0 else step.exec_id),
            ("known_from", step.origin.value),
        ]
    )


def completeness_object(image: Chain, history: History[Any] | None = None) -> dict[str, object]:
    """How complete the history is: the row's flags, the loss that touches it, and what the store no longer has."""
    result: dict[str, object] = {
        "complete": is_complete(image, history),
        "before_recorder": bool(image.chain_before),
        "cut": bool(image.chain_cut),
        "lost": bool(image.chain_lost),
        "lost_from": _time(image.lost_from),
        "lost_to": _time(image.lost_to),
    }
    if history is not None:
        result["steps_from_chain"] = history.fallback
        result["steps_unknown"] = sum(step.origin is Origin.UNKNOWN for step in history.steps)
    result["says"] = state(image, history)
    return result


def history_object(history: History[Any]) -> dict[str, object]:
    """A history as one object: the readable form, its steps, how complete it is, and the image's columns."""
    return {
        "history": readable(history.steps),
        "completeness": completeness_object(history.image, history),
        "steps": [step_object(step) for step in history.steps],
        "image": row_object(history.image),
    }
