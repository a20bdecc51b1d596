"""Puts the recorder into the kernel, takes over from an older one, and takes it out again.

The kernel goes on recording when the loader has ended: links, ring and maps are pinned in a bpf file system. A newer version
attaches its programs first and then renames their pins over the old ones, so nothing is missed; the once map makes what both
versions saw go out once.
"""

import errno
import os
import secrets
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from producers import host, locks, prerequisites, snapshot, spares
from producers.bpf import pins, probes, source, syscall
from producers.bpf.btf import Btf
from producers.bpf.pins import Field
from producers.masking import NO_MASKING, Masking
from producers.prerequisites import LOADING, Capability
from producers.recorder import Recorder
from producers.ring import Ring
from producers.snapshot import RingFull
from schemas import events, limits
from schemas.errors import BadInput, Unavailable


class Settings(NamedTuple):
    """How to load.

    programs   what a person may choose about the programs
    spool      where the first snapshot goes
    state_dir  where the host id is kept
    masking    of arguments, in that snapshot
    """

    programs: source.Settings = source.Settings()
    spool: Path = snapshot.SPOOL
    state_dir: Path = host.STATE_DIRECTORY
    masking: Masking = NO_MASKING


class Outcome(Enum):
    """What a load did."""

    NEW = "a new ring was made"
    HANDOVER = "newer programs took over from the ones that were attached"
    ATTACHED_AGAIN = "the ring was there, but not all programs were attached: they are now"
    UNCHANGED = "these programs were loaded already"


class Loaded(NamedTuple):
    """The result of a load.

    outcome  what happened
    ring_id  the ring that is recorded into
    epoch    the load whose programs are attached now
    cleared  pins of an unfinished load that were cleared away first
    full     the ring had no room for a snapshot: the reader is to take one when it has caught up
    """

    outcome: Outcome
    ring_id: int
    epoch: int
    cleared: int = 0
    full: bool = False


class Unloaded(NamedTuple):
    """The result of an unload.

    pins          how many pins were removed
    unread_bytes  how many bytes of the ring nobody had read
    """

    pins: int
    unread_bytes: int


def check_settings(settings: source.Settings) -> None:
    """Raises BadInput when a number is out of its range."""
    ring, page = settings.ring_bytes, os.sysconf("SC_PAGE_SIZE")
    if ring < page or ring & (ring - 1) or ring > 1 << 30:
        raise BadInput(f"a ring of {ring} bytes cannot be made", f"give a power of two from {page} to {1 << 30}")
    if not 0 <= settings.argv_bytes <= limits.ARGV_BYTES_MAX:
        raise BadInput(f"argv limit of {settings.argv_bytes} bytes", f"give a number from 0 to {limits.ARGV_BYTES_MAX}")
    if not 1024 <= settings.processes <= 1 << 22:
        raise BadInput(f"room for {settings.processes} processes", f"give a number from 1024 to {1 << 22}")


def load(pin_dir: Path = pins.DIRECTORY, settings: Settings = Settings()) -> Loaded:  # noqa: B008 - it is a value
    """Makes the kernel record, with the pins in ``pin_dir``.

    Raises Unavailable (with the cure) when the kernel or the rights do not allow it or the directory holds something else,
    and BadInput for settings out of range.
    """
    check_settings(settings.programs)
    prerequisites.check_rights([one for one in LOADING if settings.programs.argv_bytes or one != Capability.SYS_PTRACE])
    prerequisites.check_bpf_file_system(pin_dir)
    program = source.generate(Btf.of_kernel(), settings.programs)
    with locks.lock_loader(pin_dir, settings.spool.parent):
        pin_dir.mkdir(mode=0o700, exist_ok=True)
        cleared = _clear_unfinished(pin_dir)
        if pins.META not in pins.present(pin_dir):
            # A reader that holds a ring whose pins somebody removed puts them back by itself; a second ring would be read by nobody.
            with locks.lock_reader(pin_dir, settings.spool.parent):
                return _load_new(pin_dir, settings, program)._replace(cleared=cleared)
        return _load_over(pin_dir, settings, program)


def _clear_unfinished(pin_dir: Path) -> int:
    """Removes what a loader left that ended in the middle. Raises Unavailable when there are pins of somebody else."""
    version = _layout_version(pin_dir)
    there = pins.present(pin_dir)
    if version is None:
        return 0
    if version not in (0, pins.LAYOUT_VERSION):
        pins.open_meta(pin_dir)
    for name in there:
        if name.startswith(pins.NEW):
            (pin_dir / name).unlink()
    if version:
        meta = pins.Meta(pins.open_object(pin_dir, pins.META))
        ready = meta.read(Field.READY)
        os.close(meta.fd)
        if ready:
            return 0
    there = pins.present(pin_dir)
    _remove(pin_dir, there)
    return len(there)


