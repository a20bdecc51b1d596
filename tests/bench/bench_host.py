"""What recording costs a host, and how soon and how fast what happens can be asked for. Needs root and BPF.

    python -m tests.bench.bench_host [--pairs N] [--cost-only] [--out FILE]

The recorder's own cost is that of tests.bench.storms: ``kernel_`` with its programs attached and nobody reading, ``reader_`` with a
process that takes what is in the ring, ``pinned_`` the same as kernel for one worker that stays on one CPU, which disturbs least.
The rest runs through ``tasktrail run`` and its own ClickHouse; ``run_ratio`` is what a storm takes with all of that on the same CPUs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.bench.storms import cost, storm
from tests.e2e.running import ROOT, Place, Run, wait_until

STORM_PROCESSES = 3000
CALM_PROBES = 9
BUSY_S = 30.0
WORKERS = "2"


def programs(directory: Path) -> Path:
    """The storm and the tiny program that it execs, compiled."""
    for name, options in (("storm", ["-pthread"]), ("tiny", ["-nostdlib", "-static"])):
        source = ROOT / "tests" / "kernel" / "programs" / f"{name}.c"
        subprocess.run(["gcc", "-O1", *options, "-o", str(directory / name), str(source)], check=True)
    return directory


def latency(place: Place) -> dict[str, float]:
    """Seconds from a process's start to its row, at a calm rate; a process that lives on, and one that ends at once."""
    living, ended = [], []
    for _ in range(CALM_PROBES):
        began = time.monotonic()
        sleeper = subprocess.Popen(["/bin/sleep", "30"])
        place.wait_stored(sleeper.pid)
        living.append(time.monotonic() - began)
        sleeper.kill()
        sleeper.wait()
        began = time.monotonic()
        short = subprocess.Popen(["/bin/true"])
        short.wait()
        place.wait_stored(short.pid)
        ended.append(time.monotonic() - began)
    return {"row_of_living_s": median(living), "row_of_ended_s": median(ended)}


def memory_mib(pid: int, name: str = "VmRSS") -> float:
    """Resident memory of a process; RssAnon leaves out shared pages such as the ring's."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy(place: Place, run: Run, directory: Path) -> dict[str, float]:
    """Processes a second that a storm makes for 30 s, all of them stored and none lost; and what was needed for it."""
    before = memory_mib(run.pid, "RssAnon"), memory_mib(run.server())
    began, made = time.monotonic(), 0
    spent_s = cpu_s(run.pid), cpu_s(run.server())
    while time.monotonic() - began < BUSY_S:
        storm([str(directory / "storm"), "COUNT", WORKERS, str(directory / "tiny")], STORM_PROCESSES)
        made += STORM_PROCESSES
    passed = time.monotonic() - began
    place.caught_up()
    behind = time.monotonic() - began - passed
    ((stored,),) = place.query("SELECT count() FROM current_images WHERE comm = 'tiny'")
    ((size, rows),) = place.query("SELECT sum(data_compressed_bytes), sum(rows) FROM system.parts WHERE active AND table = 'images'")
    return {
        "made_per_second": made / passed,
        "stored_of_made": stored / made,
        "lost": place.status()["lost"],
        "behind_at_end_s": behind,
        "run_cpu_us": (cpu_s(run.pid) - spent_s[0]) * 1e6 / made,
        "server_cpu_us": (cpu_s(run.server()) - spent_s[1]) * 1e6 / made,
        "run_anon_mib_before": before[0],
        "run_anon_mib_after": memory_mib(run.pid, "RssAnon"),
        "server_mib_before": before[1],
        "server_mib_after": memory_mib(run.server()),
        "bytes_per_row": size / max(1, rows),
    }


def reader_mib(place: Place) -> float:
    """Private memory of a process that has the ring mapped and reads it, and nothing else."""
    program = (
        "import sys; from pathlib import Path; from producers.recorder import Recorder\n"
        "recorder = Recorder(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])); recorder.ring.stretch(1 << 20)\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('RssAnon')][0])"
    )
    command = [sys.executable, "-c", program, str(place.pin_dir), str(place.run_dir / "snapshots"), str(place.state_dir)]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout) / 1024


def whole(place: Place, directory: Path, bare_us: float) -> dict[str, float]:
    """Everything that runs through ``tasktrail run``; ``bare_us`` is what a process of a storm takes without it."""
    run = place.start()
    wait_until(run.server, "a ClickHouse")
    figures = {"reader_anon_mib": reader_mib(place), **latency(place), **busy(place, run, directory)}
    return figures | {"run_ratio": 1e6 / figures["made_per_second"] / bare_us}


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=120)
    parser.add_argument("--cost-only", action="store_true", help="leave out what needs a store")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        built = programs(directory)
        place = Place(directory, TASKTRAIL_RING_BYTES="64MiB")
        try:
            figures |= cost(place, built, options.pairs)
            if not options.cost_only:
                figures |= whole(place, built, figures["kernel_bare_us"])
        finally:
            place.clear()
    for key, value in figures.items():
        print(f"{key:24} {value:12,.3f}")
    if options.out:
        options.out.write_text(json.dumps(figures) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
