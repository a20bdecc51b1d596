"""`tasktrail run` as its user meets it: started, stopped, in trouble, and asked."""

import json
import os
import signal
import subprocess
import urllib.request
from base64 import b64encode
from pathlib import Path

from store.server import stored_address
from tests.e2e.running import TASKTRAIL, Place, tmpfs, wait_until

LOST = "SELECT cause, detail FROM current_losses WHERE begin_boottime > 0"
"""What was lost since the recorder was loaded; before that is a loss too, from the boot on."""


def child(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_what_happens_while_nothing_runs_is_stored_by_the_next_run(place: Place) -> None:
    run = place.start()
    assert run.stop() == 0
    assert "picks up where this one ended" in run.said()
    between = [child("/bin/sh", "-c", f"exit {code}") for code in (0, 3, 7)]
    codes = {process.pid: process.wait() for process in between}
    place.start()
    place.caught_up()
    for tgid, code in codes.items():
        assert place.query(f"SELECT exit_code, chain_lost FROM current_images WHERE tgid = {tgid} AND kind = 'exec'") == [(code, False)]


def test_an_image_can_be_asked_for_while_it_lives(place: Place) -> None:
    place.start()
    sleeper = child("/bin/sleep", "60")
    try:
        place.wait_stored(sleeper.pid)
        assert place.ask("history", str(sleeper.pid)).splitlines()[0].endswith(f" > sleep({sleeper.pid})")
        assert any(one["comm"] == "sleep" for one in place.objects("find", "--exe", "*/sleep", "--living", "--json"))
        assert str(sleeper.pid) in place.ask("ps")
    finally:
        sleeper.kill()
        sleeper.wait()
    place.wait_stored(sleeper.pid, where="exit_signal = 9")


def test_a_tree_keeps_its_orphans(place: Place) -> None:
    place.start()
    script = "(setsid sh -c 'sleep 61 & echo $! > orphan; exit 4') ; sh -c 'exit 5'; sleep 62"
    shell = subprocess.Popen(["/bin/sh", "-c", script], cwd=place.directory)
    orphan_file = place.directory / "orphan"
    wait_until(lambda: orphan_file.exists() and orphan_file.read_text().strip(), "an orphan")
    orphan = int(orphan_file.read_text())
    try:
        place.wait_stored(orphan)
        place.wait_stored(shell.pid)
        wait_until(lambda: {one["exit_code"] for one in place.objects("tree", str(shell.pid), "--dead")} >= {4, 5}, "both failing children")
        assert orphan in {one["tgid"] for one in place.objects("tree", str(shell.pid), "--dead")}
        assert f"sh({shell.pid})" in place.ask("history", str(orphan))
        patch = place.ask("history", str(orphan), "--format", "patch")
        assert f"name=sleep;pid={orphan};start=" in patch.splitlines()[0]
    finally:
        os.kill(orphan, signal.SIGKILL)
        shell.kill()
        shell.wait()


def test_the_store_answers_curl_with_the_readers_credentials(place: Place) -> None:
    place.start()
    address = stored_address(place.store, "reader")
    assert address is not None
    request = urllib.request.Request(f"http://127.0.0.1:{address.http_port}/?query=SELECT%20count()%3E0%20FROM%20tasktrail.images")
    request.add_header("Authorization", "Basic " + b64encode(f"{address.user}:{address.password}".encode()).decode())
    place.caught_up()
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.read().strip() in (b"1", b"true")


def test_a_full_disk_is_told_once_and_waited_out(place: Place) -> None:
    with tmpfs(place.directory / "small", "150m") as small:
        place.env["TASKTRAIL_STORE"] = str(small)
        place.store = small
        run = place.start()
        place.caught_up()
        filler = small / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
                    file.flush()
            except OSError:
                pass
        during = [child("/bin/true") for _ in range(30)]
        for process in during:
            process.wait()
        run.wait_said("trying again", 60)
        assert run.process.poll() is None
        filler.unlink()
        run.wait_said("all is well again", 60)
        place.caught_up()
        stored = {row[0] for row in place.query("SELECT tgid FROM current_images WHERE comm = 'true'")}
        assert {process.pid for process in during} <= stored
        assert place.query(LOST) == []
        run.end()


def test_a_second_run_says_who_reads(place: Place) -> None:
    run = place.start()
    second = place.command("run", timeout_s=60)
    assert second.returncode == 4
    assert f"process {run.pid}" in second.stderr
    assert place.record("unload").returncode == 4


def test_removed_pins_are_put_back(place: Place) -> None:
    run = place.start()
    for name in ("link_fork", "fork", "link_exec"):
        (place.pin_dir / name).unlink(missing_ok=True)
    removed = sorted(place.pin_dir.iterdir())[0]
    removed.unlink()
    run.wait_said("put back")
    assert removed.exists()
    place.caught_up()
    assert place.query(LOST) == []


def test_bad_input_is_one_sentence(place: Place, tmp_path: Path) -> None:
    place.start()
    place.caught_up()
    for arguments, code in (
        (("history", "4194304"), 2),
        (("sql", "SELEC 1"), 2),
        (("decode", "/etc/hostname"), 3),
        (("ps", "--store", "/proc/none"), 2),
    ):
        done = place.command(*arguments)
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        assert done.stderr.startswith("tasktrail: ") and done.stderr.count("\n") == 1, done.stderr
    refused = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *TASKTRAIL, "run"]
    done = subprocess.run(refused, env=place.env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0


def test_status_and_doctor_tell_that_all_is_well(place: Place) -> None:
    run = place.start()
    place.caught_up()
    status = place.command("status")
    assert status.returncode == 0, status.stderr
    assert "recording and storing" in status.stdout or json.loads(status.stdout)
    assert place.status()["pid"] == run.pid


def test_a_state_that_is_garbage_is_named(place: Place) -> None:
    run = place.start()
    place.caught_up()
    assert run.stop() == 0
    (state,) = (place.store / "state").glob("*.json")
    state.write_bytes(b"garbage")
    again = place.command("run", timeout_s=60)
    assert again.returncode == 3
    assert str(state) in again.stderr and "Traceback" not in again.stderr
