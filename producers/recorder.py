"""A recorder that a loader pinned, opened: its ring, its marks, its counters, its self-probe, its snapshots."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from producers import host, locks, prerequisites, snapshot, spares
from producers.bpf import pins, syscall
from producers.bpf.pins import Field
from producers.bpf.source import Counter
from producers.masking import NO_MASKING, Masking
from producers.ring import Ring
from schemas import events
from schemas.batch import Batch, frames
from schemas.errors import Unavailable

_COMM = Path("/proc/self/comm")
_TRUE = ("/bin/true", "/usr/bin/true")


class Counters(NamedTuple):
    """Everything that was left out since the ring was made.

    skipped         times that the kernel did not run one of the programs (recursion misses), nor the spare copy of it
    lost_fork       records of each kind that found no room in the ring
    dropped_rename  renames left out because the ring was half full or more
    short_argv      arguments cut short for the same reason
    once_full       processes that found no room in the once map
    """

    skipped: int
    lost_fork: int
    lost_exec: int
    lost_exit: int
    dropped_rename: int
    short_argv: int
    once_full: int

    @property
    def lost(self) -> int:
        """Forks, execs and exits that are missing."""
        return self.lost_fork + self.lost_exec + self.lost_exit


class Cost(NamedTuple):
    """What one program has cost while the kernel's statistics were enabled."""

    run_time_ns: int
    run_count: int


