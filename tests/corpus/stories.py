"""Writes the corpus' recordings that are stories of a simulated host: ``python -m tests.corpus.stories``."""

import random
import sys
from collections.abc import Callable
from pathlib import Path

from schemas.batch import encode_batch
from schemas.events import Exec, Exit, Fork
from tests.sim.channel import batches, cut_randomly, drop_batches, lay
from tests.sim.host import Entry, Host
from tests.sim.test_small_worlds import STORIES, a_pid_is_given_again, host_with, programs_replace_each_other, shell_runs_a_command

HERE = Path(__file__).parent


def records(host: Host, kind: type) -> list[Entry]:
    """The story's records of a kind, the recorder's own left out."""
    return [entry for entry in host.boot.rings[0].entries if isinstance(entry.record, kind)]


def write(name: str, story: Callable[[Host], None], refused: Callable[[Host], list[Entry]] | None = None, hole: int = -1) -> None:
    """One recording: the story, without the records that the ring refused, without one batch."""
    host = host_with(story)
    log = lay(host, refused(host) if refused else ())
    rng = random.Random(3)
    groups = batches(log, cut_randomly(log, rng, 4), rng)
    groups = drop_batches(log, groups, {hole} if hole >= 0 else set())
    (HERE / f"{name}.tt").write_bytes(b"".join(encode_batch(batch) for group in groups for batch in group))


def main() -> int:
    """Write them all. Returns the exit code."""
    for story in STORIES:
        write(story.__name__, story)
    write("an_exit_is_lost_and_the_pid_given_again", a_pid_is_given_again, lambda host: records(host, Exit)[:1])
    write("an_exec_in_the_middle_is_lost", programs_replace_each_other, lambda host: records(host, Exec)[1:2])
    write("a_fork_is_lost", shell_runs_a_command, lambda host: records(host, Fork)[1:2])
    write("a_batch_never_arrives", shell_runs_a_command, hole=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
