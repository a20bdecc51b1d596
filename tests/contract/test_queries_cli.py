"""The reading commands as a person or a pipe gets them, on a real server."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from uuid import UUID

import pytest

from queries.jsonlines import exact
from tasktrail.cli import run_command
from tests.contract.conftest import Store
from tests.contract.image_rows import S, World
from tests.contract.named_store import needs_its_own_clickhouse
from tests.contract.rows import BEGIN, loss
from tests.contract.shell import Shell

EVIL = b"\x1b[31m(1) > \xff"


@pytest.fixture(scope="module")
def family(store: Store) -> Iterator[Store]:
    """sshd > bash > make > evil, and a dead ls."""
    host = World()
    systemd = host.root()
    sshd = systemd.spawn(10 * S, 812, b"sshd", b"-D")
    bash = sshd.fork(20 * S, 899).spawn(21 * S, 901, b"bash")
    bash.spawn(22 * S, 902, b"ls").exit(23 * S, 2)
    make = bash.spawn(30 * S, 4650, b"make", b"all it")
    make.spawn(40 * S, 4700, EVIL, b"x" * 300)
    make.exit(50 * S, signal=15)
    other = World(b"web2", UUID(int=91), UUID(int=92)).root()
    store.write([*host.log, other.now, loss(0, cause=3, begin=BEGIN, end=BEGIN + 5 * S)])
    yield store


@pytest.fixture
def shell(family: Store, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(family.place, capsys)


def test_history_is_two_lines_of_text_also_in_a_pipe(shell: Shell) -> None:
    code, out, err = shell.pipe("history", "web1:902")
    assert (code, out, err) == (0, "systemd(1) > sshd(812) > sshd(899) > bash(901) > ls(902)\ncomplete\n", "")
    code, same, err = shell.pipe("history", "902")
    assert (code, same, err) == (0, out, f"tasktrail: 902 is on host web1 (host_id {UUID(int=1)})\n")


def test_history_in_json_says_how_complete_it_is(shell: Shell) -> None:
    (found,) = shell.lines("history", "4700", "--json", "--host", "web1")
    assert found["completeness"]["complete"] is True  # type: ignore[index]
    image = found["image"]
    assert isinstance(image, dict) and exact(image, "comm") == EVIL and exact(image, "argv") == [EVIL, b"x" * 300]
    assert [step["tgid"] for step in found["steps"]] == [1, 812, 899, 901, 4650, 4700]  # type: ignore[attr-defined, index]


def test_hostile_names_are_quoted_on_a_terminal(shell: Shell) -> None:
    shown = shell.terminal("history", "web?:4700")
    assert shown.splitlines()[0].startswith("systemd(1) > sshd(812) > sshd(899) > bash(901) > make(4650) > $'\\x1b[31m(1) >")
    assert "\x1b" not in shown and "\\xff'(4700)" in shown.replace("\n", "")


def test_long_form_has_a_line_for_every_program(shell: Shell) -> None:
    code, out, _ = shell.pipe("history", "web1:902", "--long")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 7
    assert lines[5].endswith("  root  ls(902)  exec  ls  in /root  exit 2 after 999 ms")
    assert lines[3].endswith("  root  sshd(899)  fork  sshd -D  living")
    assert lines[6] == "complete"


def test_patch_form(shell: Shell) -> None:
    code, out, _ = shell.pipe("history", "902", "--format", "patch")
    assert code == 0 and re.fullmatch(r"name=swapper/0;pid=1;start=\d{14}(=>name=[a-z]+;pid=\d+;start=\d{14}){4}\n", out)


def test_who_never_was_is_one_sentence_and_exit_code_2(shell: Shell) -> None:
    code, out, err = shell.pipe("history", "77")
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("tasktrail: no process had pid 77; recording began at 20")
    assert shell.pipe("tree", "nothing")[0] == 2
    code, _, err = shell.pipe("history", "1")
    assert code == 2 and err.startswith("tasktrail: pid 1 could be on web")
    assert "web1" in err and "web2" in err and err.endswith("; write HOST:1, or give --host\n") and err.count("\n") == 1
    assert shell.pipe("history", "web2:1")[0] == 0
    assert shell.pipe("history", "902", "--at", "soon")[0] == 2


def test_tree_on_a_terminal_and_in_a_pipe(shell: Shell) -> None:
    lines = shell.terminal("tree", "web1:812").splitlines()
    assert [re.sub(r"^[ │├└─]*", "", line).split("  ")[0] for line in lines[:4]] == ["sshd(812)", "sshd(899)", "bash(901)", "make(4650)"]
    assert max(map(len, lines)) <= 80 and lines[-1].startswith("            └── $'")
    rows = shell.lines("tree", "web1:812", "--dead")
    assert [(row["depth"], row["tgid"]) for row in rows] == [(0, 812), (1, 899), (2, 901), (3, 902), (3, 4650), (4, 4700)]


def test_ps_fits_the_terminal(shell: Shell) -> None:
    lines = shell.terminal("ps", columns=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].split() == ["PID", "USER", "SINCE", "CHAIN"]
    assert any("… >" in line for line in lines) and lines[-1].startswith("6 living, 0 of them")
    assert {row["history"] for row in shell.lines("ps", "--host", "web2")} == {"systemd(1)"}
    assert "systemd(1) > sshd(812) > sshd(899) > bash(901)\n" in re.sub(" +\n", "\n", shell.pipe("ps", "--full")[1])


def test_find_on_a_terminal_and_in_a_pipe(shell: Shell) -> None:
    lines = shell.terminal("find", "--under", "sshd", "--comm", "[lm]*").splitlines()
    assert lines[0].split() == ["BEGAN", "USER", "PROCESS", "COMMAND", "ENDED"]
    assert lines[1].split()[-3:] == ["ls(902)", "ls", "exit"] or lines[1].rstrip().endswith("exit 2")
    assert lines[2].rstrip().endswith("SIGTERM") and "make 'all it'" in lines[2] and lines[3] == "2 found"
    assert [row["tgid"] for row in shell.lines("find", "--under", "901", "--where", "kind=exec")] == [902, 4650, 4700]
    assert [row["comm"] for row in shell.lines("find", "--kind", "fork")] == ["sshd"]
    code, _, err = shell.pipe("find", "--where", "nothing=1")
    assert code == 2 and "no column 'nothing'" in err


def test_find_per_host_on_a_terminal_and_in_a_pipe(shell: Shell) -> None:
    (one,) = shell.lines("find", "--comm", "ls", "--under", "bash", "--per-host")
    assert one == {"host_id": str(UUID(int=1)), "host": "web1", "images": 1, "first": one["first"], "last": one["first"]}
    both = shell.lines("find", "--comm", "systemd", "--per-host", "--living")
    assert [(one["host"], one["images"]) for one in both] == [("web1", 1), ("web2", 1)]
    shown = shell.terminal("find", "--comm", "systemd", "--per-host").splitlines()
    assert shown[0].split() == ["HOST", "IMAGES", "FIRST", "BEGAN", "LAST", "BEGAN"] and shown[1].split()[:2] == ["web1", "1"]
    assert shell.pipe("find", "--comm", "none", "--per-host")[:2] == (0, "")
    assert shell.pipe("find", "--comm", "ls", "--per-host", "--limit", "3")[0] == 2


def test_sql_in_every_form(shell: Shell) -> None:
    question = "SELECT comm, count() AS n, any(argv) AS v FROM current_images WHERE tgid IN (902, 4700) GROUP BY comm ORDER BY n, comm"
    rows = shell.lines("sql", question)
    assert [(exact(row, "comm"), row["n"]) for row in rows] == [(EVIL, 1), (b"ls", 1)]
    assert shell.pipe("sql", question, "--format", "tsv")[1].splitlines()[2] == "ls\t1\t['ls']"
    assert shell.pipe("sql", question, "--format", "csv")[1].splitlines()[0] == "comm,n,v"
    assert "comm  ls\n" in shell.pipe("sql", question, "--format", "vertical")[1]
    shown = shell.terminal("sql", question)
    assert "$'\\x1b[31m(1) > \\xff'" in shown and "2 rows" in shown
    assert shell.pipe("sql", "SELECT 1 WHERE 0")[:2] == (0, "")
    assert shell.lines("sql", "SELECT begin FROM current_images WHERE tgid = 902;")[0]["begin"].endswith(".000000001")  # type: ignore[attr-defined]


@pytest.mark.parametrize("statement", ["SELEC 1", "", "SELECT nothing FROM images"])
def test_sql_that_is_refused_is_one_sentence(shell: Shell, statement: str) -> None:
    code, out, err = shell.pipe("sql", statement)
    assert (code, out, err.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("statement", ["DROP TABLE images", "INSERT INTO images (tgid) VALUES (1)"])
def test_sql_that_a_reader_may_not_is_one_sentence(shell: Shell, statement: str) -> None:
    needs_its_own_clickhouse("is about the embedded server's reader")
    code, out, err = shell.pipe("sql", statement)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_store_that_is_not_there_is_one_sentence(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["ps", "--store", "/nowhere/at/all"]) == 2
    assert (
        capsys.readouterr().err
        == "tasktrail: there is no store in /nowhere/at/all; record with tasktrail run, or name another store with --store\n"
    )


def test_a_closed_pipe_ends_a_command_without_a_word(shell: Shell) -> None:
    environment = {**os.environ, "TASKTRAIL_STORE": shell.place}
    command = [sys.executable, "-m", "tasktrail", "sql", "SELECT number, repeat('x', 100) FROM numbers(1000000)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait() == 141


def test_watch_shows_an_exec_that_comes(shell: Shell, family: Store) -> None:
    environment = {**os.environ, "TASKTRAIL_STORE": shell.place, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tasktrail", "watch", "--host", "w9", "--count", "1", "--interval", "0.05"]
    host = World(b"w9", UUID(int=95), UUID(int=96))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        number = 0
        while child.poll() is None and number < 400:
            # watch shows what comes after its start, of which it gives no sign: so execs come until it has seen one.
            number += 1
            row = World(b"w9", UUID(int=95), UUID(int=96)).root(1000 + number, b"new").now
            family.write([row._replace(begin_boottime=number * S, start_boottime=number * S)])
        found = json.loads(child.stdout.readline())
        assert child.wait() == 0
    assert host and found["image"]["host"] == "w9" and found["image"]["comm"] == "new"


def test_status_of_a_store_that_nobody_writes(shell: Shell) -> None:
    code, out, _ = shell.pipe("status", "--json")
    found = json.loads(out)
    assert code == 4 and found["recording_and_storing"] is False
    assert found["store"]["rows"] > 0 and found["losses"][0]["cause"] == "no_recorder"
    code, out, _ = shell.pipe("status")
    assert code == 4 and "nobody recorded between" in out
