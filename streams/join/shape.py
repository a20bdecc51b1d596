"""What a saved state looks like: the type of every value in it, and how processes and images may hang together.

A state in which anything is otherwise would end in an exception, or in a loop, much later and far from its cause.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from streams.join.facts import NO_FACTS
from streams.join.model import HostState, Image, Process

Shape = type | tuple["Shape", ...] | list["Shape"] | frozenset["Shape"] | dict[str, "Shape"]
"""A value of a type (object: of any); a list of just these; a list of any number of one; one of several; an object with these keys."""

_INTERVAL: Shape = frozenset({(), (int, int)})
_NONE = type(None)
_FACTS: list[Shape] = [[str] if isinstance(fact, tuple) else str if isinstance(fact, bytes) else int for fact in NO_FACTS]
_PROCESS: Shape = (int, int, int, bool, int, int, int, int, int, bool, bool, int, int, str, _INTERVAL, int, int, int)
_IMAGE: tuple[Shape, ...] = (
    int, int, bool, int, int, int, int, int, int, object, int, int, int, bool, int, bool, bool, object, int, str, str,
    object, _INTERVAL, _INTERVAL, (int,) * 9, int, int,
)  # fmt: skip
FACTS_AT = 21
FACTS: Shape = tuple(_FACTS)
SAVED: dict[str, Shape] = {
    "host_id": str,
    "boot_id": str,
    "host": str,
    "past_boots": [str],
    "offset_ns": frozenset({_NONE, int}),
    "refresh_day": int,
    "counters": dict,
    "losses": [_INTERVAL],
    "links_lost": frozenset({_NONE, (int, int)}),
    "unread": frozenset({_NONE, (int, int, int)}),
    "reader": (int, int),
    "recent": [(int, int)],
    "snapshots": [(int, int, int, str)],
    "users": [(int, str)],
    "living": [int],
    "waiting": [(int, int)],
    "ended_meanwhile": [(int, int, int)],
    "processes": [_PROCESS],
    "images": [_IMAGE],
}
"""See streams.join.saved. Numbers that stand for themselves are not named here."""


def fits(value: object, shape: Shape) -> bool:
    """Whether a value out of JSON has the shape."""
    if isinstance(shape, type):
        return type(value) is shape or shape is object
    if isinstance(shape, frozenset):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(fits(value.get(name), one) for name, one in shape.items())
    if not isinstance(value, list):
        return False
    if isinstance(shape, list):
        return all(fits(one, shape[0]) for one in value)
    # Most values have the type itself, which is seen at once.
    return len(value) == len(shape) and all(type(one) is each or fits(one, each) for one, each in zip(value, shape, strict=True))


def check_links(state: HostState, processes: list[Process], images: list[Image]) -> None:
    """Raises ValueError unless all that lives has an image, and nobody descends from itself."""
    for process in processes:
        if process.image is not None and process.image.process is not process:
            raise ValueError(f"the image of process {process.tgid} is another one's")
    for image in images:
        if image.process is not None and len(image.facts) != len(NO_FACTS):
            raise ValueError(f"an image of process {image.process.tgid} has no facts")
    for process in state.living.values():
        if process.image is None:
            raise ValueError(f"process {process.tgid} lives without an image")
    _check_ends(processes, lambda process: process.creator)
    _check_ends(images, lambda image: image.base)


Link = TypeVar("Link")


def _check_ends(links: Iterable[Link], following: Callable[[Link], Link | None]) -> None:
    """Raises ValueError where going from one to the next comes back to one that was passed."""
    ended: set[Link] = set()
    for link in links:
        way: dict[Link, None] = {}
        at: Link | None = link
        while at is not None and at not in ended:
            if at in way:
                raise ValueError("a chain leads back to itself")
            way[at] = None
            at = following(at)
        ended.update(way)
