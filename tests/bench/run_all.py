"""All benchmarks, one after another; the figures go to docs/benchmarks.md. Run by ``make bench``.

    python -m tests.bench.run_all [PART ...] [--results FILE]

With ``--results`` the figures are kept in a file, so that single parts can be measured again and the rest stays.

Machines differ and are shared: what counts are the ratios within one run, and whether anything was lost.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "join": ("Decode, join and rows, per event", ["tests.bench.bench_join"]),
    "host": ("A host that is recorded", ["tests.bench.bench_host"]),
    "long": ("Five million events, 500 living processes at any time", ["tests.bench.bench_long"]),
    "queries": ("Questions", ["tests.bench.bench_queries"]),
    "fleet": ("The fleet", ["tests.bench.bench_fleet"]),
}
MEANING = {
    "fixed_us": "struct unpacking of the fixed parts of the same records at known places, in microseconds an event",
    "fields_us": "finding the same records, struct unpacking, cutting out their texts",
    "decode_us": "decoding into values",
    "join_us": "decoding, joining and building rows",
    "ratio_to_fields": "of the latter to reading the fields with struct",
    "ratio_to_fixed": "of the same to the fixed parts alone",
    "events_per_second": "on one core",
    "programs_us": "in the programs for each process that is forked, execs a tiny program and ends, by the kernel's own statistics",
    "pinned_ratio_median": "a storm of fork+exec by one worker on one CPU, recorded and not read, to the same storm bare",
    "kernel_ratio_median": "a storm of fork+exec by two workers, recorded and not read, to the same storm bare",
    "kernel_cpu_ratio_median": "the same by the CPU time of the storm's processes",
    "kernel_pairs_left_out": "pairs whose two bare storms differ by more than a tenth",
    "reader_ratio_median": "the same storm while a process takes what is in the ring",
    "run_ratio": "the same storm while `tasktrail run` joins and stores it on the same CPUs",
    "run_cpu_us": "CPU time of `tasktrail run` for each process of the storm",
    "reader_anon_mib": "private memory of a process that reads the ring and does nothing else",
    "row_of_living_s": "seconds from a process's start to its queryable row, calm",
    "row_of_ended_s": "the same for a process that ends at once",
    "made_per_second": "processes that a storm made each second for 30 s, all of them recorded and stored",
    "stored_of_made": "share of them that is stored; more than 1 if somebody else ran the same program",
    "lost": "records that found no room",
    "behind_at_end_s": "seconds until all of them were stored",
    "bytes_per_row": "on disk, compressed",
    "memory_ratio": "private memory of the stream after all events, to that after a tenth of them",
    "server_ratio": "the same of its ClickHouse",
    "state_ratio": "the same of the saved state",
    "descendants_s": "everything that descends from X",
    "recursive_s": "the same by a recursive query over the creator links of the newest rows",
    "recursive_any_s": "the same over any rows, superseded and expired ones too",
    "descendants_ratio": "of recursive_s to descendants_s",
    "descendants_any_ratio": "of recursive_any_s to descendants_s",
    "history_s": "the history of a pid",
    "hosts_with_s": "which hosts ran X under Y",
    "direct_events_per_s": "decoded and joined in one process, no Kafka, no store",
    "direct_stored_events_per_s": "the same, and the rows stored by the sink",
    "worker_events_per_s": "through one worker: out of Kafka, joined, stored, states saved",
    "worker_us": "CPU time of the worker for each event",
    "two_workers_events_per_s": "through two workers; broker and ClickHouse on the same processors",
    "naive_events_per_s": "through one worker, one event in a message",
    "naive_us": "CPU time of the worker for each of those",
    "ratio_to_direct": "of worker_events_per_s to direct_events_per_s; the aim was 0.7",
    "ratio_to_direct_stored": "of the same to direct_stored_events_per_s",
    "ratio_to_naive": "of the same to naive_events_per_s",
    "two_to_one": "of two workers to one",
    "sink_rows_per_s": "rows into ClickHouse by the sink, 10,000 in each insert",
    "bare_rows_per_s": "the same rows, turned into columns beforehand, as Native by a bare client",
    "ratio_to_bare": "of the two, in turn",
    "batch_to_row_s": "seconds from a batch's sending to its last row's being found, at 1,000 events a second",
    "event_to_row_s": "the same from an event in the middle of the quarter second that a batch gathers",
    "event_to_row_p99_s": "the same, of all but a hundredth",
    "killed_owned_hosts": "hosts whose state a killed worker had",
    "recovery_s": "seconds until another worker had joined what these hosts sent after the kill",
    "recovery_beyond_session_s": "of these, beyond the session's 6 s of silence",
    "twice_none": "rows written a second time of a load of 980, without a fault",
    "twice_join": "when a worker came",
    "twice_kill": "when the busiest worker was killed",
    "twice_stop": "when it was asked to stop",
    "twice_hang": "when it hung for longer than its session",
    "twice_store_cut": "when the answer to an insert was lost",
    "descendants_share_read": "share of all rows that the server read for it",
    "history_at_s": "the history of a process by HOST:PID at a moment",
    "history_at_share_read": "share of all rows that were read for it",
    "rare_under_per_host_s": "who ran nc under bash, how often, per host: 1,000 images on 500 hosts",
    "rare_under_per_host_share_read": "share of all rows that were read for it",
    "common_under_per_host_s": "the same of curl under cron, on 960 hosts",
    "common_under_per_host_share_read": "share of all rows that were read for it",
    "frequent_under_per_host_s": "the same of cc1 under bash: 3,303,000 images, on every host",
    "frequent_under_per_host_share_read": "share of all rows that were read for it",
}


def figures(module: list[str]) -> dict[str, float]:
    """What a benchmark measured."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([sys.executable, "-m", *module, "--out", out.name], cwd=ROOT, check=True)
        measured: dict[str, float] = json.loads(Path(out.name).read_text().splitlines()[-1])
        return measured


def main(arguments: list[str]) -> int:
    """Run them and write the page. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, float]] = {}
    if options.results and options.results.exists():
        results = json.loads(options.results.read_text())
    for name in options.parts or PARTS:
        results[name] = figures(PARTS[name][1])
        if options.results:
            options.results.write_text(json.dumps(results))
    (ROOT / "docs" / "benchmarks.md").write_text(page(results))
    return 0


def page(results: dict[str, dict[str, float]]) -> str:
    """The page with these figures."""
    lines = [
        "# Measured",
        "",
        "By `make bench`, which writes this page. Ratios are within one run, medians throughout; the machine was shared.",
    ]
    lines += [
        "",
        f"Linux {platform.release().split('-')[0]}, {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} processors.",
        "",
    ]
    for name, (title, _) in PARTS.items():
        if name in results:
            lines += [f"## {title}", "", "| figure | value | meaning |", "|---|---:|---|"]
            lines += [f"| {figure} | {value:,.3f} | {MEANING.get(figure, '')} |" for figure, value in results[name].items()]
            lines += [""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