class Recorder:
    """A pinned recorder. It holds the links' descriptors: whoever removes a pin detaches nothing, and ``pin_again`` mends it."""

    def __init__(
        self,
        pin_dir: Path = pins.DIRECTORY,
        spool: Path = snapshot.SPOOL,
        state_dir: Path = host.STATE_DIRECTORY,
        masking: Masking = NO_MASKING,
    ) -> None:
        """Opens what is pinned; arguments are masked in all that is read from it.

        Raises Unavailable when nothing is loaded there, or nothing that this program understands, or where clocks are not the kernel's.
        """
        prerequisites.check_clock()
        self.pin_dir, self.spool, self.state_dir, self.masking = pin_dir, spool, state_dir, masking
        self._fds: dict[str, int] = {}
        self._programs: dict[str, int] = {}
        self._spares: dict[str, int] = {}
        self._meta = pins.open_meta(pin_dir)
        self._fds[pins.META] = self._meta.fd
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        self.ring = Ring(self._fds[pins.RING], masking.body)
        self.ring_id = self._meta.read(Field.RING_ID)

    def _open(self) -> None:
        """Opens every pin but meta anew, so that the descriptors are of the programs that were loaded last."""
        epoch = self._meta.read(Field.EPOCH)
        # Spare copies are let go of first, so they are opened first: one alone would save what its first copy would not miss.
        spared = pins.SPARES if self._meta.read(Field.SPARES) else ()
        fresh: dict[str, int] = {}
        programs: dict[str, int] = {}
        spare: dict[str, int] = {}
        try:
            for name in (*spared, *pins.ALL):
                if name != pins.META:
                    fresh[name] = pins.open_object(self.pin_dir, name)
            for short, name in pins.LINKS.items():
                programs[short] = pins.open_program(self.pin_dir, pins.PROGRAMS[short], fresh[name])
            if spared:
                for short, name in pins.SPARE_LINKS.items():
                    spare[short] = pins.open_program(self.pin_dir, pins.SPARE_PROGRAMS[short], fresh[name])
        except BaseException:
            _close_all(fresh, programs, spare)
            raise
        old = {name: fd for name, fd in self._fds.items() if name != pins.META}
        _close_all(old, self._programs, self._spares)
        self._fds = {pins.META: self._meta.fd, **fresh}
        self._programs, self._spares = programs, spare
        self.epoch = epoch

    def refresh(self) -> bool:
        """Follows a loader that put newer programs in: True if one did. The old ones stay attached as long as they are held here."""
        if self._meta.read(Field.EPOCH) == self.epoch:
            return False
        self._open()
        return True

    def close(self) -> None:
        """Lets go of everything; the recorder goes on as long as its pins are there."""
        if hasattr(self, "ring"):
            self.ring.close()
        _close_all(self._fds, self._programs, self._spares)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def lock(self) -> locks.Lock:
        """The right to move the ring's consumer position. Raises Unavailable when another reader has it."""
        return locks.lock_reader(self.pin_dir, self.spool.parent)

    # -- pins --

    def missing_pins(self) -> list[str]:
        """Pins that somebody removed."""
        there = pins.present(self.pin_dir)
        return [name for name in (*pins.ALL, *(pins.SPARES if self._spares else ())) if name not in there]

    def pin_again(self) -> list[str]:
        """Puts removed pins back and names them."""
        missing = self.missing_pins()
        if missing:
            self.pin_dir.mkdir(mode=0o700, exist_ok=True)
        for name in missing:
            syscall.pin(self._fds[name], self.pin_dir / name)
        return missing

    # -- counts --

    def _counter(self, counter: Counter) -> int:
        return spares.read_counter(self._fds[pins.COUNTERS], counter)

    def counters(self) -> Counters:
        """What was left out since the ring was made."""
        # The loader writes the epoch, then adds the misses of the programs that it replaced: read the other way round, none counts twice.
        skipped = self._meta.read(Field.SKIPPED)
        if self._meta.read(Field.EPOCH) == self.epoch:
            skipped += spares.skipped(self._programs, self._spares, self._fds.get(pins.SPARE_COUNTS))
        kinds = (Counter.LOST_FORK, Counter.LOST_EXEC, Counter.LOST_EXIT, Counter.DROPPED_RENAME, Counter.SHORT_ARGV, Counter.ONCE_FULL)
        return Counters(skipped, *(self._counter(kind) for kind in kinds))

    def costs(self) -> dict[str, Cost]:
        """Run time and runs of each program (fork, exec, exit, rename); zeros unless the sysctl kernel.bpf_stats_enabled is on.

        The time of a spare copy is added to that of its first one.
        """
        infos = {name: syscall.program_info(fd) for name, fd in self._programs.items()}
        spent = {name: syscall.program_info(fd).run_time_ns for name, fd in self._spares.items()}
        return {name: Cost(info.run_time_ns + spent.get(name, 0), info.run_count) for name, info in infos.items()}

    # -- marks --

    def mark(self, kind: int, *values: int) -> bool:
        """Puts a mark into the ring, in order with all else; False if the ring has no room for it."""
        arguments = (int(kind), *values, *(0,) * (8 - len(values)))
        return syscall.run_raw_tracepoint(self._fds[pins.MARK], arguments) == 0

    def clock(self) -> bool:
        """Puts a CLOCK mark into the ring: both clocks and the counters; False if the ring has no room for it."""
        counts = self.counters()
        return self.mark(events.Mark.CLOCK, *host.now(), *counts[:6])

    # -- proofs of life --

    def _records_after(self, position: int) -> Iterator[events.Record]:
        body = self.ring.finished_after(position)
        for at, size in frames(body):
            yield events.decode_record(body, at, size)

    def probe(self) -> bool:
        """True if renames are recorded: this process takes another comm and finds the record of it, then takes the old one again.

        While the ring is half full renames are only counted; then the count tells.
        """
        nonce = events.PROBE_COMM + os.urandom(4).hex().encode()
        before, dropped, old = self.ring.producer(), self._counter(Counter.DROPPED_RENAME), _COMM.read_bytes().rstrip(b"\n")
        _COMM.write_bytes(nonce)
        try:
            return any(
                isinstance(record, events.Rename) and record.tgid == os.getpid() and record.comm == nonce
                for record in self._records_after(before)
            ) or (self._counter(Counter.DROPPED_RENAME) > dropped)
        finally:
            _COMM.write_bytes(old)

    def exec_probe(self) -> bool:
        """True if forks, execs and exits are recorded: this process runs `true` and finds the three records of it (or they are counted)."""
        program = next((path for path in _TRUE if os.access(path, os.X_OK)), None)
        if program is None:
            raise Unavailable("neither /bin/true nor /usr/bin/true is there", "install coreutils")
        before, counted, begin = self.ring.producer(), self.counters(), host.now()
        child = os.posix_spawn(program, [program], {})
        os.waitpid(child, 0)
        kinds = {type(record) for record in self._records_after(before) if record.tgid == child}
        after = self.counters()
        alive = (
            (events.Fork in kinds or after.lost_fork > counted.lost_fork)
            and (events.Exec in kinds or after.lost_exec > counted.lost_exec)
            and (events.Exit in kinds or after.lost_exit > counted.lost_exit)
        )
        if alive:
            self._meta.write(Field.GOOD_NS, begin.boottime_ns)
        return alive

    # -- snapshots --

    def snapshot(self) -> Batch:
        """Takes a snapshot of all living processes, which stays in the spool until it is discarded; see producers.snapshot."""
        source = snapshot.Source(
            ring=self.ring,
            ring_id=self.ring_id,
            mark=self.mark,
            seen=self._fds[pins.SEEN],
            once=self._fds[pins.ONCE],
            epoch=self.epoch,
            argv_bytes=self._meta.read(Field.ARGV_BYTES),
            skipped=self.counters().skipped,
            mask=self.masking.body,
        )
        return snapshot.take(source, host.here(self.state_dir), self.spool)

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        """Encoded batches of this ring's snapshots that were not discarded and have a larger id than ``after``, oldest first."""
        return snapshot.pending(self.spool, self.ring_id, after)

    def discard_snapshots(self, last_id: int) -> None:
        """Removes the snapshots up to the one whose end mark has been passed for good."""
        snapshot.discard(self.spool, self.ring_id, last_id)


def _close_all(*descriptors: dict[str, int]) -> None:
    for group in descriptors:
        for fd in group.values():
            os.close(fd)
        group.clear()
