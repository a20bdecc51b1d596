"""The command line without a store: what it lists, how it fails, decode, config, and what goes to a terminal."""

import importlib.metadata
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import click
import pytest
from rich.console import Console

from queries.jsonlines import exact
from schemas import events
from schemas.batch import Batch, BatchKind, encode_batch, frame
from schemas.events import Kind, Mark
from tasktrail import terminal
from tasktrail.cli import COMMANDS, cli, run_command
from tasktrail.terminal import Column, fit_chain

READING = ["history", "tree", "ps", "find", "watch", "sql", "status", "doctor", "config", "decode"]


def test_help_lists_every_command_and_loads_none() -> None:
    code = "import sys; from tasktrail.cli import run_command; run_command(['--help'])"
    code += "; print(sorted({'rich', 'clickhouse_driver', 'bcc'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"\n  {name}" in done.stdout for name in COMMANDS)
    assert done.stdout.endswith("[]\n")


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command([name, "--help"]) == 0
    assert "Examples:" in capsys.readouterr().out


def test_version_says_whether_the_join_is_compiled(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = importlib.metadata.version("tasktrail")
    monkeypatch.setattr("tasktrail.cli.JOIN", tmp_path)
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"tasktrail {version}\n"
    (tmp_path / "transitions.cpython-311-x86_64-linux-gnu.so").touch()
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"tasktrail {version}, its join compiled\n"


def test_what_is_no_command_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["histroy"]) == 2
    assert "histroy" in capsys.readouterr().err
    assert cli.get_command(click.Context(cli), "histroy") is None


def test_config_says_whence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "tasktrail.toml"
    file.write_text("retention_days = 7\n")
    assert run_command(["config", "--config", str(file), "--store", "/x", "--json"]) == 0
    found = {line["setting"]: (line["value"], line["from"]) for line in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["retention_days"] == (7, str(file)) and found["store"] == ("/x", "--store")
    file.write_text("nonsense = 1\n")
    assert run_command(["config", "--config", str(file)]) == 2
    assert capsys.readouterr().err.startswith("tasktrail: setting 'nonsense' from ")


# -- decode --


def mark(kind: Mark, value: int) -> bytes:
    return frame(events.MARK.pack(Kind.MARK, events.RECORD_VERSION, 0, 1 << 31 | 1, 1, 2, 3, 4, 5, 0, kind, value, *(0,) * 7))


RENAME = frame(events.RENAME.pack(Kind.RENAME, events.RECORD_VERSION, 0, 0, 1, 2, 3, 4, 5, 0, 6, b"a", b"\xff\x1b"))


def recording(*bodies: bytes) -> bytes:
    at, data = 0, b""
    for body in bodies:
        data += encode_batch(Batch(BatchKind.EVENTS, UUID(int=1), UUID(int=2), 3, at, at + len(body), 5, 6, 7, 8, b"host", body))
        at += len(body)
    return data


def decode(path: Path, data: bytes, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, object]], str]:
    path.write_bytes(data)
    code = run_command(["decode", str(path), *options])
    captured = capsys.readouterr()
    return code, [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_decode_writes_headers_and_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = mark(Mark.SNAPSHOT_END, 77)
    code, lines, _ = decode(tmp_path / "r", recording(first, RENAME), capsys)
    assert code == 0
    assert [(line["record"], line.get("start", line.get("position"))) for line in lines] == [
        ("batch", 0),
        ("mark", 8),
        ("batch", len(first)),
        ("rename", len(first) + 8),
    ]
    assert lines[1]["mark"] == "snapshot_end" and lines[1]["flags"] == ["argv_cut", str(1 << 31)]
    assert exact(lines[3], "comm") == b"\xff\x1b"
    assert [line["record"] for line in decode(tmp_path / "r", recording(first, RENAME), capsys, "--headers")[1]] == ["batch", "batch"]


def test_decode_of_a_cut_recording_gives_the_good_part_and_exit_code_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, err = decode(tmp_path / "r", recording(RENAME, RENAME)[:-5], capsys)
    assert code == 3 and [line["record"] for line in lines] == ["batch", "rename"]
    assert err.count("\n") == 1 and "what stands before it is good" in err


def test_decode_shows_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines, err = decode(tmp_path / "r", recording(frame(b"\x63" * 48) + RENAME), capsys)
    assert code == 3 and [line["record"] for line in lines] == ["batch", "undecodable", "rename"]
    assert lines[1]["bytes_hex"] == "63" * 48 and "1 record could not be read" in err
    assert decode(tmp_path / "r", b"no recording", capsys)[0] == 3
    assert run_command(["decode", str(tmp_path / "nothing")]) == 2


# -- terminal --


def shown(width: int, *rows: tuple[str, str]) -> list[str]:
    out = Console(width=width, file=io.StringIO(), highlight=False, markup=False)
    terminal.table((Column("NAME"), Column("COMMAND", elastic=True)), rows, out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue().splitlines()


def test_a_table_fits_and_only_the_elastic_column_gives_way() -> None:
    lines = shown(30, ("make(4650)", "make " + "x" * 100), ("[red]a[/red]", "[bold]"))
    assert max(map(len, lines)) <= 30
    assert lines[1].startswith("make(4650)    make xxx") and lines[1].rstrip().endswith("…")
    assert lines[2].startswith("[red]a[/red]  [bold]")


def test_wide_characters_count_double() -> None:
    assert all(Console().measure(line).maximum <= 20 for line in shown(20, ("日本", "日本" * 20)))


@pytest.mark.parametrize(
    ("room", "fits"),
    [
        (100, "systemd(1) > sshd(2) > bash(3) > make(4)"),
        (40, "systemd(1) > sshd(2) > bash(3) > make(4)"),
        (39, "systemd(1) > … > bash(3) > make(4)"),
        (30, "systemd(1) > … > make(4)"),
        (23, "… > bash(3) > make(4)"),
        (3, "… > make(4)"),
    ],
)
def test_a_chain_loses_its_middle_first(room: int, fits: str) -> None:
    assert fit_chain(["systemd(1)", "sshd(2)", "bash(3)", "make(4)"], room, "…") == fits


def test_a_tree_stands_in_its_lines() -> None:
    out = Console(width=20, file=io.StringIO(), highlight=False, markup=False)
    terminal.trees([("a", 0, False), ("b", 1, False), ("c" * 30, 2, True), ("d", 1, False)], out)
    assert isinstance(out.file, io.StringIO)
    assert out.file.getvalue().splitlines() == ["a", "├── b", "│   └── " + "c" * 11 + "…", "└── d"]


def test_the_environment_names_the_store(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasktrail", "ps"],
        capture_output=True,
        text=True,
        env={**os.environ, "TASKTRAIL_STORE": str(tmp_path / "none")},
        check=False,
    )
    assert done.returncode == 2 and str(tmp_path / "none") in done.stderr
