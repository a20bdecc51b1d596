"""The kernel does not run a program that runs on this CPU already, and counts it (recursion_misses). Here it really does so.

A raw tracepoint program may be attached to any tracepoint that hands over enough arguments. The program for exits is attached to
``kmem_cache_free`` besides its own: memory is also freed in interrupts, and one that comes while the program runs wants to run it again.
Run there alone it returns at once, for the second argument, a pointer, is even: it reads as a thread that was not the last one.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_tools import Live, new_pin_dir, output, remove_pins, settings, wait_until

from producers import host, loader, recording
from producers.bpf import pins, source, syscall
from producers.bpf.btf import Btf
from producers.recorder import Recorder
from schemas import events
from schemas.rows import LossCause, LossRow
from streams.join import HostState, apply

INSIDE = "kmem_cache_free"


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Live]:
    """A recorder whose programs are raw ones, as on a kernel that refuses typed arguments."""
    pin_dir, chosen = new_pin_dir(), settings(tmp_path)
    pin_dir.mkdir()
    program = source.generate(Btf.of_kernel(), chosen.programs)._replace(types={})
    loader._load_new(pin_dir, chosen, program)
    live = Live(pin_dir, chosen)
    yield live
    live.close()
    remove_pins(pin_dir)


def misses(recorder: Recorder) -> int:
    """What the kernel says of all four programs."""
    return sum(syscall.program_info(fd).recursion_misses for fd in recorder._programs.values())


def make_the_kernel_skip(recorder: Recorder, programs: Path) -> int:
    """Storms until the program for exits was skipped; how often it was."""
    extra = syscall.attach_raw_tracepoint(recorder._programs["exit"], INSIDE)
    try:

        def skipped() -> int:
            output(programs / "storm", "1000", "2", programs / "tiny")
            return misses(recorder)

        wait_until(skipped, "the kernel skipping a program", 60)
    finally:
        os.close(extra)
    return misses(recorder)


def clock_values(live: Live) -> list[int]:
    """``skipped`` of each clock mark that was read."""
    return [record.values[2] for record in live.records if isinstance(record, events.MarkRecord) and record.mark == events.Mark.CLOCK]


def test_what_the_kernel_skips_is_counted_marked_and_becomes_a_loss_exactly(raw: Live, programs: Path) -> None:
    assert raw.recorder.counters().skipped == 0
    made = make_the_kernel_skip(raw.recorder, programs)
    number = syscall.program_info(raw.recorder._programs["exit"]).program_id
    shown = json.loads(subprocess.run(["bpftool", "-j", "prog", "show", "id", str(number)], check=True, capture_output=True).stdout)
    assert shown["recursion_misses"] == made > 0
    assert raw.recorder.counters().skipped == made
    assert raw.recorder.clock()
    this_host = host.here(raw.chosen.state_dir)
    state = HostState()
    rows = []
    while (batch := recording.next_batch(raw.recorder, this_host)).body:
        assert batch.skipped == made
        rows += apply(state, batch)
        raw.recorder.ring.release(batch.end)
    losses = [row for row in rows if isinstance(row, LossRow) and row.cause == LossCause.SKIPPED]
    assert [loss.amount for loss in losses] == [made]
    assert losses[0].detail == b"%d times that the kernel did not run a program of the recorder" % made


def test_skips_of_replaced_programs_are_counted_once_before_and_after_the_reader_follows(raw: Live, programs: Path) -> None:
    made = make_the_kernel_skip(raw.recorder, programs)
    replaced = raw.recorder._programs["exit"]
    other = raw.chosen._replace(programs=raw.chosen.programs._replace(argv_bytes=100))
    assert loader.load(raw.pin_dir, other).outcome is loader.Outcome.HANDOVER
    assert syscall.program_info(replaced).recursion_misses > 0, "the reader holds the replaced programs still"
    assert raw.recorder.counters().skipped == made
    assert raw.recorder.clock()
    assert raw.recorder.refresh()
    assert misses(raw.recorder) == 0
    assert raw.recorder.counters().skipped == made
    assert raw.recorder.clock()
    raw.read()
    assert clock_values(raw)[-2:] == [made, made]
    meta = pins.open_meta(raw.pin_dir)
    assert meta.read(pins.Field.SKIPPED) == made
    os.close(meta.fd)
