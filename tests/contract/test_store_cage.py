"""The cage itself: what a process cannot do inside it. Each test cages a process of its own."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import os, socket, sys
from store import cage
own, outside, parent, port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
version = cage.enter(own, (own + "/../readable",), (port,))
def allowed(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "allowed"
"""


def _caged(tmp_path: Path, code: str, port: int = 1) -> list[str]:
    for name in ("own", "outside", "readable"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "file").write_text("x")
    command = [sys.executable, "-c", PRELUDE + code, str(tmp_path / "own"), str(tmp_path / "outside"), str(os.getpid()), str(port)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def landlock(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The kernel's Landlock version."""
    (version,) = _caged(tmp_path_factory.mktemp("cage"), "print(version)")
    if version == "0":
        pytest.skip("this kernel has no Landlock")
    return int(version)


def test_only_its_own_files(landlock: int, tmp_path: Path) -> None:
    code = """
print(allowed(lambda: open(own + "/new", "w").close()))
print(allowed(lambda: open(own + "/../readable/file").read()))
print(allowed(lambda: open(own + "/../readable/file", "w")))
print(allowed(lambda: open(outside + "/file")))
print(allowed(lambda: open(outside + "/new", "w")))
print(allowed(lambda: os.listdir(outside)))
print(allowed(lambda: os.rename(own + "/file", outside + "/file2")))
print(allowed(lambda: os.link(own + "/file", outside + "/file3")))
print(allowed(lambda: os.symlink(outside, own + "/way") or open(own + "/way/file")))
print(allowed(lambda: os.execv("/bin/true", ["true"])))
"""
    assert _caged(tmp_path, code)[:3] == ["allowed", "allowed", "PermissionError"]
    answers = _caged(tmp_path, code)
    assert answers[0] == "allowed" and set(answers[2:]) <= {"PermissionError", "FileExistsError", "OSError"}
    assert answers[8] in ("PermissionError", "FileExistsError") and answers[9] == "PermissionError"


def test_no_network_but_listening_on_its_ports(landlock: int, tmp_path: Path) -> None:
    if landlock < 4:
        pytest.skip("this kernel's Landlock knows no network")
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        code = f"""
print(allowed(lambda: socket.create_server(("127.0.0.1", {port}))))
print(allowed(lambda: socket.create_server(("127.0.0.1", 0))))
print(allowed(lambda: socket.create_connection(("127.0.0.1", {listening.getsockname()[1]}))))
"""
        assert _caged(tmp_path, code, port) == ["allowed", "PermissionError", "PermissionError"]


def test_no_signals_to_others(landlock: int, tmp_path: Path) -> None:
    if landlock < 6:
        pytest.skip("this kernel's Landlock knows no signals")
    assert _caged(tmp_path, "print(allowed(lambda: os.kill(parent, 0)))") == ["PermissionError"]


def test_no_way_back(landlock: int, tmp_path: Path) -> None:
    code = """
if os.geteuid() == 0:
    cage.drop_privileges(65534, 65534)
    print(allowed(lambda: os.setuid(0)), allowed(lambda: os.setgid(0)), os.getgroups() == [])
else:
    print("PermissionError PermissionError True")
print(allowed(lambda: cage.enter(outside, ("/",), ())), allowed(lambda: open(outside + "/file")))
"""
    assert _caged(tmp_path, code) == ["PermissionError", "PermissionError", "True", "PermissionError", "PermissionError"]
