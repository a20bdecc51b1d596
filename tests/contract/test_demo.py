"""``tasktrail demo`` as a person runs it, and the store that it leaves."""

import json
import subprocess
import sys
from pathlib import Path

from tests.contract.conftest import open_path

ROOT = Path(__file__).resolve().parents[2]


def tasktrail(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, its output a pipe."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TZ": "UTC"}
    command = [sys.executable, "-m", "tasktrail", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=120, check=False)


def test_it_shows_every_command_in_the_form_for_people(tmp_path: Path) -> None:
    done = tasktrail("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode()
    assert "\x1b" not in text
    assert all(f"$ tasktrail {command}" in text for command in ("history", "tree", "ps", "find", "sql"))
    lines = text.splitlines()
    compiler = "systemd(1) > sshd(272) > sshd(382) > sshd(395) > bash(396) > make(409) > cc(412) > cc1(413)"
    assert lines.count(compiler) == 2
    assert "2026-11-25 17:11:18.198  alice  make(409)  exec  make  in /home/alice/hello  exit 0 after 7.1 s" in lines
    assert "│   ├── cc1(413)  alice  exit 0 after 3.5 s" in text
    assert "        └── memfd:a(686)  www-data  '[kworker/0:1]' 1802" in lines
    # How it begins depends on today: a time of the last 20 hours is shown without its day (queries.times.show_clock).
    assert any(line.endswith("  alice  crash(432)       ./crash                    SIGSEGV") for line in lines)
    assert "$'\\x1b]0;owned\\x07' 'one argument'" in text
    assert "87 living, 32 of them with a chain that is not complete" in lines
    assert b"replayed 2761 events" in done.stderr


def test_its_store_can_be_kept_and_asked(tmp_path: Path) -> None:
    open_path(tmp_path)
    assert tasktrail("demo", "--store", "kept", cwd=tmp_path).returncode == 0
    found = tasktrail("find", "--comm", "cc1", "--store", "kept", cwd=tmp_path)
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["comm"] for row in rows] == ["cc1"] * 8, found.stderr.decode()
    again = tasktrail("demo", "--store", "kept", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (2, b"")
    assert b"holds a store already" in again.stderr
