"""Spare copies of the programs: attached after the first ones, they do what those were not run for, and nothing else.

Kernels before 7.0 do not skip programs in a storm, so here a copy is kept from running by not being attached.
tests/kernels/inside/preempted.py is about kernels that do.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_tools import Live, new_pin_dir, output, remove_pins, settings
from test_storm import check_exactly_once, children_of

from producers import loader, spares
from producers.bpf import pins, source, syscall
from producers.bpf.btf import Btf
from producers.bpf.source import SpareCount
from producers.recorder import Recorder
from schemas import events

RENAMES = "for name in one two one; do printf $name >/proc/$$/comm; done; echo $$"


def program_of(chosen: loader.Settings, *, direct: bool = True, spare: bool = True) -> source.Program:
    """As on a kernel that may skip the first copies, or not; and that takes typed arguments, or not."""
    program = source.generate(Btf.of_kernel(), chosen.programs)._replace(spare=spare)
    return program if direct else program._replace(types={})


@pytest.fixture(params=[True, False], ids=["direct", "raw"])
def spared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Live]:
    """A recorder with spare copies."""
    pin_dir, chosen = new_pin_dir(), settings(tmp_path, ring_bytes=64 << 20)
    pin_dir.mkdir()
    loader._load_new(pin_dir, chosen, program_of(chosen, direct=request.param))
    live = Live(pin_dir, chosen)
    live.forget()
    yield live
    live.close()
    remove_pins(pin_dir)


def numbers(recorder: Recorder) -> dict[SpareCount, int]:
    """What the spare copies counted."""
    return {one: spares.read_counter(recorder._fds[pins.SPARE_COUNTS], one) for one in SpareCount}


def storm(programs: Path) -> list[list[str]]:
    """Two thousand children of two workers."""
    return output(programs / "storm", "2000", "2", programs / "tiny")


@pytest.mark.parametrize(
    ("release", "may_be"),
    [("5.10.0-32-cloud-amd64", False), ("6.19.2", False), ("7.0.0-rc1", True), ("7.2.13+deb14-cloud-amd64", True), ("10.1", True)],
)
def test_kernels_that_may_preempt_the_programs_get_spare_copies(release: str, may_be: bool) -> None:
    assert source.may_be_preempted(release) == may_be


def test_a_spare_copy_does_nothing_where_the_first_one_ran(spared: Live, programs: Path) -> None:
    assert pins.present(spared.pin_dir) == {*pins.ALL, *pins.SPARES}
    kinds = {syscall.program_info(fd).kind for fd in (*spared.recorder._programs.values(), *spared.recorder._spares.values())}
    assert len(kinds) == 1, "both copies read in the same way"
    lines = storm(programs)
    spared.catch_up()
    check_exactly_once(spared.records, children_of(lines))
    assert set(numbers(spared.recorder).values()) == {0}
    assert spared.recorder.counters().skipped == 0


def test_a_spare_copy_records_all_that_the_first_one_is_not_run_for(spared: Live, programs: Path) -> None:
    recorder = spared.recorder
    for short in pins.LINKS:
        (spared.pin_dir / pins.LINKS[short]).unlink()
        os.close(recorder._fds[pins.LINKS[short]])
        recorder._fds[pins.LINKS[short]] = os.open("/dev/null", os.O_RDONLY)
    spared.forget()
    before = numbers(recorder)
    lines = storm(programs)
    spared.catch_up()
    check_exactly_once(spared.records, children_of(lines))
    saved = {one.name: count - before[one] for one, count in numbers(recorder).items()}
    for short, kind in (("FORK", events.Fork), ("EXEC", events.Exec), ("EXIT", events.Exit)):
        assert saved[f"SAVED_{short}"] >= sum(isinstance(record, kind) for record in spared.records) >= 2000
        assert saved[f"UNSURE_{short}"] == 0


def test_renames_are_recorded_once_by_whichever_copy_ran(spared: Live) -> None:
    told = []
    for detached in (False, True):
        if detached:
            (spared.pin_dir / pins.LINKS["rename"]).unlink()
            os.close(spared.recorder._fds[pins.LINKS["rename"]])
            spared.recorder._fds[pins.LINKS["rename"]] = os.open("/dev/null", os.O_RDONLY)
        spared.forget()
        assert numbers(spared.recorder)[SpareCount.SAVED_RENAME] == 0
        ((tgid,),) = output("sh", "-c", RENAMES)
        spared.catch_up()
        told.append([(record.old_comm, record.comm) for record in spared.of(int(tgid)) if isinstance(record, events.Rename)])
    assert told[0] == told[1] == [(b"sh", b"one"), (b"one", b"two"), (b"two", b"one")]
    assert numbers(spared.recorder)[SpareCount.SAVED_RENAME] >= 3


def test_removed_pins_of_spare_copies_are_put_back(spared: Live) -> None:
    for name in pins.SPARES:
        (spared.pin_dir / name).unlink()
    assert spared.recorder.pin_again() == list(pins.SPARES)
    with Recorder(spared.pin_dir, spared.chosen.spool, spared.chosen.state_dir) as other:
        assert other.counters().skipped == 0
    assert loader.unload(spared.pin_dir, spared.chosen.spool).pins == len(pins.ALL) + len(pins.SPARES)
    assert not spared.pin_dir.exists()


def test_versions_with_and_without_spare_copies_take_over_from_each_other(programs: Path, tmp_path: Path) -> None:
    pin_dir, chosen = new_pin_dir(), settings(tmp_path, ring_bytes=64 << 20)
    pin_dir.mkdir()
    loader._load_new(pin_dir, chosen, program_of(chosen, spare=False))
    live = Live(pin_dir, chosen)
    try:
        live.forget()
        running = subprocess.Popen([programs / "storm", "20000", "2", programs / "tiny"], stdout=subprocess.PIPE, text=True)
        for number, spare in enumerate((True, True, False, True)):
            newer = chosen._replace(programs=chosen.programs._replace(argv_bytes=4000 - number))
            assert loader._load_over(pin_dir, newer, program_of(newer, spare=spare)).outcome is loader.Outcome.HANDOVER
            assert pins.present(pin_dir) == {*pins.ALL, *(pins.SPARES if spare else ())}
            live.read()
            if number % 2:  # until then the reader holds the older ones
                assert live.recorder.refresh()
                assert bool(live.recorder._spares) == spare
        assert running.poll() is None, "the storm goes on still"
        lines = [line.split() for line in running.communicate()[0].splitlines()]
        live.catch_up()
        check_exactly_once(live.records, children_of(lines))
        assert live.recorder.counters().skipped == 0
        assert set(numbers(live.recorder).values()) == {0}
    finally:
        live.close()
        remove_pins(pin_dir)
