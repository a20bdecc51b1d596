"""Every reading command's real output about processes that the test makes itself, while `tasktrail run` goes on."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.running import TASKTRAIL, Place, open_directory, wait_until

HOSTILE = "a\n> init(1)\x1b[2J"
"""A program's name that would forge a line and clear the screen."""
SCRIPT = r"""
(setsid /bin/sh -c '"$1" daemon & echo $! > orphan; exit 4' sh "$1")
/bin/sh -c 'exit 5' failing
"$2" 'two words'
echo done > ready
exec "$1" last
"""


class Family(NamedTuple):
    """What the test made below one shell.

    place    where it is stored
    shell    pid that ran the script and then the last sleeper
    orphan   pid of the daemon whose creator ended with 4
    before   ISO 8601 moment at which the shell still ran its script
    """

    place: Place
    shell: int
    orphan: int
    sleeper: Path


@pytest.fixture(scope="module")
def family(programs: Path) -> Iterator[Family]:
    """A recorded tree of processes, two of them alive."""
    sleeper = programs / "sleeper"
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(open_directory())
        hostile = directory / HOSTILE
        hostile.write_bytes(Path("/bin/true").read_bytes())
        hostile.chmod(0o755)
        place = Place(directory)
        stack.callback(place.clear)
        place.start()
        shell = subprocess.Popen(["/bin/sh", "-c", SCRIPT, "trunk", sleeper, hostile], cwd=directory, stdout=subprocess.DEVNULL)
        stack.callback(shell.wait)
        stack.callback(shell.kill)
        wait_until((directory / "ready").exists, "the script's end")
        orphan = int((directory / "orphan").read_text())
        stack.callback(lambda: os.kill(orphan, signal.SIGKILL))
        place.wait_stored(orphan)
        place.wait_stored(shell.pid, where="comm = 'sleeper'")
        place.caught_up()
        yield Family(place, shell.pid, orphan, sleeper)


def test_the_history_follows_creators_and_not_the_new_parent(family: Family) -> None:
    lines = family.place.ask("history", str(family.orphan)).splitlines()
    assert f"sh({family.shell}) > " in lines[0] and lines[0].endswith(f" > sleeper({family.orphan})")
    assert "init(1)\x1b" not in lines[0]
    assert Path(f"/proc/{family.orphan}/stat").read_text().rpartition(")")[2].split()[1] != str(family.shell)


def test_the_long_history_has_a_line_for_each_program(family: Family) -> None:
    text = family.place.ask("history", str(family.orphan), "--long")
    assert f"sleeper({family.orphan})" in text and "daemon" in text
    assert f"in {family.place.directory}" in text and "exit 4" in text


def test_a_moment_tells_which_program_the_process_was(family: Family) -> None:
    (sh, last) = family.place.query(
        f"SELECT comm, formatDateTime(begin + INTERVAL 1 MILLISECOND, '%Y-%m-%dT%H:%i:%S.%f') FROM current_images "
        f"WHERE tgid = {family.shell} AND kind = 'exec' ORDER BY begin"
    )
    assert (sh[0], last[0]) == (b"sh", b"sleeper")
    then = family.place.objects("history", str(family.shell), "--json", "--at", sh[1].decode()[:23])
    now = family.place.objects("history", str(family.shell), "--json")
    assert (then[0]["image"]["comm"], now[0]["image"]["comm"]) == ("sh", "sleeper")


def test_the_patch_form_is_the_string_of_2023(family: Family) -> None:
    text = family.place.ask("history", str(family.orphan), "--format", "patch").strip()
    assert "=>name=sh;pid=" in text
    assert text.rpartition("=>")[2].startswith(f"name=sleeper;pid={family.orphan};start=")
    assert "\n" not in text


def test_the_tree_shows_dead_and_orphaned_ones_below_their_creator(family: Family) -> None:
    dead = family.place.objects("tree", str(family.shell), "--dead", "--json")
    by_code = {one["exit_code"] for one in dead if one["end_kind"] == "exit"}
    assert {4, 5} <= by_code
    assert family.orphan in {one["tgid"] for one in dead}
    living = family.place.objects("tree", str(family.shell), "--json")
    assert 5 not in {one["exit_code"] for one in living if one["end_kind"] == "exit"}
    assert family.orphan in {one["tgid"] for one in living}


def test_ps_lists_the_living_with_their_chains(family: Family) -> None:
    found = {one["image"]["tgid"]: one for one in family.place.objects("ps", "--json")}
    assert {family.shell, family.orphan, os.getpid(), 2} <= set(found)
    assert found[family.orphan]["history"].endswith(f"sleeper({family.orphan})")
    living = {int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()}
    ended = {one["image"]["task_id"] for tgid, one in found.items() if tgid not in living}
    # They ended while it was being asked; when all that happened until now is stored, it knows.
    family.place.caught_up()
    still = {one["image"]["task_id"] for one in family.place.objects("ps", "--json")} & ended
    assert not still, f"ps says that these live: {still}"


