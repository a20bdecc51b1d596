"""What ends `tasktrail run`, and what keeps it from starting: one sentence, its exit code, and nothing left behind."""

import os
import signal
import subprocess
import time

import pytest

from store.connection import Connection
from store.server import stored_address
from tests.contract.conftest import await_end
from tests.e2e.running import TASKTRAIL, Place, wait_until


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a command ended with, after what it had said of its recorder."""
    lines = [line for line in done.stderr.splitlines() if "these programs were loaded already" not in line]
    assert len(lines) == 1 and lines[0].startswith("tasktrail: "), done.stderr
    return lines[0]


def test_a_server_does_not_outlive_a_killed_run(place: Place) -> None:
    run = place.start()
    server = wait_until(run.server, "a ClickHouse")
    run.kill()
    assert await_end(server)


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.3, 0.6, 1.0, 1.5, 2.0])
def test_asked_to_stop_at_any_moment_of_its_start_it_ends_well(place: Place, delay_s: float) -> None:
    run = place.start(ready=False)
    # Before Python itself takes signals nothing can be promised; from its first file on it is run that was asked.
    wait_until(lambda: place.run_dir.exists() or run.process.poll() is not None, "the beginning of the load")
    try:
        run.process.wait(delay_s)
    except subprocess.TimeoutExpired:
        assert run.stop() == 0, run.said()
    assert "stopped" in run.said() and "Traceback" not in run.said()
    place.start()


def test_a_row_can_be_asked_for_soon(place: Place) -> None:
    place.start()
    place.caught_up()
    begin = time.monotonic()
    place.caught_up()
    # A second is promised; the rest is for a host that is busy with other tests.
    assert time.monotonic() - begin < 3


def test_without_root_it_says_what_it_needs(place: Place) -> None:
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *TASKTRAIL, "run"]
    done = subprocess.run(command, env=place.env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 4
    assert "CAP_BPF" in refusal(done) and "run it with sudo" in refusal(done) and "tasktrail demo" in refusal(done)


def test_what_the_load_calls_bad_input_is_bad_input(place: Place) -> None:
    place.env["TASKTRAIL_PIN_DIR"] = f"{place.pin_dir}.d"
    done = place.command("run")
    assert done.returncode == 2
    assert f"{place.pin_dir}.d cannot hold pins; give an absolute path" in refusal(done)


def test_where_the_time_since_boot_is_shifted_nothing_is_recorded_wrongly(place: Place) -> None:
    place.start()
    for arguments in (("run",), ("run", "--no-load")):
        command = ["unshare", "--time", "--boottime", "3600", "--", *TASKTRAIL, *arguments]
        done = subprocess.run(command, env=place.env, cwd="/", capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 4
        assert "time namespace" in refusal(done)


def test_a_store_in_use_is_named(place: Place) -> None:
    run = place.start()
    other = Place(place.directory / "other")
    other.directory.mkdir()
    other.env["TASKTRAIL_STORE"] = str(place.store)
    try:
        done = other.command("run")
        lines = done.stderr.splitlines()
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert f"store {place.store} is in use by process {run.pid}" in lines[-1]
    finally:
        other.clear()
    assert run.process.poll() is None


def test_a_store_of_a_newer_version_is_left_alone(place: Place) -> None:
    run = place.start()
    address = stored_address(place.store, "writer")
    assert address is not None
    with Connection(address) as writer:
        writer.execute("INSERT INTO schema_versions (version, name, text_sha256) VALUES (9999, '9999_later.sql', 'x')")
    assert run.stop() == 0
    done = place.command("run")
    assert done.returncode == 2 and "has tables of version 9999" in refusal(done)


def test_the_recorder_is_not_unloaded_under_its_reader(place: Place) -> None:
    run = place.start()
    done = place.record("unload")
    assert done.returncode == 4 and f"read by process {run.pid}" in refusal(done)
    assert run.process.poll() is None
    place.caught_up()


def test_one_last_signal_is_enough(place: Place) -> None:
    run = place.start()
    os.kill(run.pid, signal.SIGINT)
    os.kill(run.pid, signal.SIGTERM)
    assert run.process.wait(20) == 0
    assert run.said().count("stopped; ") == 1 and "Traceback" not in run.said()
