"""All benchmarks, one after another; their tables go to docs/benchmarks.md, where the sentences stay. Run by ``make bench``.

    python -m tests.bench.run_all [PART ...]

A part that is named is measured again, the other tables stay as they are.

Machines differ and are shared: what counts are the ratios within one run, and whether anything was lost.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
PARTS = {
    "join": ("Decode, join and rows, per event", "tests.bench.bench_join"),
    "host": ("A host that is recorded", "tests.bench.bench_host"),
    "long": ("A long run, 500 living processes at any time", "tests.bench.bench_long"),
    "queries": ("Questions", "tests.bench.bench_queries"),
    "fleet": ("The fleet", "tests.bench.bench_fleet"),
}
MOMENTS = {"early": "at a tenth", "middle": "half", "end": "end"}
"""Figures of one name that end so are one line."""
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
    "run_anon_mib": "private memory of the stream",
    "run_files": "its open files",
    "server_mib": "memory of its ClickHouse, capped at 1 GiB",
    "state_bytes": "the saved state",
    "parts": "active parts of table images",
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


def figures(module: str) -> dict[str, float]:
    """What a benchmark measured."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([sys.executable, "-m", module, "--out", out.name], cwd=ROOT, check=True)
        measured: dict[str, float] = json.loads(Path(out.name).read_text().splitlines()[-1])
        return {name: value for name, value in measured.items() if not isinstance(value, str)}


def table(measured: dict[str, float]) -> str:
    """The figures, a line each; those of three moments in one."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in measured.items():
        stem, _, moment = name.rpartition("_")
        known = moment in MOMENTS
        rows.setdefault(stem if known else name, {})[moment if known else "end"] = value
    moments = [moment for moment in MOMENTS if any(moment in row for row in rows.values())]
    columns = list(MOMENTS.values()) if len(moments) > 1 else ["value"]
    lines = [f"| figure | {' | '.join(columns)} | meaning |", f"|---|{'---:|' * len(columns)}---|"]
    for name, row in rows.items():
        cells = [digits(row[moment]) if moment in row else "" for moment in moments]
        lines.append(f"| {name} | {' | '.join(cells)} | {MEANING.get(name, '')} |")
    return "\n".join(lines)


def digits(value: float) -> str:
    """As many as mean something: three, and the whole of what is larger."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def with_table(page: str, title: str, lines: str) -> str:
    """The page with this table below that title, instead of the one that is there."""
    at = f"{page}\n".find(f"\n## {title}\n")
    if at < 0:
        return f"{page.rstrip()}\n\n## {title}\n\n{lines}\n"
    end = page.find("\n## ", at + 1)
    section, rest = (page[at:end], page[end:]) if end >= 0 else (page[at:], "")
    changed, found = re.subn(r"(?:^\|.*\n?)+", lambda _: f"{lines}\n", section, count=1, flags=re.MULTILINE)
    return page[:at] + (changed if found else f"{section.rstrip()}\n\n{lines}\n") + rest


def with_machine(page: str) -> str:
    """The page with this machine's name."""
    kernel = platform.release().split("-")[0]
    machine = f"Linux {kernel}, {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} processors."
    return re.sub(r"^Linux \d.*processors\.$", machine, page, count=1, flags=re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Run them and write each table when it is measured. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART")
    for name in parser.parse_args(arguments).parts or PARTS:
        title, module = PARTS[name]
        PAGE.write_text(with_table(with_machine(PAGE.read_text()), title, table(figures(module))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
