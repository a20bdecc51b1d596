"""One boot: qemu with the kernel, three disks (root, job, results) and the console on a pipe."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from schemas.errors import Unavailable
from tests.kernels import images, packages

RESULT_BYTES = 16 << 20
MEMORY = "512M"
_MACHINES = {
    "amd64": ["qemu-system-x86_64", "-machine", "q35", "-cpu", "max"],
    "arm64": ["qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"],
}
_ENDED = re.compile(r"^(tests/\S+)\.py::(\S+) (PASSED|SKIPPED|FAILED|ERROR)(?: \((.*)\))?", re.MULTILINE)
"""What pytest -v says of one test."""
_CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


class Test(NamedTuple):
    """One test in a guest: its name, and how it failed or why it was left out, if so."""

    name: str
    failure: str = ""
    skipped: str = ""


class Outcome(NamedTuple):
    """What came of one kernel.

    kernel    how it was asked for
    package   what was booted; empty if it was not to be had
    version   the guest's /proc/version
    form      how the programs read there: "direct" as tp_btf programs by loads, "raw" as raw tracepoint programs by helper calls
    skips     how often the kernel did not run one of them (recursion misses), by its own count; None if nobody asked it
    tests     what ran there
    seconds   from the start of qemu to its end
    problem   why it did not run to its end, if it did not; ``tests`` are then what the console told
    stopped   whether that was because somebody stopped this program
    """

    kernel: packages.Kernel
    package: str = ""
    version: str = ""
    form: str = ""
    skips: int | None = None
    tests: tuple[Test, ...] = ()
    seconds: float = 0
    problem: str = ""
    stopped: bool = False

    @property
    def failed(self) -> list[Test]:
        """Tests that did not pass."""
        return [test for test in self.tests if test.failure]

    @property
    def skipped(self) -> list[Test]:
        """Tests that were left out in the guest, with the reason."""
        return [test for test in self.tests if test.skipped]

    @property
    def passed(self) -> int:
        """How many passed."""
        return len(self.tests) - len(self.failed) - len(self.skipped)

    @property
    def good(self) -> bool:
        """True if it ran and nothing failed."""
        return bool(self.passed) and not self.failed and not self.problem


def keep(outcome: Outcome) -> None:
    """Writes the outcome beside the packages, where the next run finds it. One that was stopped does not replace a whole one."""
    before = kept(outcome.kernel)
    if outcome.stopped and before and not before.problem:
        return
    _kept(outcome.kernel).write_text(json.dumps({**outcome._asdict(), "kernel": outcome.kernel.name}))


def kept(kernel: packages.Kernel) -> Outcome | None:
    """The outcome of the kernel's last boot, None if it was never booted here."""
    try:
        values = json.loads(_kept(kernel).read_text())
    except FileNotFoundError:
        return None
    return Outcome(**{**values, "kernel": kernel, "tests": tuple(Test(*one) for one in values["tests"])})


def _kept(kernel: packages.Kernel) -> Path:
    return packages.cache_dir() / f"outcome-{kernel.name}.json"


def _noted(junit: bytes) -> dict[str, str]:
    """What inside/boot.py and the recorder's fixture noted of the loaded programs."""
    return {str(one.get("name")): str(one.get("value")) for one in ElementTree.fromstring(junit).iter("property")}


def told(console: str) -> tuple[Test, ...]:
    """What a console says of the tests that ended, for a guest that did not come to its results."""
    found = []
    for path, name, ending, why in _ENDED.findall(console):
        failure = "the guest ended before it said how" if ending in ("FAILED", "ERROR") else ""
        skipped = (why or "the guest ended before it said why") if ending == "SKIPPED" else ""
        found.append(Test(f"{path.replace('/', '.')}::{name}", failure, skipped))
    return tuple(found)


def _tests(junit: bytes) -> tuple[Test, ...]:
    found = []
    for case in ElementTree.fromstring(junit).iter("testcase"):
        bad = [one.get("message") or one.tag for one in case if one.tag in ("failure", "error")]
        out = [one.get("message") or one.tag for one in case if one.tag == "skipped"]
        found.append(Test(f"{case.get('classname')}::{case.get('name')}", " ".join(bad), " ".join(out)))
    return tuple(found)


