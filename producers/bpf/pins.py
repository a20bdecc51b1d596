"""The names under which the recorder lives in a bpf file system, and the small array that says what it is."""

import errno
import os
import struct
from enum import IntEnum
from pathlib import Path

from producers.bpf import syscall
from schemas.errors import Unavailable

DIRECTORY = Path("/sys/fs/bpf/tasktrail")

LAYOUT_VERSION = 1
"""Of the pins and maps taken together. Programs of one version can take over from each other; others need an unload between."""
_MAGIC = 0x54415349 << 32
META_ENTRIES = 16

META, RING, ONCE, COUNTERS, LOST, LAST_EXIT, MARK, SEEN = "meta", "ring", "once", "counters", "lost", "last_exit", "mark", "seen"
LINKS = {"fork": "link_fork", "exec": "link_exec", "exit": "link_exit", "rename": "link_rename"}
"""Short name of each program → the pin of the link that keeps it attached."""
PROGRAMS = {short: f"program_{short}" for short in LINKS}
"""Short name of each program → its own pin. What it has missed can be asked by it, which by its id alone needs CAP_SYS_ADMIN."""
SPARE_LINKS = {short: f"link_spare_{short}" for short in LINKS}
"""Of the spare copies, in the same way; only kernels that may skip the first ones have them (producers/spares.py)."""
SPARE_PROGRAMS = {short: f"program_spare_{short}" for short in SPARE_LINKS}
SPARE_COUNTS = "spare_counts"
MAPS = (META, RING, ONCE, COUNTERS, LOST, LAST_EXIT)
ALL = (*MAPS, MARK, SEEN, *LINKS.values(), *PROGRAMS.values())
SPARES = (SPARE_COUNTS, *SPARE_LINKS.values(), *SPARE_PROGRAMS.values())
"""Those that not every recorder has."""
NEW = "new_"
"""Before the name of a pin that is about to be renamed over the one of that name."""

_CURE_LOAD = "run `tasktrail record load`"


class Field(IntEnum):
    """Index of each number in the meta array."""

    LAYOUT = 0
    """magic and layout version"""
    READY = 1
    """1 when the load that made the ring came to its end"""
    RING_ID = 2
    """boottime in nanoseconds when the ring was made"""
    EPOCH = 3
    """random number of the latest load"""
    SOURCE = 4
    """hash of the programs that are attached"""
    SKIPPED = 5
    """what the kernel skipped of all programs that were replaced since the ring was made (producers.spares.skipped)"""
    RING_BYTES = 6
    ARGV_BYTES = 7
    PROCESSES = 8
    GOOD_NS = 9
    """latest boottime at which all programs were known to be attached"""
    GAP = 10
    """1 from the moment that a loader found programs missing until it has told so in the ring"""
    SPARES = 11
    """1 if the programs that are attached have spare copies"""


class Meta:
    """The meta array of a pinned recorder."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, field: Field) -> int:
        """One number."""
        value = syscall.lookup(self.fd, struct.pack("<I", field), 8)
        assert value is not None
        return int.from_bytes(value, "little")

    def write(self, field: Field, value: int) -> None:
        """Sets one number, in one step."""
        syscall.update(self.fd, struct.pack("<I", field), value.to_bytes(8, "little"))

    def sign(self) -> None:
        """Writes what tells this array from anybody else's."""
        self.write(Field.LAYOUT, _MAGIC | LAYOUT_VERSION)


def check_signature(fd: int, pin_dir: Path) -> int:
    """Layout version of the meta array behind ``fd``; 0 if the loader that pinned it ended before it signed it.

    Raises Unavailable when it is not ours.
    """
    info = syscall.map_info(fd)
    if (info.kind, info.value_bytes, info.entries) != (syscall.ARRAY, 8, META_ENTRIES):
        raise foreign(pin_dir, META)
    layout = Meta(fd).read(Field.LAYOUT)
    if layout and layout & ~0xFFFFFFFF != _MAGIC:
        raise foreign(pin_dir, META)
    return layout & 0xFFFFFFFF


def open_meta(pin_dir: Path) -> Meta:
    """The meta array of the recorder that is pinned in ``pin_dir`` and ready.

    Raises Unavailable when there is none, or none that this program understands.
    """
    fd = open_object(pin_dir, META)
    try:
        version = check_signature(fd, pin_dir)
        if version not in (0, LAYOUT_VERSION):
            problem = f"{pin_dir} holds a recorder of layout version {version}, this program knows version {LAYOUT_VERSION}"
            raise Unavailable(problem, "let the reader catch up, then run `tasktrail record unload` and `tasktrail record load`")
        if not version or not Meta(fd).read(Field.READY):
            raise Unavailable(f"the load of the recorder in {pin_dir} was not finished", _CURE_LOAD)
    except BaseException:
        os.close(fd)
        raise
    return Meta(fd)


def open_object(pin_dir: Path, name: str) -> int:
    """Descriptor of one pinned object. Raises Unavailable when it is not there or not allowed."""
    try:
        return syscall.open_pin(pin_dir / name)
    except OSError as failure:
        if failure.errno == errno.ENOENT:
            problem = f"no recorder in {pin_dir}" if name == META else f"the recorder in {pin_dir} lacks its pin {name}"
            raise Unavailable(problem, _CURE_LOAD) from None
        if failure.errno in (errno.EPERM, errno.EACCES):
            raise Unavailable(f"{pin_dir / name} may not be opened: {os.strerror(failure.errno)}", "run as root") from None
        raise foreign(pin_dir, name) from failure


def open_program(pin_dir: Path, name: str, link_fd: int) -> int:
    """Descriptor of the program that the link runs, whose own pin has this name.

    Its pin may be another one's where a load ended half way, or missing in an older version's directory; then it is opened by its id.
    Raises Unavailable where that is not allowed.
    """
    program_id = syscall.link_info(link_fd).program_id
    try:
        pinned = syscall.open_pin(pin_dir / name)
    except FileNotFoundError:
        pass
    else:
        if syscall.program_info(pinned).program_id == program_id:
            return pinned
        os.close(pinned)
    try:
        return syscall.open_program(program_id)
    except PermissionError:
        problem = f"{pin_dir / name} is not the program that is attached: a load was not finished"
        raise Unavailable(problem, "run `tasktrail record load` once with CAP_SYS_ADMIN") from None


def foreign(pin_dir: Path, name: str) -> Unavailable:
    """The error about a pin that is not ours."""
    return Unavailable(f"{pin_dir / name} is not a pin of Tasktrail", "choose another directory with --pin-dir, or remove it")


def present(pin_dir: Path) -> set[str]:
    """Names in the directory; empty when it is not there."""
    try:
        return set(os.listdir(pin_dir))
    except FileNotFoundError:
        return set()
