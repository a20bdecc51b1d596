"""What decoding, joining and row building cost per event, in ratio to unpacking the same records with ``struct`` alone.

    python -m tests.bench.bench_join [--processes N] [--rounds N] [--out FILE] [--profile]

The stream is a build's: in a login shell ``make`` starts shells, each of which starts a compiler; fork, exec and exit of every
process, chains of about 8 images. Both ways are timed in turn in the same run, in CPU time of the process; medians count.
"""

import argparse
import cProfile
import gc
import json
import pstats
import random
import sys
from pathlib import Path
from statistics import median
from time import process_time

from schemas.batch import Batch, decode_batch, encode_batch, frames
from schemas.events import LAYOUT, Kind, decode_record
from schemas.rows import ImageRow
from streams.join import HostState, apply
from tests.sim.channel import batches, lay
from tests.sim.host import Host, Process

BATCH_RECORDS = 400
ROUNDS_MIN = 7


def build(processes: int) -> Host:
    """A host on which ``make`` runs: two processes for each compiled file."""
    rng = random.Random(1)
    host = Host(rng, pid_max=4_000_000)
    reader, _ = host.fork(host.init)
    host.exec(reader, comm=b"tasktrail")
    host.start_recorder(reader)
    top: Process = host.init
    for name in (b"sshd", b"sshd-session", b"bash", b"make"):
        top, _ = host.fork(top)
        host.exec(top, comm=name)
    for _ in range(processes // 2):
        shell, _ = host.fork(top)
        host.advance(400_000)
        host.exec(shell, comm=b"sh")
        host.advance(1_000_000)
        compiler, _ = host.fork(shell)
        host.advance(400_000)
        host.exec(compiler, comm=b"cc1")
        host.advance(rng.randrange(5_000_000, 400_000_000))
        host.exit(compiler, 0)
        host.exit(shell, 0)
    host.advance(1_000_000_000)
    host.clock()
    return host


def stream(host: Host) -> list[bytes]:
    """The host's batches as they are shipped."""
    log = lay(host)
    cuts = [[*range(0, len(placed), BATCH_RECORDS), len(placed)] for _, placed in log.rings]
    return [encode_batch(batch) for group in batches(log, cuts, random.Random(2)) for batch in group]


def join(log: list[bytes]) -> tuple[float, int]:
    """CPU seconds and rows of decoding, joining and building rows of the whole stream."""
    state = HostState()
    rows = 0
    began = process_time()
    for data in log:
        rows += len(apply(state, decode_batch(data)))
    return process_time() - began, rows


def unpack(bodies: list[Batch]) -> float:
    """CPU seconds of unpacking the fixed part of every record with its struct and nothing else."""
    structs = {kind.value: LAYOUT[kind][0] for kind in Kind}
    known = [(batch.body, [(at, structs[batch.body[at]]) for at, _ in frames(batch.body)]) for batch in bodies]
    began = process_time()
    for body, places in known:
        for at, layout in places:
            layout.unpack_from(body, at)
    return process_time() - began


def decode(bodies: list[Batch]) -> float:
    """CPU seconds of turning every record into its values."""
    began = process_time()
    for batch in bodies:
        for at, size in frames(batch.body):
            decode_record(batch.body, at, size)
    return process_time() - began


def measure(processes: int, rounds: int) -> dict[str, float]:
    """The figures: per event in microseconds, ratios, events per second."""
    log = stream(build(processes))
    bodies = [decode_batch(data) for data in log]
    records = sum(1 for batch in bodies for _ in frames(batch.body))
    times: dict[str, list[float]] = {"join": [], "unpack": [], "decode": []}
    ratios = []
    rows = 0
    gc.freeze()
    for _ in range(max(rounds, ROUNDS_MIN)):
        seconds, rows = join(log)
        times["join"].append(seconds)
        times["unpack"].append(unpack(bodies))
        times["decode"].append(decode(bodies))
        ratios.append(times["join"][-1] / times["unpack"][-1])
    middle = {name: median(values) for name, values in times.items()}
    return {
        "events": records,
        "rows": rows,
        "rounds": len(ratios),
        "chain_elements": chain_elements(log),
        "unpack_us": middle["unpack"] / records * 1e6,
        "decode_us": middle["decode"] / records * 1e6,
        "join_us": middle["join"] / records * 1e6,
        "ratio": median(ratios),
        "events_per_second": records / middle["join"],
    }


def chain_elements(log: list[bytes]) -> float:
    """Mean length of the chains in the rows."""
    state = HostState()
    lengths = [len(row.chain_tgid) for data in log for row in apply(state, decode_batch(data)) if isinstance(row, ImageRow)]
    return sum(lengths) / max(1, len(lengths))


def main(arguments: list[str]) -> int:
    """Measure and print. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--processes", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args(arguments)
    if options.profile:
        log = stream(build(options.processes))
        profile = cProfile.Profile()
        profile.runcall(join, log)
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
        return 0
    figures = measure(options.processes, options.rounds)
    for name, value in figures.items():
        print(f"{name:18} {value:12,.2f}" if isinstance(value, float) else f"{name:18} {value:12,}")
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"bench": "join", **figures}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