def _command(architecture: str, kernel: Path, initial: Path, disks: list[tuple[Path, str]]) -> list[str]:
    machine = _MACHINES[architecture]
    if shutil.which(machine[0]) is None:
        raise Unavailable(f"there is no {machine[0]} on this machine", "install what docs/kernels.md names")
    # KVM is left alone even where it is there: within another virtual machine it may stop in the middle, and tells nobody.
    command = [*machine, "-accel", "tcg,thread=multi", "-m", MEMORY, "-smp", "2", "-nic", "none"]
    words = f"console={_CONSOLES[architecture]} quiet loglevel=3 panic=-1 rdinit=/init"
    command += ["-display", "none", "-no-reboot", "-serial", "stdio", "-monitor", "none", "-kernel", str(kernel), "-initrd", str(initial)]
    command += ["-append", words]
    for path, options in disks:
        command += ["-drive", f"file={path},format=raw,if=virtio{options}"]
    return command


def boot(kernel: packages.Kernel, console: Path, seconds: float = 900, tests: Sequence[str] = ()) -> Outcome:
    """Boots the kernel with the job, waits for its end and reads the results; what the guest says is written to ``console``.

    Whatever keeps it from running is the outcome's problem.
    """
    try:
        files = packages.fetch(kernel)
    except Unavailable as failure:
        return Outcome(kernel, problem=f"not to be had: {failure.problem}")
    try:
        return _boot(kernel, files, console, seconds, tests)
    except Unavailable as failure:
        return Outcome(kernel, files.package, problem=failure.problem)


def _boot(kernel: packages.Kernel, files: packages.Files, console: Path, seconds: float, tests: Sequence[str]) -> Outcome:
    root = images.root_image(kernel.architecture)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        initial, job, results = directory / "initial", directory / "job.tar", directory / "results"
        images.initial_file_system(files, images.busybox_of(root), initial)
        images.job(kernel.architecture, job, tests)
        results.write_bytes(b"")
        os.truncate(results, RESULT_BYTES)
        disks = [(root, ",snapshot=on"), (job, ",readonly=on"), (results, "")]
        begin = time.monotonic()
        with console.open("wb") as said:
            guest = subprocess.Popen(
                _command(kernel.architecture, files.image, initial, disks), stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            cut_short = _wait(guest, seconds)
        outcome = Outcome(kernel, files.package, seconds=time.monotonic() - begin, stopped=cut_short == _STOPPED)
        found = _results(results)
    if cut_short or "junit.xml" not in found:
        said = console.read_text(errors="replace")
        problem = cut_short or ("ran no test" if found else f"gave no results: {_last_words(said)}")
        return outcome._replace(problem=problem, tests=told(said))
    junit = found["junit.xml"]
    noted, version = _noted(junit), found["version"].decode().strip()
    skips = int(noted["skips"]) if "skips" in noted else None
    return outcome._replace(version=version, form=noted.get("form", ""), skips=skips, tests=_tests(junit))


_STOPPED = "was stopped before its end"


def _wait(guest: subprocess.Popen[bytes], seconds: float) -> str:
    """Waits for the guest's end, or ends it; says why it did."""
    try:
        guest.wait(seconds)
        return ""
    except subprocess.TimeoutExpired:
        return f"did not end within {seconds:.0f} s"
    except KeyboardInterrupt:
        return _STOPPED
    finally:
        guest.kill()
        guest.wait()


def _results(disk: Path) -> dict[str, bytes]:
    """The files that the guest left on the disk, by name; none if it left no tar."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(disk) as tar:
            for entry in tar:
                if file := tar.extractfile(entry):
                    found[Path(entry.name).name] = file.read()
    except tarfile.TarError:
        return found
    return found


def _last_words(said: str) -> str:
    lines = [line for line in said.split("\n") if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