def _layout_version(pin_dir: Path) -> int | None:
    """Of the recorder in the directory: None if there is none, 0 if its load ended at once.

    Raises Unavailable when the directory holds something else.
    """
    there = pins.present(pin_dir)
    if not there:
        return None
    if pins.META not in there:
        raise pins.foreign(pin_dir, min(there))
    fd = pins.open_object(pin_dir, pins.META)
    try:
        version = pins.check_signature(fd, pin_dir)
    finally:
        os.close(fd)
    ours = {begin + name for name in (*pins.ALL, *pins.SPARES) for begin in ("", pins.NEW)}
    if version in (0, pins.LAYOUT_VERSION) and (strange := sorted(there - ours)):
        raise pins.foreign(pin_dir, strange[0])
    return version


def _remove(pin_dir: Path, names: set[str]) -> None:
    """Removes pins, meta last: as long as it is there, the rest is known to be ours."""
    for name in sorted(names, key=lambda name: name == pins.META):
        (pin_dir / name).unlink(missing_ok=True)


def _create_maps(settings: source.Settings) -> dict[str, int]:
    """Descriptors of the maps of a new ring, by pin name."""
    lifted = syscall.lift_memory_limit()
    try:
        ring = syscall.create_map(syscall.RINGBUF, 0, 0, settings.ring_bytes, name="tasktrail_ring")
    except OSError as failure:
        if failure.errno == errno.EINVAL:
            raise Unavailable("this kernel has no BPF ring buffer", "use Linux 5.10 or later") from None
        if failure.errno == errno.ENOMEM:
            raise Unavailable(f"the kernel has no room for a ring of {settings.ring_bytes} bytes", "choose a smaller --ring-size") from None
        if failure.errno == errno.EPERM and not lifted:
            raise Unavailable("this kernel counts the ring as locked memory", "give CAP_SYS_RESOURCE or a larger `ulimit -l`") from None
        raise
    return {
        pins.META: syscall.create_map(syscall.ARRAY, 4, 8, pins.META_ENTRIES, name="tasktrail_meta"),
        pins.RING: ring,
        pins.ONCE: syscall.create_map(syscall.HASH, 4, snapshot.ONCE.size, settings.processes, syscall.NO_PREALLOC, "tasktrail_once"),
        pins.COUNTERS: syscall.create_map(syscall.PERCPU_ARRAY, 4, 8, len(source.Counter), name="tasktrail_count"),
        pins.LOST: syscall.create_map(syscall.ARRAY, 4, 8, 1, name="tasktrail_lost"),
        pins.LAST_EXIT: syscall.create_map(syscall.ARRAY, 4, 8, source.LAST_EXIT_SLOTS, name="tasktrail_exits"),
    }


class _Programs(NamedTuple):
    """Loaded programs: descriptors by function name, their epoch, why they do not read directly (empty if they do), and spare copies."""

    descriptors: dict[str, int]
    epoch: int
    refusal: str
    spare: spares.Spares | None = None


def _load_programs(program: source.Program, maps: dict[str, int]) -> _Programs:
    """Compiles and loads, with per-CPU work space that belongs to these programs alone."""
    syscall.lift_memory_limit()
    epoch = secrets.randbits(32)
    work = {
        "EXEC_WORK_FD": syscall.create_map(syscall.PERCPU_ARRAY, 4, source.EXEC_WORK_BYTES, 1, name="tasktrail_exec"),
        "SEEN_WORK_FD": syscall.create_map(syscall.PERCPU_ARRAY, 4, source.SEEN_WORK_BYTES, 1, name="tasktrail_seen"),
    }
    descriptors = {f"{name.upper()}_FD": fd for name, fd in maps.items()} | work
    functions = probes.load(source.with_maps(program, descriptors, epoch), program.types)
    spare = spares.load(program, descriptors, epoch, direct=not functions.refusal) if program.spare else None
    for fd in work.values():
        os.close(fd)
    return _Programs(functions.descriptors, epoch, functions.refusal, spare)


def _attach(programs: _Programs, pinned: Callable[[str, int], None]) -> None:
    """Attaches each program and hands every pin's name and descriptor to ``pinned``."""
    for short, (function, tracepoint) in source.TRACEPOINTS.items():
        link = syscall.attach_raw_tracepoint(programs.descriptors[function], tracepoint)
        pinned(pins.PROGRAMS[short], programs.descriptors[function])
        pinned(pins.LINKS[short], link)
        os.close(link)
    if programs.spare:
        spares.attach(programs.spare, pinned)
    iterator = syscall.link_iterator(programs.descriptors[probes.ITERATOR])
    pinned(pins.SEEN, iterator)
    os.close(iterator)
    pinned(pins.MARK, programs.descriptors[probes.MARK])


