"""A history as the string of the 2023 kernel patch *audit: add task history record*, byte for byte.

    name=swapper/0;pid=1;start=20230811194329=>name=init;pid=1;start=20230811194343=>name=sshd;pid=812;start=20230811194410

Elements are exec'd images, root first, joined by ``=>``; times are UTC. In names every byte other than ASCII letters, digits and
``._-/`` is a backslash and three octal digits, so no name can forge an element. The first element is what process 1 was before
its first exec. A leading ``=>`` says that older elements are not there. What is not known is a bare ``?``; in a name a question
mark is ``\\077``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/")
SWAPPER = b"swapper/0"
"""The kernel's own name of process 1 until its first exec."""


class Element(NamedTuple):
    """One exec'd image.

    name      its comm; None where not known
    tgid      0 where not known
    start_ns  when it began, wall clock; 0 where not known
    """

    name: bytes | None
    tgid: int
    start_ns: int


def escape(name: bytes) -> str:
    """The name in the patch's alphabet."""
    return "".join(chr(byte) if byte in PLAIN else f"\\{byte:03o}" for byte in name)


def stamp(time_ns: int) -> str:
    """YYYYMMDDhhmmss in UTC."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y%m%d%H%M%S")


def history_string(elements: Sequence[Element], whole: bool) -> str:
    """The string of these elements, root first; ``whole`` says that they reach the root."""
    shown = [
        f"name={'?' if name is None else escape(name)};pid={tgid or '?'};start={stamp(start_ns) if start_ns else '?'}"
        for name, tgid, start_ns in elements
    ]
    return ("" if whole else "=>") + "=>".join(shown)
