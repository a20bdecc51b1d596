"""The recorder's cost to a storm of fork and exec: short storms with and without it, in turn.

A machine that others use gives a storm now more time and now less, so each recorded storm stands between two bare ones, and where those
two differ by more than a tenth the pair says nothing and is left out (how many is told). CPU time is the second figure: that of all
processes of the storm, from wait4(2), which waiting does not change.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from producers.bpf import pins, source, syscall
from producers.ring import Ring
from tests.e2e.running import ROOT, Place, wait_until

PROCESSES = 1000
"""Of one storm: about a tenth of a second."""
BARE_DIFFER_MAX = 0.1
"""Bare storms around a recorded one that differ by more were disturbed by something else."""
READER = """
import select, sys
from pathlib import Path
from producers.bpf import pins
from producers.ring import Ring
ring = Ring(pins.open_object(Path(sys.argv[1]), pins.RING))
while True:
    start, end, body = ring.stretch(1 << 20)
    ring.release(end)
    select.select([], [], [], 0.01)
"""


class Storm(NamedTuple):
    """What one storm took, in microseconds for each of its processes."""

    wall_us: float
    cpu_us: float


def storm(command: list[str], processes: int = PROCESSES) -> Storm:
    """Runs one; ``command`` is the storm's, with COUNT where the number of processes goes."""
    began = time.monotonic()
    child = subprocess.Popen([str(processes) if word == "COUNT" else word for word in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return Storm(wall_s * 1e6 / processes, (usage.ru_utime + usage.ru_stime) * 1e6 / processes)


class Programs:
    """Loaded programs that are attached and detached at will, without compiling again. Nothing of them is pinned but the ring."""

    def __init__(self, place: Place) -> None:
        done = place.record("load", "--state-dir", str(place.state_dir), "--ring-size", "64MiB")
        assert done.returncode == 0, done.stderr
        self._place, self._programs = place, {}
        for short, name in pins.LINKS.items():
            link = pins.open_object(place.pin_dir, name)
            self._programs[short] = syscall.open_program(syscall.link_info(link).program_id)
            os.close(link)
            (place.pin_dir / name).unlink()
        self.ring = Ring(pins.open_object(place.pin_dir, pins.RING))

    @contextmanager
    def attached(self) -> Iterator[None]:
        """The programs run for as long as this lasts."""
        links = [syscall.attach_raw_tracepoint(self._programs[short], point) for short, (_, point) in source.TRACEPOINTS.items()]
        try:
            yield
        finally:
            for fd in links:
                os.close(fd)

    def run_us(self, command: list[str]) -> dict[str, float]:
        """What the kernel says that each program takes, in microseconds a run, and all of them for each process."""
        statistics = syscall.enable_stats()
        before = {short: syscall.program_info(fd) for short, fd in self._programs.items()}
        with self.attached():
            for _ in range(5):
                storm(command)
        after = {short: syscall.program_info(fd) for short, fd in self._programs.items()}
        os.close(statistics)
        spent = {short: after[short].run_time_ns - before[short].run_time_ns for short in after}
        each = {f"{short}_us": spent[short] / 1e3 / (after[short].run_count - before[short].run_count) for short in spent}
        return {**each, "programs_us": sum(spent.values()) / 1e3 / (5 * PROCESSES)}

    def close(self) -> None:
        """Takes the recorder out."""
        self.ring.close()
        for fd in self._programs.values():
            os.close(fd)
        self._place.record("unload")


class Pairs(NamedTuple):
    """Recorded storms, each with the bare ones before and after it."""

    recorded: list[Storm]
    bare: list[Storm]

    def figures(self, name: str) -> dict[str, float]:
        """Ratios of wall and CPU time; of wall time only where the two bare storms agree."""
        wall, cpu = [], []
        for one, before, after in zip(self.recorded, self.bare, self.bare[1:], strict=False):
            cpu.append(2 * one.cpu_us / (before.cpu_us + after.cpu_us))
            if abs(before.wall_us - after.wall_us) <= BARE_DIFFER_MAX * min(before.wall_us, after.wall_us):
                wall.append(2 * one.wall_us / (before.wall_us + after.wall_us))
        kept = sorted(wall) or [float("nan")]
        return {
            f"{name}_ratio_median": median(kept),
            f"{name}_ratio_quarter": kept[len(kept) // 4],
            f"{name}_ratio_three_quarters": kept[len(kept) * 3 // 4],
            f"{name}_cpu_ratio_median": median(cpu),
            f"{name}_pairs": len(wall),
            f"{name}_pairs_left_out": len(cpu) - len(wall),
            f"{name}_bare_us": median(one.wall_us for one in self.bare),
        }


class Reader:
    """A process that takes what is in the ring every 10 ms and does nothing with it, and sleeps while it is not wanted."""

    def __init__(self, pin_dir: Path, ring: Ring) -> None:
        self._ring = ring
        self._process = subprocess.Popen([sys.executable, "-c", READER, str(pin_dir)], cwd=ROOT)
        self._catch_up()
        self._process.send_signal(signal.SIGSTOP)

    def _catch_up(self) -> None:
        wait_until(lambda: self._ring.consumer() == self._ring.producer(), "the reader taking what is in the ring")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """It reads for as long as this lasts, and begins with an empty ring."""
        self._process.send_signal(signal.SIGCONT)
        self._catch_up()
        yield
        self._process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


def cost(place: Place, directory: Path, pairs: int) -> dict[str, float]:
    """What the programs cost a storm of two workers, alone and with a reader, and one of one worker that stays on one CPU."""
    two = [str(directory / "storm"), "COUNT", "2", str(directory / "tiny")]
    one = ["taskset", "-c", str(max(os.sched_getaffinity(0))), str(directory / "storm"), "COUNT", "1", str(directory / "tiny")]
    programs = Programs(place)
    reader = Reader(place.pin_dir, programs.ring)
    measured = {name: Pairs([], []) for name in ("kernel", "reader", "pinned")}
    try:
        for _ in range(3):
            storm(two)
        for name, command in (("pinned", one), ("kernel", two), ("reader", two)):
            measured[name].bare.append(storm(command))
            for _ in range(pairs):
                with programs.attached():
                    if name == "reader":
                        with reader.reading():
                            measured[name].recorded.append(storm(command))
                    else:
                        measured[name].recorded.append(storm(command))
                measured[name].bare.append(storm(command))
            with reader.reading():
                pass
        figures = programs.run_us(one)
    finally:
        reader.close()
        programs.close()
    for name, taken in measured.items():
        figures |= taken.figures(name)
    return figures
