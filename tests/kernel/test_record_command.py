"""The commands load, status, dump and unload, as a person runs them."""

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_tools import output, wait_until

from producers.recording import read_recording
from schemas import events
from schemas.batch import BatchKind, frames

TASKTRAIL = (sys.executable, "-m", "tasktrail", "record")


@pytest.fixture
def where(pin_dir: Path, tmp_path: Path) -> list[str]:
    """Options that keep everything of a test to itself."""
    return ["--pin-dir", str(pin_dir), "--run-dir", str(tmp_path / "run")]


@pytest.fixture
def loaded(where: list[str], tmp_path: Path) -> Iterator[list[str]]:
    """The same options, with a recorder loaded."""
    output(*TASKTRAIL, "load", *where, "--ring-size", "1MiB", "--state-dir", tmp_path / "state")
    yield where
    output(*TASKTRAIL, "unload", *where)


def failing(*command: str | Path) -> tuple[int, str]:
    """Exit code and words of a command."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_without_a_recorder_each_command_says_what_to_do(where: list[str], tmp_path: Path) -> None:
    for command in (["status"], ["dump", str(tmp_path / "file"), "--seconds", "1"]):
        code, words = failing(*TASKTRAIL, *command, *where)
        assert code == 4
        assert re.fullmatch(r"tasktrail: no recorder in \S+; run `tasktrail record load`\n", words)
    assert not (tmp_path / "file").exists()


def test_status_tells_that_it_records(loaded: list[str]) -> None:
    lines = dict(line for line in output(*TASKTRAIL, "status", *loaded) if len(line) == 2)
    assert (lines["recording"], lines["missing_pins"], lines["lost_fork"], lines["ring_bytes"]) == ("yes", "none", "0", str(1 << 20))
    assert int(lines["unread_bytes"]) > 0


def test_dump_holds_the_snapshot_and_every_event(loaded: list[str], programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "recording"
    dump = subprocess.Popen(
        [*TASKTRAIL, "dump", str(file), "--until-interrupted", *loaded, "--state-dir", str(tmp_path / "state")],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: file.exists() and file.stat().st_size > 1000, "the beginning of the dump")
    code, words = failing(*TASKTRAIL, "dump", tmp_path / "other", "--seconds", "1", *loaded)
    assert code == 4 and f"read by process {dump.pid} already" in words
    children = output(programs / "storm", "3000", "2", programs / "tiny")
    dump.send_signal(signal.SIGINT)
    assert dump.stderr
    assert "batches with" in dump.stderr.read()
    dump.stderr.close()
    assert dump.wait(timeout=20) == 0
    assert file.stat().st_mode & 0o777 == 0o600

    batches = list(read_recording(file))
    snapshots = [batch for batch in batches if batch.kind is BatchKind.SNAPSHOT]
    positions = [(batch.start, batch.end) for batch in batches if batch.kind is BatchKind.EVENTS]
    assert len(snapshots) == 2, "the loader's and the dump's own"
    assert positions[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(positions))
    waiting: set[int] = set()
    forks = set()
    for batch in batches:
        if batch.kind is BatchKind.SNAPSHOT:
            waiting.add(batch.lost)
            continue
        for at, size in frames(batch.body):
            record = events.decode_record(batch.body, at, size)
            if isinstance(record, events.MarkRecord) and record.mark == events.Mark.SNAPSHOT_END:
                waiting.remove(record.values[0])
            if isinstance(record, events.Fork):
                forks.add(record.tgid)
    assert not waiting, "each end mark comes after its snapshot"
    assert {int(line[0]) for line in children} <= forks
    assert list((tmp_path / "run" / "snapshots").glob("*.batch")) == []


def test_dump_begins_with_a_full_ring(where: list[str], tmp_path: Path, programs: Path) -> None:
    state = ["--state-dir", str(tmp_path / "state")]
    output(*TASKTRAIL, "load", *where, "--ring-size", "64KiB", *state)
    output(programs / "storm", "500", "1", programs / "tiny")
    output(*TASKTRAIL, "dump", tmp_path / "recording", "--seconds", "0", *where, *state)
    batches = list(read_recording(tmp_path / "recording"))
    assert [batch.kind for batch in batches[:2]] == [BatchKind.SNAPSHOT, BatchKind.EVENTS]
    assert BatchKind.SNAPSHOT in [batch.kind for batch in batches[2:]]
    assert batches[-1].lost > 500
    output(*TASKTRAIL, "unload", *where)


def test_dump_stops_by_itself(loaded: list[str], tmp_path: Path) -> None:
    output(*TASKTRAIL, "dump", tmp_path / "recording", "--seconds", "0.3", *loaded, "--state-dir", tmp_path / "state")
    assert len(list(read_recording(tmp_path / "recording"))) >= 2
    code, words = failing(*TASKTRAIL, "dump", tmp_path / "recording", *loaded)
    assert code == 2 and "give either --seconds or --until-interrupted" in words


def test_loading_says_what_happened(loaded: list[str], tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path / "state")]
    assert "loaded already" in failing(*TASKTRAIL, "load", *loaded, "--ring-size", "1MiB", *state)[1]
    assert "took over" in failing(*TASKTRAIL, "load", *loaded, "--ring-size", "1MiB", "--argv-bytes", "1K", *state)[1]
    code, words = failing(*TASKTRAIL, "load", *loaded, *state)
    assert code == 4 and "give --ring-size 1048576" in words
    assert os.geteuid() == 0
