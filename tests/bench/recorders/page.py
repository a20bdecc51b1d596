"""The results as a table for a terminal and as docs/recorders.md. Pure."""

from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from tests.bench.recorders.facts import KINDS, percent
from tests.bench.recorders.measure import DISTURBANCES, SWITCHED_OFF, Row
from tests.bench.recorders.storm import DISTURBED, WORKLOADS

HEAD = ("recorder", "row", "forks", "execs", "exits", "slowdown", "CPU µs", "bytes", "of its loss it says")
SLOWDOWN_AIM = 1.05
EXCESS_AIM = 0.25
CPU_AIM = 0.15
CPU_STORED_AIM = 0.35
PAGE = """# Beside other recorders

Written by `make bench-recorders` (`python -m tests.bench.recorders --help`), as root. Measured on {machine}.
Each storm makes {processes:,} processes; {rounds} rounds must count, and a few more are tried where some are dropped.

| recorder | version |
|---|---|
{versions}

## What the columns say

* **forks, execs, exits**: per cent of the storm's own list of pids that are not in what the recorder wrote, over all rounds. `-`:
  it does not record such events, or there were none. acct knows of a fork and an exec when the process has ended.
* **slowdown**: the storm's time to the mean of the bare storms before and after it, median of the rounds. A round whose two bare
  storms differ by more than 10 % is dropped; how many were is in brackets. `~`: the only round there is, and its bare storms
  differed. W1 and W2 are one and two workers; a child ends at once (fork) or becomes a program of three instructions (exec).
* **CPU µs, bytes**: what the recorder's processes and its kernel threads use, and what it has written, for each process of the
  storm, from its begin until the recorder has caught up. Reading the output afterwards (`perf script`, `ausearch`) is not in it,
  nor is what recording does within the storm's own processes, which is in the slowdown.
* **of its loss it says**: beside the events that are missing. True is what gives the very number.

## Undisturbed

{undisturbed}

## Disturbed

{disturbed_name} each: stopped by SIGSTOP for a second from a tenth of a second after the storm's begin; held to 10 % of a core
while the storm lasts; killed by `kill -9` and started again at once; its off switch thrown and left so.

{disturbed}

## Against the aims

{aims}

## How each is run

* auditd: Debian's `auditd.conf` and `audit.rules` but for where the logs lie and how many are kept (all: five of 8 MB would be
  overwritten within a storm), with a rule each for fork/vfork/clone/clone3, execve/execveat and exit/exit_group. The kernel counts
  lost *records*, of which an event has one to six. Between its storms a rule `never,task` takes off what the kernel does for audit
  once it was on.
* forkstat: `-e fork,exec,exit` into a file. extrace: `-f -t -o FILE`; an exec of which it names the pid alone counts as seen.
* bpftrace: a printf at the tracepoints sched_process_fork, _exec and _exit, default buffers. perf record: the same on all CPUs,
  default buffers; the lost records that it counts include those that it keeps to name processes.
* acct: `accton FILE`.
* tasktrail: defaults (a ring of 32 MiB). "To a file" is `record load` and `record dump`; `run` joins and stores in its
  own ClickHouse; "compiled" is the same, installed with TASKTRAIL_COMPILE=1.
"""


class Result(NamedTuple):
    """One recorder: its version, why it cannot run here if so, and its rows by name."""

    name: str
    version: str
    cannot: str
    rows: Mapping[str, Row]


def slowdown(row: Row) -> str:
    """The median and the dropped rounds."""
    if not row.ratios:
        return f"? [{row.dropped}]" if row.dropped else "-"
    doubted = row.cpu_us is None and row.dropped
    return f"{'~' if doubted else ''}{median(row.ratios):.2f}" + (f" [{row.dropped}]" if row.dropped and not doubted else "")


def cells(name: str, label: str, row: Row) -> list[str]:
    """The cells of a row that could be measured."""
    lost = [percent(*row.missing[kind]) if kind in row.missing else "-" for kind in KINDS]
    cpu = "" if row.cpu_us is None else f"{row.cpu_us:.1f}"
    written = "" if row.written is None else f"{row.written:,.0f}"
    return [name, label, *lost, slowdown(row), cpu, written, "; ".join(filter(None, (row.verdict, row.words)))]


