"""What came of the kernels, in words and as the page docs/kernels.md."""

from collections import Counter
from collections.abc import Sequence

from tests.kernels.guest import MEMORY, Outcome, Test

COLUMNS = {
    "boot": "first thing at boot",
    "test_layout": "offsets",
    "test_compare": "fields against /proc",
    "test_endings": "endings",
    "test_family": "creators",
    "test_snapshot": "iterator",
    "test_storm": "full ring",
    "test_handovers": "handover",
    "preempted": "preemption",
}
"""Test module in the guest → what its column is called. Two are not called test_…, since they can run nowhere else."""

_HEAD = f"""# Other kernels

`make test-kernels` boots Debian's cloud kernels under qemu, without KVM, with {MEMORY} of memory, and runs the recorder in each of them.
`make test-kernels KERNELS="5.10 6.1"` boots only those. `--table docs/kernels.md` writes
this page, with what came of each kernel when it was booted last. A guest takes two to five minutes, by how busy the machine is.

The packages come from where this machine's own apt gets its own; a release that is not served there is "not to be had". The guests'
root file system is the machine's own release, made by mmdebstrap. Both are kept in `$TASKTRAIL_CACHE`, else in `tasktrail/kernels` in the
user's cache directory. The job goes in and the results come out as tars on disks; the console and the outcome are kept beside the
packages, so that a run that is stopped loses no kernel's row. One recorder, the one that was loaded at boot, serves all tests in a guest.
It needs qemu-system-x86, qemu-system-arm, mmdebstrap, e2fsprogs and zstd, and for arm64 gcc-aarch64-linux-gnu and libc6-dev-arm64-cross.

A number is how many tests passed there, after a stroke how many there were if not all did; `-`: none was run, or there was none yet when
the guest was booted. Seconds are those of the whole guest.

"""

_FOOT = """
What the columns say:

* **form**: *direct* where the programs at tracepoints read the kernel's structs by loads (tp_btf, from 5.11 on), *raw* where they do it by
  helper calls at raw tracepoints. The loader tries the first and takes the second; both give the same records.
* **first thing at boot**: the recorder is loaded by the first process before all else, then the boot goes on with services, daemons and
  short-lived helpers. Every process since is recorded (no pid between the first and the last is missing), those before are seen.
* **offsets**: every member offset in the generated text and the loaded programs is that of this kernel's BTF; the programs at tracepoints
  read directly.
* **fields against /proc**: all fields of exec records and snapshots for every kind of process, against /proc.
* **endings**, **creators**: exit statuses against wait(2), creators against what the programs themselves say.
* **iterator**: the snapshot has every process that /proc has; what was lost is found again with its creator.
* **full ring**: what a full ring refused is counted exactly.
* **handover**: another version is loaded by the command while storms go on: every process once, none missing.
* **preemption**: real-time processes interrupt a storm all the time: every record is there once, or was counted as skipped.
* **skips**: how often, by the kernel's own counts, neither a program nor its second copy was run in the whole guest; each may be a lost
  record, and Tasktrail reports it as one.

What the kernels do differently, as far as it shows:

* **5.10** has no `bpf_get_current_task_btf`, which came with 5.11, so the raw form is taken.
* **A program run by a descriptor alone** (`fexecve`) has that descriptor's number for its comm on 5.10, and the file's name on 6.1.176.
  The record has the kernel's own comm in both cases, and the file is in `exe`.
* **From 7.0 on a program at a tracepoint may be preempted** ("tracing: Guard __DECLARE_TRACE() use of __DO_TRACE_CALL() with SRCU-fast").
  If another task then comes to the same tracepoint on the same CPU, the kernel skips the program for it and counts that
  (`recursion_misses`). So there, and only there, every program has a second copy attached after it: another program to the kernel, which
  does what the once map shows as not done. Where both copies are preempted on one CPU, what a third task does is lost, and reported as
  *skipped*: a loss with its interval, after which a snapshot is taken. That number is never too small; it may count a few events that
  were recorded, or threads, which have no record. Disabling preemption in the program (`bpf_preempt_disable`) would not help: the kernel
  makes up for what was asked meanwhile when it is enabled again, which is still in the program.
* **What that saves**, in an emulated 7.2.13, with storms on one CPU that two real-time processes interrupt every 300 and 500 µs: of
  18,000 records 213 were lost with one copy, and 1 with two. In the test, of 10,800 records the first copies were skipped for 135, none
  was lost and 2 were counted; another time 148, 2 and 12. Without the real-time processes one copy lost up to 13 of 6,000. On 6.18,
  where second copies were forced, they took 0.13 µs at a fork, 0.2 µs at an exec and 0.12 µs at an exit, and a storm took as long as
  before. How often programs are preempted without emulation was not measured.

`tests/unit/test_btf_of_kernels.py` needs no guest: it holds every offset for each of these kernels against what gcc finds in the C that
bpftool writes of the kernel's types. `python -m tests.kernels.types` writes those files anew.
"""


def sentence(outcome: Outcome) -> str:
    """One line for a terminal."""
    name = f"{outcome.kernel.name}: {outcome.problem}" if outcome.problem else f"{outcome.kernel.name}: {outcome.package}, {outcome.form}"
    if not outcome.tests:
        return name
    counts = f"{outcome.passed} passed, {len(outcome.failed)} failed, {len(outcome.skipped)} skipped"
    return f"{name}: {counts} in {outcome.seconds:.0f} s"


def _column(test: Test) -> str:
    module = test.name.split("::")[0].rsplit(".", 1)[-1]
    return COLUMNS.get(module, "others")


def _row(outcome: Outcome) -> str:
    name = f"{outcome.kernel.name} | {outcome.package or '-'} | {outcome.form or '-'}"
    all_of = Counter(map(_column, outcome.tests))
    passed = Counter(_column(test) for test in outcome.tests if not test.failure and not test.skipped)
    cells = [str(passed[name]) if passed[name] == all_of[name] else f"{passed[name]}/{all_of[name]}" for name in COLUMNS.values()]
    cells = [cell if all_of[name] else "-" for name, cell in zip(COLUMNS.values(), cells, strict=True)]
    result = "passed" if outcome.good else outcome.problem.replace("|", "/") or f"{len(outcome.failed)} failed"
    return f"| {name} | {result} | " + " | ".join(cells) + f" | {'-' if outcome.skips is None else outcome.skips} | {outcome.seconds:.0f} |"


def page(outcomes: Sequence[Outcome]) -> str:
    """The page: a row for each kernel, then everything that failed or was left out."""
    lines = ["| kernel | package | form | result | " + " | ".join(COLUMNS.values()) + " | skips | seconds |"]
    lines.append("|---" * (len(COLUMNS) + 6) + "|")
    lines += [_row(outcome) for outcome in outcomes]
    for title, chosen in (("Failed", "failed"), ("Left out", "skipped")):
        found = [(outcome.kernel.name, test) for outcome in outcomes for test in getattr(outcome, chosen)]
        if found:
            lines += ["", f"{title}:", ""]
            lines += [f"* {name}: {test.name.split('::')[1]}: {(test.failure or test.skipped).splitlines()[0]}" for name, test in found]
    return _HEAD + "\n".join(lines) + "\n" + _FOOT
