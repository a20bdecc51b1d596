"""Names and arguments made to deceive: byte for byte in the store and in JSON, and nothing but text on a terminal."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from queries.jsonlines import exact
from tests.e2e.running import TASKTRAIL, Place, open_directory

NAMES = (
    b"new\nline\n> init(1)",
    b"clear\x1b[2J\x1b[H",
    b"title\x1b]0;owned\x07",
    b"a => init(1)",
    b"x;pid=1;start=20200101000000",
    b"=>name=init;pid=1",
    b"quote\"s 'and' \\ back",
    b"not utf-8 \xff\xfe\x80\xc0",
    b"exactly-15-byte",
    b"back\x08\x08\x08\rover",
    "bidi \u202egnp.exe\u2066".encode(),
    b"c1 \xc2\x9b2J \x9b2J",
    b"tab\tand\x0bmore\x7f",
    b"$(touch owned)`touch owned`",
    b"--help",
    b" ",
    b"{{json}} {tgid:UInt32} %s",
)
SHOWN = re.compile(r"\x1b\[[0-9;]*m")
"""Colours are the only thing that a terminal may be told."""
FORBIDDEN = re.compile("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Forged(NamedTuple):
    """What ran: pid, and the file's name, for each of the names."""

    place: Place
    shell: int
    ran: dict[int, bytes]


@pytest.fixture(scope="module")
def forged() -> Iterator[Forged]:
    """All of them, run below one shell and stored."""
    with open_directory() as directory:
        place = Place(directory)
        try:
            place.start()
            shell = subprocess.Popen(["/bin/sh", "-c", "while read -r path; do :; done; :"], stdin=subprocess.PIPE)
            ran = {}
            for name in NAMES:
                path = os.fsencode(directory) + b"/" + name
                Path(os.fsdecode(path)).write_bytes(Path("/bin/true").read_bytes())
                os.chmod(path, 0o755)
                process = subprocess.Popen([name, b"", name * 3], executable=path)
                assert process.wait() == 0
                ran[process.pid] = name
            place.caught_up()
            yield Forged(place, os.getpid(), ran)
            shell.communicate()
        finally:
            place.clear()


def on_terminal(place: Place, *arguments: str) -> str:
    """What a command writes to a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    environment = {**place.env, "TERM": "xterm-256color", "COLUMNS": "200"}
    command = subprocess.Popen([*TASKTRAIL, *arguments], env=environment, cwd="/", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:
        pass  # the other end is closed
    finally:
        os.close(ours)
    assert command.wait() in (0, 1), written
    return written.decode("utf-8", "surrogateescape")


def test_the_store_has_every_byte(forged: Forged) -> None:
    ((above,),) = forged.place.query(
        "SELECT chain_comm FROM current_images WHERE tgid = {tgid:UInt32} AND end_kind = 'living'", tgid=forged.shell
    )
    for tgid, name in forged.ran.items():
        ((comm, exe, argv, chain),) = forged.place.query(
            "SELECT comm, exe, argv, chain_comm FROM current_images WHERE tgid = {tgid:UInt32} AND length(argv) = 3",
            tgid=tgid,
        )
        assert comm == name[:15]
        assert exe == os.fsencode(forged.place.directory) + b"/" + name
        assert list(argv) == [name, b"", name * 3]
        assert list(chain) == [*above, name[:15]], "one element more than its creator's chain, and no other"


def test_json_has_every_byte(forged: Forged) -> None:
    for tgid, name in forged.ran.items():
        text = forged.place.ask("history", str(tgid), "--json")
        assert len(text.splitlines()) == 1
        last = json.loads(text)["images"][-1] if "images" in json.loads(text) else json.loads(text)["image"]
        assert exact(last, "comm") == name[:15]
        assert exact(last, "argv") == [name, b"", name * 3]


@pytest.mark.parametrize(
    "command",
    [
        ("history", "{tgid}"),
        ("history", "{tgid}", "--long"),
        ("history", "{tgid}", "--format", "patch"),
        ("tree", "{shell}", "--dead"),
        ("ps",),
        ("find", "--under", "{shell}"),
        ("sql", "SELECT comm, exe, argv FROM current_images WHERE length(argv) = 3"),
        ("sql", "SELECT comm, exe, argv FROM current_images WHERE length(argv) = 3", "--format", "tsv"),
        ("sql", "SELECT comm, exe, argv FROM current_images WHERE length(argv) = 3", "--format", "csv"),
    ],
    ids=" ".join,
)
def test_a_terminal_is_told_text_and_colours_only(forged: Forged, command: tuple[str, ...]) -> None:
    pids = list(forged.ran) if "{tgid}" in command else [0]
    for tgid in pids:
        words = [word.replace("{tgid}", str(tgid)).replace("{shell}", str(forged.shell)) for word in command]
        shown = SHOWN.sub("", on_terminal(forged.place, *words))
        # Columns of tsv are set apart by tabs.
        text = shown.replace("\r\n", "\n").replace("\t", " " if "tsv" in words else "\t")
        found = FORBIDDEN.search(text)
        assert not found, f"{words}: {text[max(0, found.start() - 80) : found.end() + 40]!r}"
        assert not any(line.startswith("> init(1)") for line in text.splitlines())


def test_nothing_was_executed(forged: Forged) -> None:
    assert not list(forged.place.directory.rglob("owned")) and not Path("/owned").exists() and not Path("owned").exists()