def _load_new(pin_dir: Path, settings: Settings, program: source.Program) -> Loaded:
    maps = _create_maps(settings.programs)
    meta = pins.Meta(maps[pins.META])
    syscall.pin(meta.fd, pin_dir / pins.META)
    meta.sign()
    moment = host.now()
    meta.write(Field.RING_ID, moment.boottime_ns)
    meta.write(Field.RING_BYTES, settings.programs.ring_bytes)
    for name, fd in maps.items():
        if name != pins.META:
            syscall.pin(fd, pin_dir / name)
    programs = _load_programs(program, maps)
    _describe(meta, settings, program, programs)
    mark = programs.descriptors[probes.MARK]
    _mark(mark, events.Mark.CLOCK, *host.now())
    _attach(programs, lambda name, fd: syscall.pin(fd, pin_dir / name))
    _mark(mark, events.Mark.ATTACHED, 0)
    meta.write(Field.READY, 1)
    _close(maps, programs)
    return _finish(pin_dir, settings, Outcome.NEW)


def _load_over(pin_dir: Path, settings: Settings, program: source.Program) -> Loaded:
    meta = pins.open_meta(pin_dir)
    try:
        return _take_over(pin_dir, settings, program, meta)
    finally:
        os.close(meta.fd)


def _take_over(pin_dir: Path, settings: Settings, program: source.Program, meta: pins.Meta) -> Loaded:
    _check_same_ring(meta, settings.programs, pin_dir)
    there = pins.present(pin_dir)
    if lacking := [name for name in pins.MAPS if name not in there]:
        problem = f"the recorder in {pin_dir} lacks its pin {lacking[0]}"
        raise Unavailable(problem, "if a reader runs it will put it back; else run `tasktrail record unload` and `tasktrail record load`")
    attached = all(name in there for name in pins.LINKS.values()) and not meta.read(Field.GAP)
    wanted = {pins.MARK, pins.SEEN, *pins.PROGRAMS.values(), *(pins.SPARES if program.spare else ())}
    if attached and wanted <= there and meta.read(Field.SOURCE) == program.hash:
        return Loaded(Outcome.UNCHANGED, meta.read(Field.RING_ID), meta.read(Field.EPOCH))
    maps = {name: pins.open_object(pin_dir, name) for name in pins.MAPS}
    if not attached:
        _check_room(maps[pins.RING])
        meta.write(Field.GAP, 1)
    programs = _load_programs(program, maps)
    outcome = _switch(pin_dir, settings, program, meta, programs)
    _close(maps, programs)
    return _finish(pin_dir, settings, outcome)


def _switch(pin_dir: Path, settings: Settings, program: source.Program, meta: pins.Meta, programs: _Programs) -> Outcome:
    """Puts loaded programs in the place of those that are there; for a moment both run."""
    there = pins.present(pin_dir)
    attached = all(name in there for name in pins.LINKS.values()) and not meta.read(Field.GAP)
    replaced = {short: _program_of(pin_dir, name, pins.PROGRAMS[short]) for short, name in pins.LINKS.items() if name in there}
    spare = {short: _program_of(pin_dir, name, pins.SPARE_PROGRAMS[short]) for short, name in pins.SPARE_LINKS.items() if name in there}
    counts = pins.open_object(pin_dir, pins.SPARE_COUNTS) if pins.SPARE_COUNTS in there else None
    meta.write(Field.SOURCE, 0)  # if this ends half way, whichever version is loaded next takes over from the mixture
    fresh: list[str] = []

    def pinned(name: str, fd: int) -> None:
        syscall.pin(fd, pin_dir / (pins.NEW + name))
        fresh.append(name)

    _attach(programs, pinned)
    # All are attached before the first is taken away, and spare copies go first: one alone would save what its first copy would not miss.
    if not programs.spare:
        meta.write(Field.SPARES, 0)
        _remove(pin_dir, set(pins.SPARES))
    for name in sorted(fresh, key=lambda name: name not in pins.SPARES):
        (pin_dir / (pins.NEW + name)).rename(pin_dir / name)
    mark = programs.descriptors[probes.MARK]
    if not attached:
        _mark(mark, events.Mark.LINKS_LOST, meta.read(Field.GOOD_NS))
    _mark(mark, events.Mark.ATTACHED, int(attached))
    meta.write(Field.GAP, 0)
    _describe(meta, settings, program, programs)
    # After the epoch: a reader that still holds the replaced programs adds theirs itself until it sees another epoch than its own.
    meta.write(Field.SKIPPED, meta.read(Field.SKIPPED) + spares.skipped(replaced, spare, counts))
    for fd in (*replaced.values(), *spare.values(), *([] if counts is None else [counts])):
        os.close(fd)
    return Outcome.HANDOVER if attached else Outcome.ATTACHED_AGAIN


