"""Thirty newer versions take over one after another while one storm goes on; and loaders and unloaders that come at the same time."""

import os
import re
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from kernel_tools import Live, key, load_live, output, remove_pins, unload_live, wait_until
from test_storm import Child, check_exactly_once, children_of

from producers import loader
from producers.bpf import pins, probes, source
from producers.bpf.btf import Btf
from producers.recorder import Recorder
from schemas import events

HANDOVERS = 30
VERSIONS = 4
"""So many are compiled, which takes a second or two each, and follow each other in turn."""
STORM = 30_000
PROCESS_BYTES = 400
"""Less than a process of the storm takes in the ring, so that the last handover comes while it still goes on."""


def versions(live: Live) -> list[tuple[loader.Settings, source.Program, loader._Programs]]:
    """Programs that differ from each other, compiled and loaded into the kernel, but not attached."""
    maps = {name: pins.open_object(live.pin_dir, name) for name in pins.MAPS}
    types = Btf.of_kernel()
    made = []
    for number in range(VERSIONS):
        programs = live.chosen.programs._replace(argv_bytes=4000 - number)
        program = source.generate(types, programs)
        if number % 2:
            program = program._replace(types={})  # raw ones and typed ones take over from each other too
        made.append((live.chosen._replace(programs=programs), program, loader._load_programs(program, maps)))
    for fd in maps.values():
        os.close(fd)
    return made


def test_thirty_handovers_in_one_storm_lose_and_double_nothing(programs: Path, tmp_path: Path) -> None:
    live = load_live(tmp_path, ring_bytes=64 << 20)
    try:
        prepared = versions(live)
        live.forget()
        meta, begin = pins.open_meta(live.pin_dir), live.recorder.ring.producer()
        storm = subprocess.Popen([programs / "storm", str(STORM), "2", programs / "tiny"], stdout=subprocess.PIPE, text=True)
        assert storm.stdout
        lines: list[str] = []
        said = storm.stdout
        collector = threading.Thread(target=lambda: lines.extend(said))
        collector.start()
        for number in range(HANDOVERS):
            chosen, program, loaded = prepared[number % VERSIONS]
            part = begin + number * STORM * PROCESS_BYTES // HANDOVERS
            wait_until(lambda part=part: live.recorder.ring.producer() >= part, "the storm going on")
            assert storm.poll() is None
            assert loader._switch(live.pin_dir, chosen, program, meta, loaded) is loader.Outcome.HANDOVER
            if number % 3 == 2:  # until then the reader holds the older ones, so that up to four copies run
                assert live.recorder.refresh()
        collector.join()
        assert storm.wait() == 0
        said.close()
        for fd in (meta.fd, *(fd for _, _, loaded in prepared for fd in loaded.descriptors.values())):
            os.close(fd)
        live.catch_up()
        marks = [record for record in live.records if isinstance(record, events.MarkRecord) and record.mark == events.Mark.ATTACHED]
        assert [mark.values[0] for mark in marks] == [1] * HANDOVERS
        assert {record.epoch for record in live.records} >= {loaded.epoch for _, _, loaded in prepared}
        check_exactly_once(live.records, children_of([line.split() for line in lines]))
        assert len(lines) == STORM
        counters = live.recorder.counters()
        assert (counters.skipped, counters.lost, counters.once_full) == (0, 0, 0)
    finally:
        unload_live(live)


def has_loaded(loading: subprocess.Popen[str]) -> bool:
    """Whether this loader holds most of its programs, and so is about to attach them; or has ended."""
    with suppress(subprocess.TimeoutExpired):
        loading.wait(0.1)  # looking all the time would take half of a small machine
        return True
    with suppress(FileNotFoundError):  # a file that it closed meanwhile
        open_files = [os.readlink(path) for path in Path(f"/proc/{loading.pid}/fd").iterdir()]
        return open_files.count("anon_inode:bpf-prog") > len(probes.EVENTS)
    return False


def check_all_but(records: list[events.Record], children: list[Child], skipped: int) -> None:
    """Everything exactly once; or, where the kernel says that it skipped programs (Linux 7.0 lets them be preempted), no more missing."""
    if not skipped:
        check_exactly_once(records, children)
        return
    pids = {child.pid for child in children}
    kinds = (events.Fork, events.Exec, events.Exit)
    told = Counter((type(record), *key(record)) for record in records if isinstance(record, kinds) and record.tgid in pids)
    assert set(told.values()) == {1}
    assert len(kinds) * len(children) - skipped <= len(told) <= len(kinds) * len(children)