def table(results: list[Result], names: list[str]) -> list[list[str]]:
    """All rows of these names, recorder by recorder."""
    lines = []
    for one in results:
        if one.cannot:
            lines.append([one.name, "all", *[""] * 6, f"cannot run here: {one.cannot}"])
        for name in names:
            if row := one.rows.get(name):
                lines.append([one.name, name, *[""] * 6, row.failed] if row.failed else cells(one.name, name, row))
    return lines


def markdown(lines: list[list[str]]) -> str:
    """A table of Markdown."""
    head = ["| " + " | ".join(HEAD) + " |", "|---|---|" + "---:|" * 6 + "---|"]
    return "\n".join([*head, *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)])


def terminal(lines: list[list[str]]) -> str:
    """A table for people's eyes; a recorder's name stands once."""
    shown, before = [list(HEAD)], ""
    for line in lines:
        shown.append(["" if line[0] == before else line[0], *line[1:]])
        before = line[0]
    widths = [max(len(line[column]) for line in shown) for column in range(len(HEAD))]
    out = []
    for line in shown:
        words = [
            cell.rjust(width) if 2 <= column < 8 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  ".join(words).rstrip())
    return "\n".join(out)


def _met(value: float, aim: float) -> str:
    return "met" if value <= aim else "**missed**"


def _aim_lines(name: str, one: Result, auditd: Result | None, cpu_aim: float) -> list[str]:
    lines = []
    for workload in WORKLOADS:
        row = one.rows.get(workload.name)
        if not row or not row.ratios:
            continue
        ratio = median(row.ratios)
        lines.append(f"| {name} | {workload.name}: slowdown | {ratio:.2f} | {SLOWDOWN_AIM} | {_met(ratio, SLOWDOWN_AIM)} |")
        theirs = auditd.rows.get(workload.name) if auditd else None
        if theirs and theirs.ratios and median(theirs.ratios) > 1:
            share = max(0.0, ratio - 1) / (median(theirs.ratios) - 1)
            lines.append(f"| {name} | {workload.name}: excess to auditd's | {share:.2f} | {EXCESS_AIM} | {_met(share, EXCESS_AIM)} |")
        if theirs and theirs.cpu_us and row.cpu_us is not None:
            share = row.cpu_us / theirs.cpu_us
            lines.append(f"| {name} | {workload.name}: CPU to auditd's | {share:.2f} | {cpu_aim} | {_met(share, cpu_aim)} |")
    measured = {label: row for label, row in one.rows.items() if not row.failed}
    lost = sum(missed for label, row in measured.items() if label != SWITCHED_OFF for missed, _ in row.missing.values())
    lines.append(f"| {name} | missing, all rows but the last | {lost:,} | 0 | {_met(lost, 0)} |")
    untrue = [label for label, row in one.rows.items() if row.failed or not row.honest]
    lines.append(f"| {name} | rows where what it says of its loss is not true | {', '.join(untrue) or '0'} | 0 | {_met(len(untrue), 0)} |")
    return lines


def aims(results: list[Result]) -> str:
    """Our own rows against what they should reach."""
    named = {one.name: one for one in results}
    lines = ["| recorder | figure | measured | aim | |", "|---|---|---:|---:|---|"]
    for name, cpu_aim in (
        ("tasktrail to a file", CPU_AIM),
        ("tasktrail run", CPU_STORED_AIM),
        ("tasktrail run compiled", CPU_STORED_AIM),
    ):
        if name in named and not named[name].cannot:
            lines += _aim_lines(name, named[name], named.get("auditd"), cpu_aim)
    return "\n".join(lines)


def page(results: list[Result], machine: str, processes: int, rounds: int) -> str:
    """docs/recorders.md."""
    return PAGE.format(
        machine=machine,
        processes=processes,
        rounds=rounds,
        versions="\n".join(f"| {one.name} | {one.version} |" for one in results),
        undisturbed=markdown(table(results, [one.name for one in WORKLOADS])),
        disturbed_name=f"A storm of {DISTURBED.name}",
        disturbed=markdown(table(results, list(DISTURBANCES))),
        aims=aims(results),
    )


def everything(results: list[Result]) -> str:
    """All that a terminal is shown."""
    rows = terminal(table(results, [*(one.name for one in WORKLOADS), *DISTURBANCES]))
    return f"{rows}\n\n{aims(results)}"
