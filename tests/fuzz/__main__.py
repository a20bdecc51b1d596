"""``make fuzz``: hostile bytes, seeded, so that every failure can be had again.

    python -m tests.fuzz [--cases N] [--seed S] [--jobs 2] [--only CASE]

Prints "N passed, 0 failed", or for each kind of failure the first one: seed, number of the case, bytes. Exit code 1 if any failed.
"""

import argparse
import multiprocessing
import sys
import time
from random import Random

from tests.fuzz.material import material
from tests.fuzz.targets import Fuzzer, survive
from tests.fuzz.working import Failure, work

SHOWN_BYTES = 4096


def report(seed: int, failures: list[Failure]) -> None:
    """The first failure of each kind."""
    shown: set[str] = set()
    for failure in failures:
        if failure.where in shown:
            continue
        shown.add(failure.where)
        alike = sum(other.where == failure.where for other in failures)
        print(f"\n{failure.target}: {failure.says}\n  at {failure.where}, {alike} alike")
        print(f"  again: python -m tests.fuzz --seed {seed} --only {failure.case}")
        print(f"  bytes: {failure.data[:SHOWN_BYTES].hex()}{' …' if len(failure.data) > SHOWN_BYTES else ''}")


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", type=int, help="one case, with its traceback")
    chosen = parser.parse_args()
    if chosen.only is not None:
        survive(Fuzzer(material()).case(Random(chosen.seed << 32 | chosen.only)).run)
        print("1 passed, 0 failed")
        return 0
    begin = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(chosen.jobs) as pool:
        done = pool.starmap(work, [(chosen.seed, first, chosen.jobs, chosen.cases) for first in range(chosen.jobs)])
    failures = sorted(failure for _, some in done for failure in some)
    report(chosen.seed, failures)
    print(f"{sum(passed for passed, _ in done)} passed, {len(failures)} failed (seed {chosen.seed}, {time.monotonic() - begin:.0f} s)")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
