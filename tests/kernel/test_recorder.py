"""An opened recorder: marks, probes, pins that are put back, the ring's positions, what the programs cost."""

import os
import subprocess
import threading
from pathlib import Path

from kernel_tools import Live, load_live, unload_live, wait_until

from producers.bpf import pins, syscall
from producers.recorder import Recorder
from schemas import events
from schemas.batch import BUSY, frames


def test_marks_carry_eight_values_and_say_who(live: Live) -> None:
    values = (1, 2**64 - 1, 3, 4, 5, 6, 7, 2**63)
    assert live.recorder.mark(77, *values)
    assert live.recorder.mark(78, 9)
    live.catch_up()
    marks = {record.mark: record for record in live.records if isinstance(record, events.MarkRecord)}
    assert marks[77].values == values
    assert marks[78].values == (9, 0, 0, 0, 0, 0, 0, 0)
    assert marks[77].tgid == os.getpid()
    assert int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) == marks[77].start_ns // 10_000_000


def test_a_mark_names_the_process_even_from_a_thread(live: Live) -> None:
    thread = threading.Thread(target=live.recorder.mark, args=(79, 1))
    thread.start()
    thread.join()
    live.catch_up()
    (mark,) = [record for record in live.records if isinstance(record, events.MarkRecord) and record.mark == 79]
    assert mark.tgid == os.getpid()


def test_probe_finds_itself_and_leaves_the_name_as_it_was(live: Live) -> None:
    before = Path("/proc/self/comm").read_bytes()
    assert live.recorder.probe()
    assert Path("/proc/self/comm").read_bytes() == before
    live.catch_up()
    there, back = [record for record in live.of(os.getpid()) if isinstance(record, events.Rename)]
    assert there.comm.startswith(events.PROBE_COMM) and back.old_comm == there.comm
    assert (there.old_comm + b"\n", back.comm + b"\n") == (before, before)


def test_probe_works_from_a_thread(live: Live) -> None:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(live.recorder.probe()))
    thread.start()
    thread.join()
    assert results == [True]


def test_exec_probe_finds_the_three_records(live: Live) -> None:
    assert live.recorder.exec_probe()
    live.catch_up()
    (fork,) = [record for record in live.records if isinstance(record, events.Fork) and record.creator_tgid == os.getpid()]
    assert [type(record) for record in live.of(fork.tgid)] == [events.Fork, events.Exec, events.Exit]


def test_probes_fail_when_the_links_are_gone(tmp_path: Path) -> None:
    live = load_live(tmp_path)
    recorder = live.recorder
    try:
        assert recorder.probe() and recorder.exec_probe()
        for short in ("rename", "exec"):
            os.close(recorder._fds.pop(pins.LINKS[short]))
            (live.pin_dir / pins.LINKS[short]).unlink()
        # The kernel lets go of a link whose last name is gone a little later, in a worker of its own.
        wait_until(lambda: not recorder.probe() and not recorder.exec_probe(), "the end of the links")
        assert recorder.mark(80), "marks need no link"
    finally:
        recorder._fds.update(dict.fromkeys((pins.LINKS["rename"], pins.LINKS["exec"]), os.open("/dev/null", os.O_RDONLY)))
        recorder._fds[pins.LINKS["exec"]] = os.open("/dev/null", os.O_RDONLY)
        unload_live(live)


def test_a_removed_pin_detaches_nothing_while_the_recorder_is_open(tmp_path: Path) -> None:
    live = load_live(tmp_path)
    try:
        for name in pins.ALL:
            (live.pin_dir / name).unlink()
        live.pin_dir.rmdir()
        assert live.recorder.missing_pins() == list(pins.ALL)
        assert live.recorder.probe() and live.recorder.exec_probe()
        assert live.recorder.pin_again() == list(pins.ALL)
        assert live.recorder.missing_pins() == live.recorder.pin_again() == []
        live.forget()
        live.close()
        live = Live(live.pin_dir, live.chosen)
        assert live.recorder.probe() and live.recorder.exec_probe()
    finally:
        unload_live(live)


def test_stretches_are_whole_records_and_tell_their_positions(live: Live) -> None:
    ring = live.recorder.ring
    live.read()
    for number in range(50):
        assert live.recorder.mark(81, number)
    begin = ring.consumer()
    whole = ring.stretch(1 << 20)
    assert whole[0] == begin and whole[1] - whole[0] == len(whole[2])
    parts, at = [], begin
    while at < whole[1]:
        start, end, body = ring.stretch(300, at)
        assert start == at and 0 < end - start == len(body) <= 300
        parts.append(body)
        at = end
    assert b"".join(parts) == whole[2]
    assert len(ring.stretch(1, begin)[2]) == len(ring.stretch(128, begin)[2]) == 128, "one record is given whatever the limit is"
    assert ring.consumer() == begin, "looking releases nothing"
    numbers = [events.decode_record(whole[2], offset, size) for offset, size in frames(whole[2])]
    assert [record.values[0] for record in numbers if isinstance(record, events.MarkRecord) and record.mark == 81] == list(range(50))
    ring.release(whole[1])
    assert ring.consumer() == whole[1]


def test_the_ring_wraps_and_positions_go_on(tmp_path: Path) -> None:
    live = load_live(tmp_path, ring_bytes=1 << 12)
    try:
        live.forget()
        for number in range(500):
            while not live.recorder.mark(82, number):
                live.read()
        live.catch_up()
        got = [record.values[0] for record in live.records if isinstance(record, events.MarkRecord) and record.mark == 82]
        assert got == list(range(500))
        assert live.recorder.ring.consumer() > 500 * 128 > 10 * live.recorder.ring.size_bytes
    finally:
        unload_live(live)


def test_a_second_reader_of_the_ring_sees_what_was_not_released(live: Live) -> None:
    live.recorder.mark(83, 5)
    produced = live.recorder.ring.producer()
    with Recorder(live.pin_dir, live.chosen.spool, live.chosen.state_dir) as other:
        start, end, body = other.ring.stretch(1 << 20)
        assert start == live.recorder.ring.consumer() and end >= produced
        assert not int.from_bytes(body[:4], "little") & BUSY


def test_costs_are_counted_while_statistics_are_enabled(live: Live) -> None:
    statistics = syscall.enable_stats()
    before = live.recorder.costs()
    for _ in range(100):
        subprocess.run(["/bin/true"], check=True)
        live.read()
    after = live.recorder.costs()
    os.close(statistics)
    for name in ("fork", "exec", "exit"):
        assert after[name].run_count - before[name].run_count >= 100
        assert 0 < (after[name].run_time_ns - before[name].run_time_ns) / (after[name].run_count - before[name].run_count) < 100_000