def test_an_upgrade_by_the_command_loses_and_doubles_nothing(live: Live, programs: Path) -> None:
    """`tasktrail record load` with another setting, as on any host. One storm follows another from before it attaches its programs."""
    where = ["--pin-dir", str(live.pin_dir), "--run-dir", str(live.chosen.spool.parent), "--state-dir", str(live.chosen.state_dir)]
    same = ["--ring-size", str(live.recorder.ring.size_bytes), "--processes", str(live.chosen.programs.processes)]
    command = [sys.executable, "-m", "tasktrail", "record", "load", *where, *same, "--argv-bytes", "4000"]
    upgrade = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    skipped = live.recorder.counters().skipped
    wait_until(lambda: has_loaded(upgrade), "the loading of newer programs", 120)
    lines: list[list[str]] = []
    ended = False
    while not ended:
        ended = upgrade.poll() is not None  # one more storm while the reader still holds the older programs
        lines += output(programs / "storm", "300", "1", programs / "tiny")
        live.read()
    _, said = upgrade.communicate()
    assert upgrade.returncode == 0 and loader.Outcome.HANDOVER.value in said, said
    before = live.recorder.epoch
    assert live.recorder.refresh() and live.recorder.epoch != before
    lines += output(programs / "storm", "300", "2", programs / "tiny")
    live.catch_up()
    counters = live.recorder.counters()
    check_all_but(live.records, children_of(lines), counters.skipped - skipped)
    assert {record.epoch for record in live.records if isinstance(record, events.Exec)} == {before, live.recorder.epoch}
    assert live.recorder.probe() and live.recorder.exec_probe()
    assert (counters.lost, counters.once_full) == (0, 0)


class Command:
    """`tasktrail record ...` as a process of its own."""

    def __init__(self, pin_dir: Path, directory: Path, *words: str) -> None:
        where = ["--pin-dir", str(pin_dir), "--run-dir", str(directory / "run")]
        state = ["--state-dir", str(directory / "state")] if words[0] == "load" else []
        command = [sys.executable, "-m", "tasktrail", "record", *words, *where, *state]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def end(self) -> tuple[int, str]:
        """Its exit code, and the one line that it said."""
        _, said = self.process.communicate(timeout=60)
        assert said.count("\n") == 1, said
        return self.process.returncode, said


@pytest.fixture
def place(pin_dir: Path, tmp_path: Path) -> Path:
    """Where locks and identity lie."""
    return tmp_path


def test_of_two_loaders_of_different_versions_one_comes_first_and_the_other_takes_over(pin_dir: Path, place: Path) -> None:
    both = [Command(pin_dir, place, "load", "--argv-bytes", size) for size in ("100", "200")]
    ended = [one.end() for one in both]
    assert [code for code, _ in ended] == [0, 0]
    outcomes = sorted(re.fullmatch(r".*: (.*) \(ring \d+, epoch [0-9a-f]{8}\)\n", said)[1] for _, said in ended)  # type: ignore[index]
    assert outcomes == [loader.Outcome.NEW.value, loader.Outcome.HANDOVER.value]
    with Recorder(pin_dir, place / "run" / "snapshots", place / "state") as recorder:
        assert recorder.probe() and recorder.exec_probe()
    assert Command(pin_dir, place, "unload").end()[0] == 0


def test_of_two_unloaders_one_wins_and_the_other_says_that_nothing_is_there(pin_dir: Path, place: Path) -> None:
    assert Command(pin_dir, place, "load").end()[0] == 0
    both = [Command(pin_dir, place, "unload") for _ in range(2)]
    ended = sorted(one.end() for one in both)
    assert [bool(code) for code, _ in ended] == [False, True]
    assert "recording has ended" in ended[0][1]
    assert re.search(rf"no recorder in {pin_dir}; there is nothing to unload", ended[1][1])
    assert not pin_dir.exists()


@pytest.mark.parametrize("first", ["load", "unload"])
def test_a_loader_and_an_unloader_at_once_come_one_after_the_other(pin_dir: Path, place: Path, first: str) -> None:
    """Whoever has the lock first: the pins are all there or all gone, and both say what they did."""
    assert Command(pin_dir, place, "load").end()[0] == 0
    order = [first, "load" if first == "unload" else "unload"]
    both = {word: Command(pin_dir, place, word) for word in order}
    ended = {word: one.end() for word, one in both.items()}
    assert [code for code, _ in ended.values()] == [0, 0]
    assert "recording has ended" in ended["unload"][1]
    if loader.Outcome.NEW.value in ended["load"][1]:
        assert pins.present(pin_dir) == set(pins.ALL)
        assert Command(pin_dir, place, "unload").end()[0] == 0
    else:
        assert loader.Outcome.UNCHANGED.value in ended["load"][1]
    assert not pin_dir.exists()
    remove_pins(pin_dir)
