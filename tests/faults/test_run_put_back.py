"""The last writes are gone, as after a power cut or a restored backup: it is found at the start and told, never joined over silently."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.running import Place, wait_until

GONE = "SELECT cause, begin_boottime, end_boottime, end_boottime - begin_boottime FROM current_losses WHERE begin_boottime > 0"
IMAGE = """
SELECT kind, end_kind, chain_complete, chain_before, chain_lost, creator_tgid, chain_comm[-1]
FROM current_images WHERE tgid = {tgid:UInt32} AND has(argv, {mark:String})"""


def shell(mark: str, script: str = "read line") -> "subprocess.Popen[bytes]":
    """A shell that lives until its stdin is closed."""
    return subprocess.Popen(["/bin/sh", "-c", script, mark], stdin=subprocess.PIPE)


def copied(place: Place, to: Path) -> None:
    """A copy of the store's directory as it lies there."""
    shutil.copytree(place.store, to, symlinks=True, copy_function=shutil.copy2)
    for path in [to, *to.rglob("*")]:
        stat = (place.store / path.relative_to(to)).lstat()
        shutil.chown(path, stat.st_uid, stat.st_gid)


@pytest.mark.parametrize("what", ["clickhouse", "state", "."])
def test_what_was_put_back_is_told(place: Place, tmp_path: Path, what: str) -> None:
    older = shell("older")
    place.start()
    place.caught_up()
    assert place.runs[-1].stop() == 0
    backup = tmp_path / "backup"
    copied(place, backup)
    place.start()
    living, ended = shell("living"), shell("ended", "exit 5")
    assert ended.wait() == 5
    place.wait_stored(living.pid)
    place.caught_up()
    assert place.query(IMAGE, tgid=ended.pid, mark="ended"), "it was stored"
    place.runs[-1].kill()
    wait_until(lambda: place.command("status").returncode, "the end of the store's server")
    target = place.store / what
    shutil.rmtree(target)
    shutil.copytree(backup / what, target, symlinks=True, copy_function=shutil.copy2)
    for path in [target, *target.rglob("*")]:
        stat = (backup / what / path.relative_to(target)).lstat()
        shutil.chown(path, stat.st_uid, stat.st_gid)

    run = place.start()
    after = shell("after")
    place.wait_stored(after.pid)
    place.caught_up()
    losses = place.query(GONE)
    expected = "rows_lost" if what == "clickhouse" else "log_hole"
    assert [cause for cause, *_ in losses] == [expected], losses
    assert ("put back" in run.said()) == (expected == "rows_lost")
    # What ended meanwhile is gone where the rows were put back, and the interval of the loss says so.
    assert bool(place.query(IMAGE, tgid=ended.pid, mark="ended")) == (what == "state")
    # What lives is there in any case, below its true creator; whether all of its chain is known is said.
    ((kind, end_kind, _, _, chain_lost, creator, comm),) = place.query(IMAGE, tgid=living.pid, mark="living")
    assert (end_kind, comm, creator) == ("living", b"sh", older_parent(place, older.pid))
    assert (kind, bool(chain_lost)) == (("exec", False) if what == "clickhouse" else ("seen", True))
    for process in (older, after):
        ((_, end_kind, _, _, chain_lost, _, _),) = place.query(IMAGE, tgid=process.pid, mark="older" if process is older else "after")
        assert (end_kind, bool(chain_lost)) == ("living", False)
    for process in (older, living, after):
        process.communicate()


def older_parent(place: Place, tgid: int) -> int:
    """This process, which created them all, as the store knows it."""
    ((creator,),) = place.query(f"SELECT creator_tgid FROM current_images WHERE tgid = {tgid} AND has(argv, 'older')")
    return int(creator)
