"""Loading: twice, over another, over a broken one, over something foreign; and unloading."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kernel_tools import Live, new_pin_dir, output, settings

from producers import host, loader, prerequisites, snapshot
from producers.bpf import pins, source, syscall
from producers.recorder import Recorder
from schemas import events
from schemas.batch import frames
from schemas.errors import BadInput, Unavailable


@pytest.fixture
def chosen(tmp_path: Path) -> loader.Settings:
    """Settings with a small ring."""
    return settings(tmp_path, ring_bytes=1 << 20)


def test_a_new_ring_begins_with_clock_then_attached_then_the_snapshot(pin_dir: Path, chosen: loader.Settings) -> None:
    loaded = loader.load(pin_dir, chosen)
    assert loaded.outcome is loader.Outcome.NEW
    live = Live(pin_dir, chosen)
    try:
        live.read()
        marks = [record for record in live.records if isinstance(record, events.MarkRecord)]
        assert [record.mark for record in marks] == [
            events.Mark.CLOCK,
            events.Mark.ATTACHED,
            events.Mark.SNAPSHOT_BEGIN,
            events.Mark.SNAPSHOT_END,
        ]
        assert live.records[0] == marks[0] and marks[1].values[0] == 0
        assert live.recorder.ring_id == loaded.ring_id <= marks[0].values[0] <= marks[0].time_ns
        assert {record.epoch for record in live.records} == {loaded.epoch}
        assert (marks[0].tgid, marks[0].exec_id) == (os.getpid(), marks[1].exec_id)
        assert len(live.recorder.pending_snapshots()) == 1
        assert pins.present(pin_dir) == set(pins.ALL)
        assert pin_dir.stat().st_mode & 0o777 == 0o700
    finally:
        live.close()
    loader.unload(pin_dir, chosen.spool)


def test_loading_the_same_again_changes_nothing(pin_dir: Path, chosen: loader.Settings) -> None:
    first = loader.load(pin_dir, chosen)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        produced = recorder.ring.producer()
        again = loader.load(pin_dir, chosen)
        assert again == first._replace(outcome=loader.Outcome.UNCHANGED)
        body = recorder.ring.finished_after(produced)
        assert events.Kind.MARK not in [body[at] for at, _ in frames(body)]
        assert not recorder.refresh()
    loader.unload(pin_dir, chosen.spool)


def test_two_loaders_at_once_make_one_recorder(pin_dir: Path, chosen: loader.Settings) -> None:
    outcomes: list[loader.Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(loader.load(pin_dir, chosen).outcome)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcome.name for outcome in outcomes) == ["NEW", "UNCHANGED", "UNCHANGED"]
    loader.unload(pin_dir, chosen.spool)


def test_unload_leaves_nothing(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        names = {short: syscall.link_info(pins.open_object(pin_dir, name)).tracepoint for short, name in pins.LINKS.items()}
        assert names == {short: tracepoint for short, (_, tracepoint) in source.TRACEPOINTS.items()}
        unread = recorder.ring.producer()
        ring_id = recorder.ring_id
    done = loader.unload(pin_dir, chosen.spool)
    assert done.pins == len(pins.ALL)
    assert done.unread_bytes >= unread > 0
    assert not pin_dir.exists()
    assert snapshot.pending(chosen.spool, ring_id) == []
    with pytest.raises(Unavailable, match=r"no recorder in .*nothing to unload"):
        loader.unload(pin_dir, chosen.spool)
    with pytest.raises(Unavailable, match=r"no recorder in .*tasktrail record load"):
        Recorder(pin_dir, chosen.spool, chosen.state_dir)


def test_unload_is_refused_while_a_reader_reads_and_so_is_a_second_reader(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        with recorder.lock():
            with pytest.raises(Unavailable, match=f"read by process {os.getpid()} already"):
                recorder.lock()
            with pytest.raises(Unavailable, match="stop that one first"):
                loader.unload(pin_dir, chosen.spool)
        recorder.lock().close()
    loader.unload(pin_dir, chosen.spool)


def test_no_second_ring_while_a_reader_holds_one_whose_pins_are_gone(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        with recorder.lock():
            for name in pins.ALL:
                (pin_dir / name).unlink()
            with pytest.raises(Unavailable, match=f"read by process {os.getpid()} already"):
                loader.load(pin_dir, chosen)
            assert recorder.pin_again() == list(pins.ALL)
        assert loader.load(pin_dir, chosen) == loader.Loaded(loader.Outcome.UNCHANGED, recorder.ring_id, recorder.epoch)
    loader.unload(pin_dir, chosen.spool)


def test_another_ring_size_is_refused_with_the_way_out(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    bigger = chosen._replace(programs=chosen.programs._replace(ring_bytes=2 << 20))
    with pytest.raises(Unavailable, match=r"ring of 1048576, not 2097152; give --ring-size 1048576"):
        loader.load(pin_dir, bigger)
    loader.unload(pin_dir, chosen.spool)


def test_removed_links_are_attached_again_as_a_gap(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        begin = host.now().boottime_ns
        assert recorder.exec_probe()
    good_ns = meta_of(pin_dir, pins.Field.GOOD_NS)
    assert begin <= good_ns <= host.now().boottime_ns
    (pin_dir / pins.LINKS["exec"]).unlink()
    with pytest.raises(Unavailable, match="lacks its pin link_exec"):
        Recorder(pin_dir, chosen.spool, chosen.state_dir)
    assert loader.load(pin_dir, chosen).outcome is loader.Outcome.ATTACHED_AGAIN
    live = Live(pin_dir, chosen)
    live.read()
    attached = [
        record.values[0] for record in live.records if isinstance(record, events.MarkRecord) and record.mark == events.Mark.ATTACHED
    ]
    assert attached == [0, 0]
    assert live.recorder.probe() and live.recorder.exec_probe()
    live.close()
    loader.unload(pin_dir, chosen.spool)


def test_a_full_ring_can_be_taken_over_but_not_attached_again(pin_dir: Path, tmp_path: Path, programs: Path) -> None:
    chosen = settings(tmp_path, ring_bytes=1 << 16)
    assert not loader.load(pin_dir, chosen).full
    output(programs / "storm", "500", "1", programs / "tiny")
    other = chosen._replace(programs=chosen.programs._replace(argv_bytes=99))
    taken = loader.load(pin_dir, other)
    assert (taken.outcome, taken.full) == (loader.Outcome.HANDOVER, True)
    (pin_dir / pins.LINKS["fork"]).unlink()
    with pytest.raises(snapshot.RingFull, match="start a reader"):
        loader.load(pin_dir, other)
    loader.unload(pin_dir, chosen.spool)


def meta_of(pin_dir: Path, field: pins.Field, value: int | None = None) -> int:
    """A number in the meta array, after it was set if a value is given."""
    meta = pins.open_meta(pin_dir)
    try:
        if value is not None:
            meta.write(field, value)
        return meta.read(field)
    finally:
        os.close(meta.fd)


def test_a_handover_that_ended_half_way_is_done_again(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    meta_of(pin_dir, pins.Field.SOURCE, 0)
    assert loader.load(pin_dir, chosen).outcome is loader.Outcome.HANDOVER
    assert loader.load(pin_dir, chosen).outcome is loader.Outcome.UNCHANGED
    meta_of(pin_dir, pins.Field.GAP, 1)
    assert loader.load(pin_dir, chosen).outcome is loader.Outcome.ATTACHED_AGAIN, "the gap was not told yet"
    assert loader.load(pin_dir, chosen).outcome is loader.Outcome.UNCHANGED
    loader.unload(pin_dir, chosen.spool)


def test_an_unfinished_load_is_cleared_away(pin_dir: Path, chosen: loader.Settings) -> None:
    for stage in range(3):
        pin_dir.mkdir()
        meta = pins.Meta(syscall.create_map(syscall.ARRAY, 4, 8, pins.META_ENTRIES))
        syscall.pin(meta.fd, pin_dir / pins.META)
        if stage:
            meta.sign()
        if stage > 1:
            syscall.pin(syscall.create_map(syscall.RINGBUF, 0, 0, 4096), pin_dir / pins.RING)
            syscall.pin(meta.fd, pin_dir / (pins.NEW + pins.SEEN))
            with pytest.raises(Unavailable, match="not finished"):
                Recorder(pin_dir, chosen.spool, chosen.state_dir)
        os.close(meta.fd)
        loaded = loader.load(pin_dir, chosen)
        assert loaded.outcome is loader.Outcome.NEW
        assert loaded.cleared == (1, 1, 2)[stage]
        loader.unload(pin_dir, chosen.spool)


def test_a_loader_that_is_killed_anywhere_is_mended_by_the_next(pin_dir: Path, tmp_path: Path) -> None:
    options = ["--pin-dir", str(pin_dir), "--run-dir", str(tmp_path / "run"), "--state-dir", str(tmp_path / "state")]
    chosen = settings(tmp_path)
    for turn in range(8):
        command = [sys.executable, "-m", "tasktrail", "record", "load", *options, "--argv-bytes", str(4000 - turn)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=0.6 + 0.2 * turn)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        loader.load(pin_dir, chosen)
        assert pins.present(pin_dir) == set(pins.ALL)
        with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
            assert recorder.probe() and recorder.exec_probe()
    loader.unload(pin_dir, chosen.spool)


def test_foreign_pins_are_left_alone(pin_dir: Path, chosen: loader.Settings) -> None:
    pin_dir.mkdir()
    foreign = syscall.create_map(syscall.ARRAY, 4, 4, 1)
    for name in ("somebody", pins.META, pins.RING):
        syscall.pin(foreign, pin_dir / name)
        attempts = [lambda: loader.load(pin_dir, chosen), lambda: loader.unload(pin_dir, chosen.spool)]
        for attempt in attempts:
            with pytest.raises(Unavailable, match=f"{name} is not a pin of Tasktrail; choose another directory with --pin-dir"):
                attempt()
        assert pins.present(pin_dir) == {name}
        (pin_dir / name).unlink()
    os.close(foreign)


def test_another_layout_version_is_told(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    meta = pins.Meta(pins.open_object(pin_dir, pins.META))
    meta.write(pins.Field.LAYOUT, meta.read(pins.Field.LAYOUT) + 1)
    for attempt in (lambda: loader.load(pin_dir, chosen), lambda: Recorder(pin_dir, chosen.spool, chosen.state_dir)):
        with pytest.raises(Unavailable, match=r"layout version 2, this program knows version 1.*tasktrail record unload"):
            attempt()
    os.close(meta.fd)
    loader.unload(pin_dir, chosen.spool)


def test_recursion_misses_of_replaced_programs_stay_counted(pin_dir: Path, chosen: loader.Settings) -> None:
    loader.load(pin_dir, chosen)
    meta = pins.open_meta(pin_dir)
    meta.write(pins.Field.SKIPPED, 41)
    os.close(meta.fd)
    with Recorder(pin_dir, chosen.spool, chosen.state_dir) as recorder:
        assert recorder.counters().skipped == 41
        other = chosen._replace(programs=chosen.programs._replace(argv_bytes=100))
        assert loader.load(pin_dir, other).outcome is loader.Outcome.HANDOVER
        assert recorder.refresh()
        assert recorder.counters().skipped == 41
        produced = recorder.ring.producer()
        assert recorder.clock()
        body = recorder.ring.finished_after(produced)
        clock = next(
            record
            for record in (events.decode_record(body, at, size) for at, size in frames(body))
            if isinstance(record, events.MarkRecord) and record.mark == events.Mark.CLOCK
        )
        assert clock.values[2] == 41
    loader.unload(pin_dir, chosen.spool)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ring_bytes": 5000}, "power of two"),
        ({"ring_bytes": 2048}, "power of two"),
        ({"argv_bytes": 4097}, "from 0 to 4096"),
        ({"processes": 5}, "from 1024"),
    ],
)
def test_settings_out_of_range(pin_dir: Path, chosen: loader.Settings, changes: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        loader.load(pin_dir, chosen._replace(programs=chosen.programs._replace(**changes)))
    assert not pin_dir.exists()


def test_pins_want_a_bpf_file_system(tmp_path: Path, chosen: loader.Settings) -> None:
    with pytest.raises(Unavailable, match=r"not in a bpf file system; run `mount -t bpf bpf /sys/fs/bpf`"):
        loader.load(tmp_path / "pins", chosen)
    with pytest.raises(BadInput, match="no dot"):
        loader.load(new_pin_dir().with_name("a.b"), chosen)
    assert prerequisites.file_system_of(Path("/proc/self")) == "proc"


def test_argv_can_be_left_out_or_cut(pin_dir: Path, chosen: loader.Settings) -> None:
    for size, argv, flag in ((0, (), events.Flag.ARGV_MASKED), (8, (b"/bin/tru",), events.Flag.ARGV_CUT)):
        loader.load(pin_dir, chosen._replace(programs=chosen.programs._replace(argv_bytes=size)))
        live = Live(pin_dir, chosen)
        live.forget()
        subprocess.run(["/bin/true", "secret"], check=True)
        live.catch_up()
        (image,) = [record for record in live.records if isinstance(record, events.Exec) and record.comm == b"true"]
        assert (image.argv, image.argc, image.argv_bytes) == (argv, 2, 17)
        assert image.flags & (events.Flag.ARGV_MASKED | events.Flag.ARGV_CUT) == flag
        batch = live.recorder.snapshot()
        mine = next(
            record
            for record in (events.decode_record(batch.body, at, length) for at, length in frames(batch.body))
            if record.tgid == os.getpid() and isinstance(record, events.Seen)
        )
        assert sum(map(len, mine.argv)) <= size and mine.flags & flag
        live.close()
    loader.unload(pin_dir, chosen.spool)
