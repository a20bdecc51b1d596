"""The storm: built, run, and its own list read."""

import os
import select
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tests.bench.recorders.facts import Truth

SOURCE = Path(__file__).with_name("storm.c")
TINY = Path(__file__).resolve().parents[2] / "kernel" / "programs" / "tiny.c"
HEAD = struct.Struct("<qq")
LINE = struct.Struct("<iiii")
SECONDS_MAX = 60.0
"""A storm that a recorder holds up for longer is ended, and what it had made until then is the truth."""
BEGUN_S = 0.1
"""A disturbance comes so long after a storm's begin."""
TINY_STATUS = 1
"""The program of an exec storm exits with its number of arguments, which an exec that failed does not."""


class Workload(NamedTuple):
    """What the children do, and how many workers make them."""

    mode: str
    workers: int

    @property
    def name(self) -> str:
        """Such as "exec W2"."""
        return f"{self.mode} W{self.workers}"


WORKLOADS = tuple(Workload(mode, workers) for mode in ("fork", "exec") for workers in (1, 2))
DISTURBED = Workload("exec", 2)


def build(directory: Path) -> None:
    """Compiles the storm and the program that it execs."""
    for source, options in ((SOURCE, ["-O2"]), (TINY, ["-O1", "-nostdlib", "-static"])):
        subprocess.run(["gcc", *options, "-o", str(directory / source.stem), str(source)], check=True)


def read_list(data: bytes, mode: str) -> Truth:
    """The truth from the storm's file. Raises AssertionError when a pid was given twice, for then sets prove nothing."""
    began_ns, ended_ns = HEAD.unpack_from(data)
    lines = [line for line in LINE.iter_unpack(data[HEAD.size :]) if line[0]]
    forks = frozenset(line[0] for line in lines)
    assert len(forks) == len(lines), "a pid was given twice in one storm; is pid_max too small?"
    execs = frozenset(line[0] for line in lines if line[2] and os.waitstatus_to_exitcode(line[3]) == TINY_STATUS)
    exits = frozenset(line[0] for line in lines if line[2])
    return Truth(forks, execs if mode == "exec" else frozenset(), exits, max(0, ended_ns - began_ns) / 1e9 or SECONDS_MAX)


def storm(directory: Path, workload: Workload, processes: int, disturb: Callable[[], None] | None = None) -> Truth:
    """Runs one to its end; ``disturb`` is called soon after its begin."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as listed:
        command = [directory / "storm", workload.mode, processes, workload.workers, listed.name, directory / "tiny"]
        child = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, start_new_session=True)
        assert child.stdout
        try:
            child.stdout.readline()
            if disturb:
                select.select([], [], [], BEGUN_S)
                assert child.poll() is None, "the storm is over before it could be disturbed; make it longer by --processes"
                disturb()
            code = child.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            code = 0
        finally:
            child.stdout.close()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        assert code == 0, f"the storm ended with {code}"
        return read_list(Path(listed.name).read_bytes(), workload.mode)
