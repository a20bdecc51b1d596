"""What decoding, joining and row building cost per event, in ratio to unpacking the same records with ``struct`` alone.

    python -m tests.bench.bench_join [--processes N] [--rounds N] [--out FILE]

The stream is a build's: in a login shell ``make`` starts shells, each of which starts a compiler; fork, exec and exit of every
process with the paths and arguments that such programs have, chains of about 7 images. All ways are timed in turn in the same run,
in CPU time of the process and with the cyclic collector off, as ``run`` has it; medians count.

    fields   what is compared with: each record found by its frame, its fixed part unpacked by its struct, the bytes of each text cut out
    fixed    the fixed parts alone, at places known beforehand: no reader can be that fast, for it must find the records first
"""

import argparse
import gc
import json
import random
import struct
import sys
from operator import truediv
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from schemas.batch import Batch, decode_batch, encode_batch, frames
from schemas.events import LAYOUT, Kind, decode_record
from schemas.rows import ImageRow
from streams.join import HostState, apply
from tests.sim.channel import batches, lay
from tests.sim.host import Host, Process

BATCH_RECORDS = 400
ROUNDS_MIN = 7

WARNINGS = [b"-W%d" % number for number in range(12)]
DIRECTORIES = 40


class BuildHost(Host):
    """A host whose programs are those of a build: 40 directories, a source file for each compiler."""

    def _program(self, process: Process, tid: int) -> dict[str, Any]:
        """As the host's, but for what program it is."""
        program = super()._program(process, tid)
        number = self.rng.randrange(1_000_000)
        directory = b"/home/user/src/project/module%d" % (number % DIRECTORIES)
        source = b"source_file_%d" % number
        is_shell = process.parent is not None and process.parent.comm == b"make"
        compile_ = [b"/usr/bin/cc", *WARNINGS, b"-O2", b"-g", b"-I../include", b"-c", b"-o", source + b".o", source + b".c"]
        if is_shell:
            exe, argv = b"/usr/bin/dash", [b"/bin/sh", b"-c", b" ".join(compile_)]
        else:
            exe, argv = b"/usr/libexec/gcc/x86_64-linux-gnu/14/cc1", [b"cc1", b"-quiet", *compile_[1:], b"-o", b"/tmp/cc%d.s" % number]
        return program | {
            "flags": 0,
            "exe_inode": 1000 + is_shell,
            "exe_generation": 7,
            "cgroup_id": 4321,
            "argc": len(argv),
            "argv_bytes": sum(map(len, argv)) + len(argv),
            "argv": tuple(argv),
            "filename": exe,
            "interp": b"",
            "exe": exe,
            "cwd": directory,
            "cgroup": b"session-2.scope",
            "tty": b"pts/0",
        }


def build(processes: int) -> Host:
    """A host on which ``make`` runs: two processes for each compiled file."""
    rng = random.Random(1)
    host = BuildHost(rng, pid_max=4_000_000)
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


def unpack_fixed(bodies: list[Batch]) -> float:
    """CPU seconds of unpacking the fixed part of every record with its struct and nothing else, at places known beforehand."""
    structs = {kind.value: LAYOUT[kind][0] for kind in Kind}
    known = [(batch.body, [(at, structs[batch.body[at]]) for at, _ in frames(batch.body)]) for batch in bodies]
    began = process_time()
    for body, places in known:
        for at, layout in places:
            layout.unpack_from(body, at)
    return process_time() - began


def unpack_fields(bodies: list[Batch]) -> float:
    """CPU seconds of a plain loop that finds each record, unpacks its fixed part and cuts out the texts of an EXEC; nothing is kept."""
    structs = {kind.value: LAYOUT[kind][0] for kind in Kind}
    frame, exec_ = struct.Struct("<II"), Kind.EXEC.value
    began = process_time()
    for batch in bodies:
        body = batch.body
        at, end = 0, len(body)
        while at < end:
            size = frame.unpack_from(body, at)[0]
            at += frame.size
            kind = body[at]
            values = structs[kind].unpack_from(body, at)
            if kind == exec_:
                texts = []
                start = at + structs[kind].size
                for length in values[-8:]:
                    texts.append(body[start : start + length])
                    start += length
            at += size + 7 & ~7
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
    times: dict[str, list[float]] = {"fixed": [], "fields": [], "decode": [], "join": []}
    rows = 0
    gc.collect()
    gc.disable()
    for _ in range(max(rounds, ROUNDS_MIN)):
        times["fixed"].append(unpack_fixed(bodies))
        times["fields"].append(unpack_fields(bodies))
        times["decode"].append(decode(bodies))
        seconds, rows = join(log)
        times["join"].append(seconds)
    gc.enable()
    middle = {name: median(values) for name, values in times.items()}
    return {
        "events": records,
        "rows": rows,
        "rounds": len(times["join"]),
        "chain_elements": chain_elements(log),
        **{f"{name}_us": seconds / records * 1e6 for name, seconds in middle.items()},
        "ratio_to_fields": median(map(truediv, times["join"], times["fields"])),
        "ratio_to_fixed": median(map(truediv, times["join"], times["fixed"])),
        "events_per_second": records / middle["join"],
        "events_per_second_best": records / min(times["join"]),
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
    options = parser.parse_args(arguments)
    figures = measure(options.processes, options.rounds)
    for name, value in figures.items():
        print(f"{name:18} {value:12,.2f}" if isinstance(value, float) else f"{name:18} {value:12,}")
    if options.out:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"bench": "join", **figures}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
