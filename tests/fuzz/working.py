"""One worker of the loop: every so-many-th case, each with a limit of time, all with a limit of memory."""

import resource
import signal
import traceback
from random import Random
from types import FrameType
from typing import NamedTuple

from tests.fuzz.material import material
from tests.fuzz.targets import Fuzzer, survive

CASE_S = 3.0
"""No case may take longer; a good one takes a millisecond."""
MEMORY_BYTES = 3 << 30
"""Address space of a process: a case that wants more ends in MemoryError."""
GROWTH_KIB = 256 << 10
"""By so much may a process be larger after all cases than after the first thousand."""


class Failure(NamedTuple):
    """A case that ended in something else than values, rows or DecodeError."""

    case: int
    target: str
    says: str
    where: str
    data: bytes


class TooLong(Exception):
    """A case did not end."""


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TooLong


def try_case(fuzzer: Fuzzer, seed: int, number: int) -> Failure | None:
    """Run the case of that number."""
    case = fuzzer.case(Random(seed << 32 | number))
    signal.setitimer(signal.ITIMER_REAL, CASE_S)
    try:
        survive(case.run)
        fuzzer.neighbour_is_untouched()
    except Exception as wrong:
        last = traceback.extract_tb(wrong.__traceback__)[-1]
        return Failure(number, case.name, f"{type(wrong).__name__}: {wrong}"[:300], f"{last.filename}:{last.lineno}", case.data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def work(seed: int, first: int, step: int, cases: int) -> tuple[int, list[Failure]]:
    """Every ``step``-th case from ``first``: how many passed, and the failures."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _too_long)
    fuzzer, passed, failures, small = Fuzzer(material()), 0, list[Failure](), 0
    for number in range(first, cases, step):
        failure = try_case(fuzzer, seed, number)
        if failure is None:
            passed += 1
        else:
            failures.append(failure)
            fuzzer = Fuzzer(fuzzer.material)
        if number // step == 1000:
            small = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - small
    if small and grown > GROWTH_KIB:
        failures.append(Failure(-1, "all", f"the process grew by {grown} KiB", "memory", b""))
    return passed, failures
