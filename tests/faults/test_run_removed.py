"""Somebody takes the recorder away: while `run` holds it nothing happens, without it a gap begins that is told and marked on chains."""

import signal
import subprocess
from pathlib import Path

import pytest

from producers.bpf import pins
from tests.e2e.running import Place

GAPS = "SELECT begin_boottime, end_boottime, detail FROM current_losses WHERE cause = 'no_recorder' AND begin_boottime > 0"
START = "SELECT start_boottime, kind, chain_lost, creator_tgid FROM current_images WHERE tgid = {tgid:UInt32} AND has(argv, {mark:String})"


def shell(mark: str) -> "subprocess.Popen[bytes]":
    """A shell that lives until its stdin is closed."""
    return subprocess.Popen(["/bin/sh", "-c", "read line", mark], stdin=subprocess.PIPE)


def links(place: Place) -> list[Path]:
    """Pins of the links that are there."""
    return [place.pin_dir / name for name in pins.present(place.pin_dir) if name.startswith("link")]


def test_while_run_holds_it_nothing_takes_it_away(place: Place) -> None:
    run = place.start()
    place.caught_up()
    assert len(links(place)) >= 4
    for link in links(place):
        # The kernel detaches no link of a tracepoint that somebody holds; on one that does, the self-probe tells.
        subprocess.run(["bpftool", "link", "detach", "pinned", str(link)], capture_output=True, check=False)
    for name in pins.present(place.pin_dir):
        (place.pin_dir / name).unlink()
    run.wait_said("put back")
    children = [subprocess.Popen(["/bin/true", "while-removed"]) for _ in range(20)]
    for child in children:
        child.wait()
    place.caught_up()
    stored = {row[0] for row in place.query("SELECT tgid FROM current_images WHERE has(argv, 'while-removed') AND end_kind = 'exit'")}
    assert stored == {child.pid for child in children}
    assert place.query(GAPS) == []
    assert sorted(path.name for path in links(place)) == sorted(name for name in pins.ALL if name.startswith("link"))


@pytest.mark.parametrize("how", ["unload", "rm"])
def test_without_run_the_time_in_between_is_a_gap(place: Place, how: str) -> None:
    run = place.start()
    before = shell("before")
    place.wait_stored(before.pid)
    place.caught_up()
    if how == "unload":
        assert run.stop() == 0
        done = place.record("unload")
        assert done.returncode == 0, done.stderr
    else:
        run.kill()
        for name in pins.present(place.pin_dir):
            (place.pin_dir / name).unlink()
    ended, living = subprocess.Popen(["/bin/true", "in-between"]), shell("in-between")
    ended.wait()
    assert place.command("status").returncode == 4
    place.start()
    after = shell("after")
    place.wait_stored(after.pid)
    place.caught_up()
    ((begin, end, detail),) = place.query(GAPS)
    ((start, kind, lost, creator),) = place.query(START, tgid=living.pid, mark="in-between")
    # It is there, under the kernel's parent, and says that a part of its story may be missing.
    assert begin < start < end and (kind, lost) == ("seen", True), (begin, start, end, kind, lost, detail)
    assert place.query(START, tgid=ended.pid, mark="in-between") == []
    for process, mark in ((before, "before"), (after, "after")):
        ((_, kind, lost, same),) = place.query(START, tgid=process.pid, mark=mark)
        assert (kind, lost, same) == ("exec", False, creator)
    for process in (before, living, after):
        process.communicate()
    assert place.runs[-1].stop(signal.SIGTERM) == 0