def test_find_takes_conditions_together(family: Family) -> None:
    under = ["find", "--under", str(family.shell), "--json"]
    assert [one["tgid"] for one in family.place.objects(*under, "--exe", str(family.sleeper), "--arg", "daemon")] == [family.orphan]
    assert [one["exit_code"] for one in family.place.objects(*under, "--where", "exit_code=5")] == [5]
    assert family.place.objects(*under, "--living", "--comm", "sh") == []


def test_a_hostile_name_is_exact_in_json_and_harmless_for_people(family: Family) -> None:
    (found,) = family.place.objects("find", "--under", str(family.shell), "--arg", "two words", "--json")
    assert found["exe"] == str(family.place.directory / HOSTILE)
    assert found["argv"] == [found["exe"], "two words"]
    shown = family.place.ask("history", str(found["tgid"]), "--long")
    assert "\x1b" not in shown and not any(line.startswith("> init(1)") for line in shown.splitlines())


def test_watch_shows_an_exec_made_while_it_runs(family: Family) -> None:
    marker = f"watched-{os.getpid()}"
    watch = subprocess.Popen(
        [*TASKTRAIL, "watch", "--exe", "*/true", "--arg", marker, "--count", "2", "--json"],
        env=family.place.env,
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
    )
    made = []

    def shown() -> bool:
        # It shows what begins after it began; when that is, it does not say.
        made.append(subprocess.Popen(["/bin/true", marker]))
        made[-1].wait()
        family.place.caught_up()
        return watch.poll() is not None

    try:
        wait_until(shown, "the watched exec")
        assert watch.stdout
        seen = [json.loads(line)["image"]["tgid"] for line in watch.stdout]
        pids = [process.pid for process in made]
        assert len(seen) == 2 and seen == pids[pids.index(seen[0]) :][:2]
        assert watch.returncode == 0
    finally:
        watch.kill()
        watch.wait()
        if watch.stdout:
            watch.stdout.close()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("json", '{"tgid":PID,"comm":"sleeper"}'),
        ("tsv", "PID\tsleeper"),
        ("csv", "PID,sleeper"),
        ("table", "PID  sleeper"),
        ("vertical", "comm  sleeper"),
    ],
)
def test_sql_in_every_form(family: Family, form: str, expected: str) -> None:
    statement = f"SELECT tgid, comm FROM current_images WHERE tgid = {family.orphan} AND kind = 'exec'"
    text = family.place.ask("sql", statement, "--format", form)
    assert expected.replace("PID", str(family.orphan)) in text


def test_sql_in_a_pipe_is_json_and_may_only_read(family: Family) -> None:
    assert json.loads(family.place.ask("sql", "SELECT 1 AS one")) == {"one": 1}
    refused = family.place.command("sql", "TRUNCATE TABLE images")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert family.place.query("SELECT count() FROM images")[0][0] > 0


def test_a_reader_that_goes_away_ends_the_command_quietly(family: Family) -> None:
    command = " ".join([*TASKTRAIL, "sql", "'SELECT number FROM numbers(1000000)'", "| head -n 1; echo ${PIPESTATUS[0]}"])
    done = subprocess.run(["/bin/bash", "-c", command], env=family.place.env, cwd="/", capture_output=True, text=True, check=True)
    assert (done.stdout.split("\n")[1], done.stderr) == ("141", "")


def test_status_and_doctor_are_content(family: Family) -> None:
    assert "recording and storing" in family.place.ask("status")
    said = json.loads(family.place.ask("status", "--json"))
    assert said["recording_and_storing"] is True and said["run"]["lost"] == 0
    grades = {one["grade"] for one in family.place.objects("doctor", "--json")}
    assert "missing" not in grades


def test_the_recorders_own_commands(family: Family) -> None:
    lines = dict(line.split(maxsplit=1) for line in family.place.record("status").stdout.splitlines())
    assert (lines["recording"], lines["missing_pins"]) == ("yes", "none")
    refused = family.place.record("dump", str(family.place.directory / "no.tt"), "--seconds", "0")
    assert refused.returncode == 4 and f"process {family.place.runs[-1].pid}" in refused.stderr


def test_a_dump_can_be_decoded(place: Place) -> None:
    assert place.record("load", "--state-dir", str(place.state_dir)).returncode == 0
    process = subprocess.Popen(["/bin/true", "dumped"])
    process.wait()
    file = place.directory / "dump.tt"
    dumped = place.record("dump", str(file), "--seconds", "0", "--state-dir", str(place.state_dir))
    assert dumped.returncode == 0, dumped.stderr
    records = [one for one in place.objects("decode", str(file)) if one.get("tgid") == process.pid]
    assert [one["record"] for one in records if one["record"] != "rename"] == ["fork", "exec", "exit"]
    assert next(one for one in records if one["record"] == "exec")["argv"] == ["/bin/true", "dumped"]
