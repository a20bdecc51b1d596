"""Spare copies of the programs, for kernels that may preempt a program at a tracepoint.

While a program is preempted, the kernel does not run it for another task that comes to the same tracepoint on the same CPU, and counts that
(recursion_misses). From Linux 7.0 on this loses records. There a second copy is attached after the first one. It is another program to the
kernel, so it runs for such a task, finds in the once map that nobody recorded the event, and does. It has work space of its own, for the
preempted first copy is still using the other. Where both are preempted on one CPU, a third task's event is lost, and counted. A rename of a
process that is not in the once map is left to the first copy.
"""

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from producers.bpf import pins, probes, source, syscall
from producers.bpf.source import SpareCount

_POSSIBLE_CPUS = Path("/sys/devices/system/cpu/possible")


class Spares(NamedTuple):
    """Loaded spare copies: descriptors by function name, and of the array with their numbers."""

    descriptors: dict[str, int]
    counts: int


def load(program: source.Program, maps: Mapping[str, int], epoch: int, *, direct: bool) -> Spares:
    """Compiles and loads them. ``maps`` are the descriptors that the first copies were given. Raises Unavailable when they are refused."""
    counts = syscall.create_map(syscall.PERCPU_ARRAY, 4, 8, len(SpareCount), name="tasktrail_spare")
    work = syscall.create_map(syscall.PERCPU_ARRAY, 4, source.EXEC_WORK_BYTES, 1, name="tasktrail_exec")
    own = {**maps, "EXEC_WORK_FD": work, "SPARE_COUNTS_FD": counts}
    descriptors = probes.load_spares(source.with_maps(program, own, epoch), program.types, direct)
    os.close(work)
    return Spares(descriptors, counts)


def attach(spares: Spares, pinned: Callable[[str, int], None]) -> None:
    """Attaches them, after the first copies, for the kernel runs programs in this order; each pin goes to ``pinned``."""
    pinned(pins.SPARE_COUNTS, spares.counts)
    for short, name in pins.SPARE_LINKS.items():
        function, tracepoint = source.TRACEPOINTS[short]
        link = syscall.attach_raw_tracepoint(spares.descriptors[function], tracepoint)
        pinned(pins.SPARE_PROGRAMS[short], spares.descriptors[function])
        pinned(name, link)
        os.close(link)


def close(spares: Spares) -> None:
    """Lets go of the descriptors."""
    for fd in (*spares.descriptors.values(), spares.counts):
        os.close(fd)


def possible_cpus() -> int:
    """CPUs that this kernel may ever have: a per-CPU value has one part for each."""
    return int(_POSSIBLE_CPUS.read_text().strip().replace(",", "-").rsplit("-", 1)[-1]) + 1


def read_counter(fd: int, index: int) -> int:
    """The sum over all CPUs of one number in a per-CPU array."""
    cpus = possible_cpus()
    data = syscall.lookup(fd, struct.pack("<I", index), 8 * cpus)
    assert data is not None
    return sum(struct.unpack(f"<{cpus}Q", data))


def skipped(programs: Mapping[str, int], spares: Mapping[str, int], counts: int | None) -> int:
    """How many events no copy had, by short name of the programs: never too few, and seldom more than there were.

    An event is lost only if the kernel skipped the first copy and no spare saved it; and only if it skipped the spare too, or the spare
    could not tell. So the smaller number holds. The first may count threads that the spare had nothing to do for, the second events that
    the first copy had.
    """
    total = 0
    for short, fd in programs.items():
        missed = syscall.program_info(fd).recursion_misses  # before what was saved of them, which grows meanwhile
        if counts is not None and short in spares:
            missed -= read_counter(counts, SpareCount[f"SAVED_{short.upper()}"])
            unsure = read_counter(counts, SpareCount[f"UNSURE_{short.upper()}"])
            missed = min(max(missed, 0), syscall.program_info(spares[short]).recursion_misses + unsure)
        total += missed
    return total
