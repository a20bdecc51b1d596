"""The store in trouble: recording goes on, `run` says it in one line and goes on by itself, and nothing is doubled."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.running import Place, Run, tmpfs
from tests.e2e.test_storm import Storms, check_exactly_once


def trouble(run: Run) -> list[str]:
    """What it said that is wrong, a line each."""
    return [line for line in run.said().splitlines() if "trying again" in line]


def full(store: Path) -> Callable[[], None]:
    """Fill the file system; gives what makes room again."""
    filler = store / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 20))
                file.flush()
        except OSError:
            pass
    return filler.unlink


def read_only(store: Path) -> Callable[[], None]:
    """Let nobody, root neither, make or remove a file in any directory of the store; gives what undoes it."""

    def every_directory(flag: str) -> None:
        # Parts come and go meanwhile, so some names are gone when their turn comes.
        found = subprocess.run(["find", str(store), "-type", "d", "-print0"], capture_output=True, check=False).stdout
        subprocess.run(["xargs", "-0", "chattr", "-f", flag], input=found, check=False)

    every_directory("+i")
    return lambda: every_directory("-i")


@pytest.mark.parametrize("break_it", [full, read_only])
def test_a_store_that_cannot_be_written_is_told_once_and_waited_for(
    place: Place, programs: Path, break_it: Callable[[Path], Callable[[], None]]
) -> None:
    with tmpfs(place.directory / "small", "200m") as small:
        place.env["TASKTRAIL_STORE"] = str(small)
        place.store = small
        run = place.start()
        place.caught_up()
        with Storms(programs) as storms:
            mend = break_it(small)
            run.wait_said("trying again", 60)
            storms.stopping.wait(3)
        assert run.process.poll() is None
        assert len(trouble(run)) == len(set(trouble(run))) <= 2, trouble(run)
        mend()
        run.wait_said("all is well again", 60)
        place.caught_up()
        check_exactly_once(place, programs, storms.children)
        run.end()


def test_a_store_that_hangs_is_waited_for(place: Place, programs: Path) -> None:
    run = place.start()
    place.caught_up()
    server = run.server()
    os.kill(server, signal.SIGSTOP)
    try:
        with Storms(programs) as storms:
            storms.stopping.wait(5)
        assert run.process.poll() is None
    finally:
        os.kill(server, signal.SIGCONT)
    place.caught_up()
    check_exactly_once(place, programs, storms.children)
