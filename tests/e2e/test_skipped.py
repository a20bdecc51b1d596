"""The kernel skips a program of the recorder while `tasktrail run` records: table losses says how often, exactly."""

import os
import subprocess
from pathlib import Path

from producers import loader
from producers.bpf import pins, source, syscall
from producers.bpf.btf import Btf
from tests.e2e.running import Place, wait_until

INSIDE = "kmem_cache_free"
"""Tracepoint that also fires in interrupts: one that comes while the program for exits runs makes the kernel skip it. See
tests/kernel/test_skipped.py."""

TOLD = "SELECT sum(amount), countIf(NOT startsWith(detail, toString(amount))) FROM losses WHERE cause = 'skipped'"


def load_raw_programs(place: Place) -> dict[str, int]:
    """A recorder of raw tracepoint programs, as on a kernel that refuses typed arguments; descriptors of its programs."""
    programs = source.Settings(ring_bytes=64 << 20)
    chosen = loader.Settings(programs, place.run_dir / "snapshots", place.state_dir)
    place.pin_dir.mkdir()
    loader._load_new(place.pin_dir, chosen, source.generate(Btf.of_kernel(), programs)._replace(types={}))
    descriptors = {}
    for short, name in pins.LINKS.items():
        link = pins.open_object(place.pin_dir, name)
        descriptors[short] = syscall.open_program(syscall.link_info(link).program_id)
        os.close(link)
    return descriptors


def test_what_the_kernel_skips_is_a_loss_of_exactly_that_many(place: Place, programs: Path) -> None:
    held = load_raw_programs(place)
    place.start("--no-load")

    def skipped() -> int:
        subprocess.run([programs / "storm", "1000", "2", programs / "tiny"], check=True, stdout=subprocess.DEVNULL)
        return sum(syscall.program_info(fd).recursion_misses for fd in held.values())

    for _ in range(2):
        extra = syscall.attach_raw_tracepoint(held["exit"], INSIDE)
        before = skipped()
        wait_until(lambda before=before: skipped() > before, "the kernel skipping a program", 60)
        os.close(extra)
        made = skipped()
        wait_until(lambda made=made: place.query(TOLD) == [(made, 0)], f"a loss of {made} in the store", 30)
        wait_until(lambda made=made: place.status()["skipped"] == made, "the status saying so")
    place.caught_up()
    assert place.query(TOLD) == [(made, 0)]
    for fd in held.values():
        os.close(fd)
