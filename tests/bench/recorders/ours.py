"""Tasktrail: its recorder with a reader that writes batches to disk, and ``tasktrail run``, which joins and stores."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from producers.bpf import pins
from queries.recordings import batches
from schemas.batch import Batch, BatchKind, frames
from schemas.errors import DecodeError, TasktrailError
from schemas.events import HEAD, MARK, Kind, Mark
from tests.bench.recorders.facts import Said, Seen
from tests.bench.recorders.recorder import CannotRun, Recorder, wait_until
from tests.e2e.running import ROOT, TASKTRAIL, Place

STORED = "SELECT tgid, kind, end_kind, creator_tgid FROM current_images WHERE comm IN ('storm', 'tiny')"
LOSSES = "SELECT cause, amount FROM current_losses WHERE begin_boottime > 0 AND cause NOT IN ('rename_dropped', 'argv_shortened')"
COMPILED = ROOT / "build" / "compiled"
CAUGHT_UP_TRIES = 4
CAUGHT_UP_S = 15.0


def read_batches(many: Iterable[Batch]) -> tuple[Seen, Said]:
    """Pids of fork, exec and exit records, and what the recorder counted as lost."""
    found: dict[int, set[int]] = {Kind.FORK: set(), Kind.EXEC: set(), Kind.EXIT: set()}
    lost, unbounded = 0, False
    for batch in many:
        if batch.kind != BatchKind.EVENTS:
            continue
        lost = max(lost, batch.lost + batch.skipped)
        for at, _ in frames(batch.body):
            values = HEAD.unpack_from(batch.body, at)
            if values[0] in found:
                found[values[0]].add(values[5])
            elif values[0] == Kind.MARK:
                unbounded |= MARK.unpack_from(batch.body, at)[10] == Mark.LINKS_LOST
    seen = Seen(frozenset(found[Kind.FORK]), frozenset(found[Kind.EXEC]), frozenset(found[Kind.EXIT]))
    return seen, Said(lost, bounded=unbounded)


def read_rows(rows: Iterable[tuple[int, str, str, int | None]], losses: Iterable[tuple[str, int]]) -> tuple[Seen, Said]:
    """The same from the store: tgid, kind, end_kind and creator of images; cause and amount of losses."""
    rows, losses = list(rows), list(losses)
    seen = Seen(
        frozenset(tgid for tgid, _, _, creator in rows if creator),
        frozenset(tgid for tgid, kind, _, _ in rows if kind == "exec"),
        frozenset(tgid for tgid, _, end, _ in rows if end == "exit"),
    )
    counted = sum(amount for cause, amount in losses if cause in ("ring_full", "skipped"))
    others = sorted({cause for cause, _ in losses} - {"ring_full", "skipped"})
    return seen, Said(counted, words=", ".join(others), bounded=bool(others))


class Ours(Recorder):
    """What both rows share: a place of its own, loaded and taken out again."""

    package = "tasktrail"
    switch = "rm of all pins"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.place = Place(directory)

    def off(self) -> None:
        """Removes every pin."""
        for name in pins.present(self.place.pin_dir):
            (self.place.pin_dir / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Takes the recorder out of the kernel."""
        super().close()
        self.place.clear()


class Reader(Ours):
    """The recorder, and ``tasktrail record dump``, which copies the ring into a file."""

    name = "tasktrail to a file"

    def start(self) -> None:
        """Loads the recorder; from then on nothing depends on the reader, which begins afterwards."""
        done = self.place.record("load", "--state-dir", str(self.place.state_dir))
        if done.returncode:
            raise CannotRun(done.stderr.strip())
        self.restart()

    def restart(self) -> None:
        """A reader with a further file."""
        self._starts += 1
        file = self.path(".tt")
        self._starts -= 1
        where = ("--pin-dir", self.place.pin_dir, "--run-dir", self.place.run_dir, "--state-dir", self.place.state_dir)
        process = self.spawn(*TASKTRAIL, "record", "dump", file, "--until-interrupted", *where, env=self.place.env)

        def writes() -> bool:
            self.alive(process)
            return file.exists() and file.stat().st_size > 0

        wait_until(writes, "the reader writing its first batch")

    def finish(self) -> tuple[Seen, Said]:
        """Batches of all files."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.end(signal.SIGTERM)
        status = self.place.record("status").stdout
        words = "" if "recording          yes" in status else "`record status`: not recording"
        self.place.record("unload")
        seen, said = read_batches(self._batches())
        return seen, said._replace(words=words or said.words)

    def _batches(self) -> Iterable[Batch]:
        for file in sorted(self.directory.glob("*.tt")):
            with file.open("rb") as source, contextlib.suppress(DecodeError):
                # A reader that was killed leaves a batch unfinished; the ring still has it, and the next file.
                yield from batches(source, file.name)

    def written(self) -> int:
        """The recordings."""
        return sum(one.stat().st_size for one in self.directory.glob("*.tt"))


class Run(Ours):
    """``tasktrail run``: recorder, join and its own ClickHouse."""

    name = "tasktrail run"

    def start(self) -> None:
        """Waits until it steps."""
        process = self.spawn(*TASKTRAIL, "run", env=self.place.env)

        def steps() -> bool:
            self.alive(process)
            return self.place.status().get("pid") == process.pid

        wait_until(steps, "tasktrail run recording", 60)

    def drain(self) -> None:
        """Until a process made now is stored, for what was before it is stored then. Its server is never quite still."""
        for left in reversed(range(CAUGHT_UP_TRIES)):
            done = subprocess.Popen(["/bin/true"])
            done.wait()
            try:
                self._wait_joined(time.time())
                self.place.wait_stored(done.pid, CAUGHT_UP_S, "end_kind = 'exit'")
                return
            except (AssertionError, CannotRun):
                if not left:
                    raise CannotRun("a process was not stored within a minute") from None

    def _wait_joined(self, until: float) -> None:
        """Until what happened before this time of the wall clock is joined, as `run` tells once a second in a file: questions to its
        server would be work of the recorder's."""

        def joined() -> bool:
            status = self.place.status()
            return float(status.get("time", 0.0) - status.get("lag_seconds", 0.0)) > until

        wait_until(joined, "the join coming to now", CAUGHT_UP_S)

    def finish(self) -> tuple[Seen, Said]:
        """Rows of the storm's programs, and the table of losses."""
        try:
            seen, said = read_rows(self.place.query(STORED), self.place.query(LOSSES))
        except TasktrailError as bad:
            raise CannotRun(str(bad)) from None
        self.end(signal.SIGTERM)
        self.place.record("unload")
        return seen, said

    def written(self) -> int:
        """The store."""
        total = 0
        for one in self.place.store.rglob("*"):
            with contextlib.suppress(OSError):  # merges remove files at any time
                total += one.stat().st_size if one.is_file() else 0
        return total


class RunCompiled(Run):
    """The same, installed with its join compiled: `make compiled` puts it there."""

    name = "tasktrail run compiled"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        # Without the second setting Python would look in the working directory first, which is the checkout.
        self.place.env |= {"PYTHONPATH": str(COMPILED), "PYTHONSAFEPATH": "1"}

    def start(self) -> None:
        """Says so where nothing was compiled."""
        if not any(COMPILED.glob("streams/join/transitions.*.so")):
            raise CannotRun("its join is not compiled; run `make compiled`")
        super().start()
