"""`make test-kernels`: boots the kernels one by one, prints what came of each, writes the page if asked."""

import argparse
import signal
import sys
from pathlib import Path

from tests.kernels import guest, packages, page


def main() -> int:
    """Exit code 1 if a kernel that was to be had did not pass, or none was."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernels", description=__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help="of: " + " ".join(kernel.name for kernel in packages.KERNELS))
    parser.add_argument("--table", type=Path, help="file to write the last result of every kernel to")
    parser.add_argument("--seconds", type=float, default=900, help="the longest that one kernel may take")
    parser.add_argument("--test", action="append", default=[], help="run this in the guest and not the usual; keeps no result")
    chosen = parser.parse_args()
    known = {kernel.name: kernel for kernel in packages.KERNELS}
    if unknown := [name for name in chosen.kernels if name not in known]:
        parser.error(f"no kernel {' '.join(unknown)} here; there are {' '.join(known)}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcomes: list[guest.Outcome] = []
    for name in chosen.kernels or known:
        console = packages.cache_dir() / f"console-{name}.txt"
        outcome = guest.boot(known[name], console, chosen.seconds, chosen.test)
        if not chosen.test:
            guest.keep(outcome)
        if chosen.table:
            chosen.table.write_text(page.page([last for kernel in packages.KERNELS if (last := guest.kept(kernel))]))
        outcomes.append(outcome)
        print(page.sentence(outcome), flush=True)
        for test in outcome.failed:
            print(f"  failed: {test.name}: {test.failure.splitlines()[0]}", flush=True)
        if not outcome.good:
            print(f"  the guest's console: {console}", flush=True)
        if outcome.stopped:
            break
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(len(outcome.failed) + bool(outcome.problem) for outcome in outcomes)
    skipped = sum(len(outcome.skipped) for outcome in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    had = [outcome for outcome in outcomes if not outcome.problem.startswith("not to be had")]
    return int(not had or any(not outcome.good for outcome in had))


if __name__ == "__main__":
    sys.exit(main())
