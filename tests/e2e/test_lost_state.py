"""The join's state is gone, the store is there: what lives keeps its history."""

import subprocess

from tests.e2e.running import Place, wait_until

COLUMNS = "kind, argv, cwd, creator_id, ancestor_ids, chain_kind, chain_exec_id, chain_comm, chain_exe, chain_before, chain_lost"


def rows(place: Place, tgid: int, where: str) -> list[tuple[object, ...]]:
    """The process's newest row that fits, if there is one."""
    return place.query(f"SELECT {COLUMNS} FROM current_images WHERE tgid = {tgid} AND kind != 'fork' AND {where}")


def test_without_the_state_the_store_is_remembered(place: Place) -> None:
    run = place.start()
    # A shell whose own creator is gone starts what outlives it; nothing but the record can tell how that came to be.
    script = "(/bin/sh -c '/bin/sleep 600 > /dev/null & echo $!')"
    daemon = int(subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout)
    try:
        place.caught_up()
        place.wait_stored(daemon)
        (before,) = rows(place, daemon, "end_kind = 'living'")
        assert run.stop() == 0
        between = subprocess.Popen(["/bin/true", "between"])
        between.wait()
        states = list((place.store / "state").glob("*.json"))
        assert states
        for state in states:
            state.unlink()
        again = place.start()
        again.wait_said("living processes were taken from the store")
        place.caught_up()
        assert rows(place, daemon, "end_kind = 'living'") == [before]
        assert rows(place, between.pid, "has(argv, 'between')"), "what happened meanwhile is there too"
        assert not place.query("SELECT cause FROM current_losses WHERE begin_boottime > 0"), "nothing was lost"
    finally:
        subprocess.run(["kill", "-9", str(daemon)], check=True)
    wait_until(lambda: rows(place, daemon, "exit_signal = 9"), "the end of the process")
    assert rows(place, daemon, "exit_signal = 9") == [before]