def _check_same_ring(meta: pins.Meta, settings: source.Settings, pin_dir: Path) -> None:
    for what, option, field, wanted in (
        ("a ring", "--ring-size", Field.RING_BYTES, settings.ring_bytes),
        ("room for processes", "--processes", Field.PROCESSES, settings.processes),
    ):
        there = meta.read(field)
        if there != wanted:
            cure = f"give {option} {there}, or let the reader catch up and run `tasktrail record unload` first"
            raise Unavailable(f"the recorder in {pin_dir} has {what} of {there}, not {wanted}", cure)


def _check_room(ring_fd: int) -> None:
    """Raises RingFull unless a mark finds room: without it nobody would know that the programs had been gone."""
    ring = Ring(ring_fd)
    try:
        if ring.producer() - ring.consumer() > ring.size_bytes * 3 // 4:
            raise RingFull("the ring has no room to say that the programs had been gone", "start a reader (`tasktrail run`) first")
    finally:
        ring.close()


def _program_of(pin_dir: Path, link_name: str, name: str) -> int:
    """Descriptor of the program that a pinned link runs, whose own pin has this name."""
    link = pins.open_object(pin_dir, link_name)
    try:
        return pins.open_program(pin_dir, name, link)
    finally:
        os.close(link)


def _describe(meta: pins.Meta, settings: Settings, program: source.Program, programs: _Programs) -> None:
    """Says in the meta array what is attached now; the epoch last, for readers look at it."""
    meta.write(Field.GOOD_NS, host.now().boottime_ns)
    meta.write(Field.SOURCE, program.hash)
    meta.write(Field.ARGV_BYTES, settings.programs.argv_bytes)
    meta.write(Field.PROCESSES, settings.programs.processes)
    meta.write(Field.SPARES, int(programs.spare is not None))
    meta.write(Field.EPOCH, programs.epoch)


def _mark(program_fd: int, kind: events.Mark, *values: int) -> None:
    """A mark by programs that are not pinned yet."""
    syscall.run_raw_tracepoint(program_fd, (int(kind), *values, *(0,) * (8 - len(values))))


def _close(maps: dict[str, int], programs: _Programs) -> None:
    for fd in (*maps.values(), *programs.descriptors.values()):
        os.close(fd)
    if programs.spare:
        spares.close(programs.spare)


def _finish(pin_dir: Path, settings: Settings, outcome: Outcome) -> Loaded:
    """A snapshot follows every change of what is attached."""
    with Recorder(pin_dir, settings.spool, settings.state_dir, settings.masking) as recorder:
        if outcome is not Outcome.NEW:
            recorder.clock()
        try:
            recorder.snapshot()
        except RingFull:
            return Loaded(outcome, recorder.ring_id, recorder.epoch, full=True)
        return Loaded(outcome, recorder.ring_id, recorder.epoch)


def unload(pin_dir: Path = pins.DIRECTORY, spool: Path = snapshot.SPOOL) -> Unloaded:
    """Takes the recorder out of the kernel, with its ring and what nobody has read of it.

    Raises Unavailable when there is none, when a reader has the ring, or when the directory holds something else.
    """
    prerequisites.check_rights([Capability.BPF])
    with locks.lock_loader(pin_dir, spool.parent):
        if _layout_version(pin_dir) is None:
            raise Unavailable(f"no recorder in {pin_dir}", "there is nothing to unload")
        there = pins.present(pin_dir)
        with locks.lock_reader(pin_dir, spool.parent):
            unread = _unread(pin_dir, spool)
            _remove(pin_dir, there)
            pin_dir.rmdir()
        return Unloaded(len(there), unread)


def _unread(pin_dir: Path, spool: Path) -> int:
    """Bytes that nobody has read of a ring that is about to go; its waiting snapshots go too."""
    try:
        with Recorder(pin_dir, spool) as recorder:
            snapshot.discard(spool, recorder.ring_id, host.now().boottime_ns)
            return recorder.ring.producer() - recorder.ring.consumer()
    except Unavailable:
        return 0
