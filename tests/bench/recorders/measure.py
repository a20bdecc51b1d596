"""One recorder through all its rows: undisturbed on each workload, then disturbed."""

import select
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.bench.recorders.facts import Said, Seen, Truth, add, compare, is_true, missing, verdict
from tests.bench.recorders.recorder import CAP_CORES, CannotRun, Recorder
from tests.bench.recorders.storm import DISTURBED, WORKLOADS, Workload, storm

STOPPED_S = 1.0
FURTHER_SHARE = 0.6
"""When rounds are dropped, so many more are tried, as a share of those wanted."""
Missing = dict[str, tuple[int, int]]


class Plan(NamedTuple):
    """How much is measured, and where the storm's programs and everything temporary lie."""

    directory: Path
    processes: int
    rounds: int
    disturbed_rounds: int = 1


@dataclass(slots=True)
class Row:
    """A row of the table, as it is kept in the results file.

    missing   events not seen and events that there were, of each kind that the recorder records, over all rounds
    ratios    slowdowns of the rounds that count
    dropped   rounds that do not
    cpu_us    CPU time of the recorder for each process of the storm, median; None where it was disturbed
    written   bytes for each process of the storm, median
    verdict   what it says of its loss beside the truth
    honest    whether that is true
    words     what it says besides
    failed    why there are no figures
    """

    missing: Missing = field(default_factory=dict)
    ratios: list[float] = field(default_factory=list)
    dropped: int = 0
    cpu_us: float | None = None
    written: float | None = None
    bare_us: float | None = None
    verdict: str = ""
    honest: bool = False
    words: str = ""
    failed: str = ""


class Storm(NamedTuple):
    """What one recorded storm gave."""

    truth: Truth
    seen: Seen
    said: Said
    cpu_s: float
    written: int


class Disturbance(NamedTuple):
    """What is done to a recorder before, during and after a storm."""

    before: Callable[[Recorder], None]
    during: Callable[[Recorder], None] | None
    after: Callable[[Recorder], None]


@contextmanager
def session(kind: type[Recorder], plan: Plan) -> Iterator[Recorder]:
    """A recorder in an empty directory, started; nothing of it is left afterwards."""
    directory = Path(tempfile.mkdtemp(dir=plan.directory))
    directory.chmod(0o755)
    recorder = kind(directory)
    try:
        recorder.start()
        yield recorder
    finally:
        recorder.close()
        shutil.rmtree(directory, ignore_errors=True)


def recorded(kind: type[Recorder], plan: Plan, workload: Workload, disturb: Disturbance) -> Storm:
    """A storm while the recorder runs."""
    with session(kind, plan) as recorder:
        recorder.drain()
        cpu_s, written = recorder.cpu_s(), recorder.written()
        disturb.before(recorder)
        during = disturb.during
        truth = storm(plan.directory, workload, plan.processes, (lambda: during(recorder)) if during else None)
        disturb.after(recorder)
        recorder.drain()
        spent_s = recorder.cpu_s() - cpu_s
        seen, said = recorder.finish()
        return Storm(truth, seen, said, spent_s, recorder.written() - written)


def _stop(recorder: Recorder) -> None:
    recorder.pause()
    select.select([], [], [], STOPPED_S)
    recorder.resume()


def _kill(recorder: Recorder) -> None:
    recorder.kill()
    recorder.restart()


def _nothing(_: Recorder) -> None:
    return


LEFT_ALONE = Disturbance(_nothing, None, _nothing)
DISTURBANCES = {
    "stopped for 1 s": Disturbance(_nothing, _stop, _nothing),
    "capped to 10 % of a core": Disturbance(lambda one: one.cgroup.cap(CAP_CORES), None, lambda one: one.cgroup.cap(None)),
    "killed and restarted": Disturbance(_nothing, _kill, _nothing),
    "switched off": Disturbance(_nothing, lambda one: one.off(), _nothing),
}
SWITCHED_OFF = "switched off"


def _missing(kind: type[Recorder], workload: Workload, one: Storm) -> Missing:
    if workload.mode == "fork" and getattr(kind, "execs_only", False):
        return {}
    return missing(one.truth, one.seen)


def _row(kind: type[Recorder], workload: Workload, storms: list[Storm], bare: list[float], plan: Plan) -> Row:
    rounds = compare(bare, [one.truth.wall_s for one in storms])
    lost = add(_missing(kind, workload, one) for one in storms)
    counts = [one.said.lost for one in storms if one.said.lost is not None]
    last = storms[-1].said
    said = last._replace(lost=sum(counts) if counts else None, bounded=any(one.said.bounded for one in storms))
    return Row(
        lost,
        rounds.ratios,
        rounds.dropped,
        median(one.cpu_s for one in storms) * 1e6 / plan.processes,
        median(one.written for one in storms) / plan.processes,
        median(bare) * 1e6 / plan.processes,
        verdict(lost, said),
        is_true(lost, said),
        said.words,
    )


def undisturbed(kind: type[Recorder], plan: Plan, workload: Workload) -> Row:
    """Recorded storms between bare ones, until enough of them count."""
    bare = [storm(plan.directory, workload, plan.processes).wall_s]
    storms: list[Storm] = []
    tried_max = plan.rounds + round(plan.rounds * FURTHER_SHARE)
    while len(storms) < tried_max and len(compare(bare, [1.0] * len(storms)).ratios) < plan.rounds:
        storms.append(recorded(kind, plan, workload, LEFT_ALONE))
        bare.append(storm(plan.directory, workload, plan.processes).wall_s)
    return _row(kind, workload, storms, bare, plan)


def disturbed(kind: type[Recorder], plan: Plan, name: str) -> Row:
    """Storms in which the recorder is disturbed; each between two bare ones, too."""
    if name == SWITCHED_OFF and not kind.switch:
        return Row(failed="has no such switch")
    if name != SWITCHED_OFF and not kind.has_process:
        return Row(failed="has no process")
    bare = [storm(plan.directory, DISTURBED, plan.processes).wall_s]
    storms = []
    try:
        for _ in range(plan.disturbed_rounds):
            storms.append(recorded(kind, plan, DISTURBED, DISTURBANCES[name]))
            bare.append(storm(plan.directory, DISTURBED, plan.processes).wall_s)
    except (CannotRun, AssertionError) as why:
        return Row(failed=str(why))
    row = _row(kind, DISTURBED, storms, bare, plan)
    row.cpu_us = row.written = None
    if row.dropped:
        # One storm is too few to drop it: the figure stays, marked by its count of dropped rounds.
        row.ratios = [2 * one.truth.wall_s / (before + after) for one, before, after in zip(storms, bare, bare[1:], strict=False)]
    return row


ROWS = (*(one.name for one in WORKLOADS), *DISTURBANCES)


def measure(kind: type[Recorder], plan: Plan, names: Collection[str], keep: Callable[[str, dict[str, Row]], None]) -> None:
    """Measures these rows of a recorder; ``keep`` is given why it cannot run here, or an empty text, and each row when it is there."""
    try:
        with session(kind, plan):
            pass
        keep("", {})
        for workload in WORKLOADS:
            if workload.name in names:
                keep("", {workload.name: undisturbed(kind, plan, workload)})
    except CannotRun as why:
        keep(str(why), {})
        return
    for name in DISTURBANCES:
        if name in names:
            keep("", {name: disturbed(kind, plan, name)})
