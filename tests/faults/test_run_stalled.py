"""`tasktrail run` stopped, starved or too slow for its ring: nothing is missing, or all that is missing is counted."""

import signal
import subprocess
from pathlib import Path

import pytest
from kernel_tools import output

from tests.e2e.running import Place, wait_until
from tests.e2e.test_storm import Child, Storms, check_exactly_once
from tests.faults.cgroups import cgroup

CHAINS = """
SELECT countIf(NOT chain_lost) FROM current_images
WHERE exe = {exe:String} AND end_kind = 'exit' AND chain_complete AND chain_comm[-2] != 'storm'"""


def test_killed_and_started_again_after_a_while(place: Place, programs: Path) -> None:
    place.start()
    with Storms(programs) as storms:
        for pause_s in (0.1, 1.0, 3.0):
            place.runs[-1].kill()
            storms.stopping.wait(pause_s)
            place.start()
    assert not storms.failures
    place.caught_up()
    check_exactly_once(place, programs, storms.children)


def test_stopped_for_a_second_in_a_storm(place: Place, programs: Path) -> None:
    run = place.start()
    with Storms(programs) as storms:
        for _ in range(3):
            run.process.send_signal(signal.SIGSTOP)
            storms.stopping.wait(1.0)
            run.process.send_signal(signal.SIGCONT)
            storms.stopping.wait(0.3)
    place.caught_up()
    check_exactly_once(place, programs, storms.children)


def test_a_tenth_of_a_processor(place: Place, programs: Path) -> None:
    run = place.start()
    with cgroup("cpu", 100) as members:
        members.write_text(str(run.pid))
        with Storms(programs) as storms:
            storms.stopping.wait(4)
        assert not storms.failures and len(storms.children) > 500
    place.caught_up()
    check_exactly_once(place, programs, storms.children)


@pytest.mark.parametrize("stalled", ["killed", "stopped"])
def test_with_a_ring_that_is_too_small_what_is_missing_is_counted(place: Place, programs: Path, stalled: str) -> None:
    place.env["TASKTRAIL_RING_BYTES"] = str(1 << 18)
    run = place.start()
    place.caught_up()
    if stalled == "killed":
        run.kill()
    else:
        run.process.send_signal(signal.SIGSTOP)
    lines = output(programs / "storm", "3000", "2", programs / "tiny")
    daemon = subprocess.Popen(["/bin/sh", "-c", "read line", "daemon"], stdin=subprocess.PIPE)
    if stalled == "killed":
        run = place.start()
    else:
        run.process.send_signal(signal.SIGCONT)
    place.wait_stored(daemon.pid, where="has(argv, 'daemon')")
    place.caught_up()
    children = [Child(*map(int, words), 0) for words in lines]
    stored = place.query("SELECT uniqExact(task_id) FROM current_images WHERE exe = {exe:String}", exe=str(programs / "tiny"))[0][0]
    losses = place.query("SELECT cause, amount, begin, end FROM current_losses WHERE cause = 'ring_full'")
    counters = wait_until(lambda: place.status().get("lost"), "a count of losses")
    # Others start processes here too, so what the ring refused can only be more than the storm lacks.
    assert sum(amount for _, amount, *_ in losses) == counters
    assert 0 < len(children) - stored <= counters
    assert all(begin < end for *_, begin, end in losses)
    # None that was stored has a wrong link; whom the loss touches says so.
    wrong = place.query(CHAINS, exe=str(programs / "tiny"))
    assert wrong == [(0,)]
    creators = {(child.pid, child.creator) for child in children}
    linked = place.query(
        "SELECT DISTINCT tgid, creator_tgid FROM current_images WHERE exe = {exe:String} AND creator_tgid != 0", exe=str(programs / "tiny")
    )
    assert set(linked) <= creators
    # What lives is found by the snapshot that follows, with its true creator.
    ((kind, lost),) = place.query(
        "SELECT kind, chain_lost OR chain_before FROM current_images WHERE tgid = {tgid:UInt32} AND has(argv, 'daemon')", tgid=daemon.pid
    )
    assert (kind, lost) == ("seen", True)
    daemon.communicate()
