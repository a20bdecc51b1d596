"""All recorders of processes that people use, and Tasktrail, on the same storm. Needs root. Run by ``make bench-recorders``.

    python -m tests.bench.recorders [--rounds N] [--processes N] [--only NAME,...] [--rows NAME,...] [--quick]
                                       [--results FILE] [--page FILE] [--show]

NAME is the begin of a recorder's name. With --results, what is measured is merged into FILE row by row, and the table is made of
all that FILE holds: so the recorders can be measured one by one. A full run writes docs/recorders.md.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.recorders import acct, audit, connector, machine, ours, page, storm, tracing
from tests.bench.recorders.measure import ROWS, Plan, Row, measure
from tests.bench.recorders.recorder import Recorder

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "recorders.md"
RECORDERS: tuple[type[Recorder], ...] = (
    ours.Reader,
    ours.Run,
    ours.RunCompiled,
    audit.Auditd,
    audit.AuditdNoWait,
    connector.Forkstat,
    connector.Extrace,
    tracing.Bpftrace,
    tracing.Perf,
    acct.Acct,
)
PROCESSES, ROUNDS = 20_000, 5
QUICK_PROCESSES, QUICK_ROUNDS = 8_000, 1


def chosen(only: str) -> list[type[Recorder]]:
    """The recorders whose name is one of these, or begins so where no name is."""
    kinds: list[type[Recorder]] = []
    for word in filter(None, only.split(",")):
        exact = [one for one in RECORDERS if one.name == word]
        found = exact or [one for one in RECORDERS if one.name.startswith(word)]
        if not found:
            raise SystemExit(f"no recorder is named {word!r}; there are: {'; '.join(one.name for one in RECORDERS)}")
        kinds += [one for one in found if one not in kinds]
    return kinds or list(RECORDERS)


def result(kind: type[Recorder], stored: dict[str, Any]) -> page.Result:
    """What the results file says of a recorder."""
    rows = {}
    for name, values in stored["rows"].items():
        missing = {what: (pair[0], pair[1]) for what, pair in values["missing"].items()}
        rows[name] = Row(**{**values, "missing": missing})
    return page.Result(kind.name, stored["version"], stored["cannot"], rows)


class Results:
    """The figures of all recorders, in a file if there is one: each row is merged in as soon as it is measured."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.stored: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}

    def keep(self, kind: type[Recorder], plan: Plan, cannot: str, rows: dict[str, Row]) -> None:
        """Adds rows of a recorder."""
        entry = self.stored.setdefault(kind.name, {"rows": {}})
        entry |= {"version": machine.version(kind.package), "cannot": cannot, "processes": plan.processes, "rounds": plan.rounds}
        entry["rows"] |= {name: asdict(row) for name, row in rows.items()}
        print(f"{kind.name}: {', '.join(rows) or cannot or 'runs here'}", file=sys.stderr)
        if self.path:
            self.path.write_text(json.dumps(self.stored, indent=1) + "\n")

    def all(self) -> list[page.Result]:
        """In the table's order."""
        return [result(kind, self.stored[kind.name]) for kind in RECORDERS if kind.name in self.stored]


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recorders", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, help=f"storms that must count for each row (default {ROUNDS})")
    parser.add_argument("--processes", type=int, help=f"of each storm (default {PROCESSES:,})")
    parser.add_argument("--only", default="", metavar="NAME,...", help="recorders, by the begin of their names")
    parser.add_argument(
        "--rows", default="", metavar="NAME,...", help=f"rows, by the begin of their names: {', '.join(ROWS)}".replace("%", "%%")
    )
    parser.add_argument("--quick", action="store_true", help="short storms, one round: three minutes, no page")
    parser.add_argument("--results", type=Path, help="file to merge the figures into")
    parser.add_argument("--page", type=Path, help="page to write (a full run: docs/recorders.md)")
    parser.add_argument("--show", action="store_true", help="measure nothing: the table and page of --results")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure, show and write. Returns the exit code."""
    chose = options(arguments)
    kinds = chosen(chose.only)
    results = Results(chose.results)
    wanted = [name for name in ROWS if any(name.startswith(word) for word in chose.rows.split(","))]
    if not chose.show:
        if os.geteuid():
            print("recorders need root: run this as root", file=sys.stderr)
            return 4
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything is cleaned up then, too
        os.environ["PATH"] += ":/usr/sbin:/sbin"
        machine.install()
        with tempfile.TemporaryDirectory(prefix="tasktrail-bench-") as name, machine.many_pids(), tracing.tracefs(), audit.calm():
            Path(name).chmod(0o755)
            storm.build(Path(name))
            processes = chose.processes or (QUICK_PROCESSES if chose.quick else PROCESSES)
            plan = Plan(Path(name), processes, chose.rounds or (QUICK_ROUNDS if chose.quick else ROUNDS))
            storm.storm(plan.directory, storm.DISTURBED, plan.processes)  # warms up
            for kind in kinds:
                measure(kind, plan, wanted, partial(results.keep, kind, plan))
    print(page.everything(results.all()))
    target = chose.page or (PAGE if not (chose.only or chose.rows or chose.quick or chose.show) else None)
    if target and results.stored:
        one = next(iter(results.stored.values()))
        target.write_text(page.page(results.all(), machine.facts(), one["processes"], one["rounds"]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
