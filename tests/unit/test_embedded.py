"""The stream of one host, killed at every line that touches the world: what the store holds at the end is always the same."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from schemas import events
from schemas.batch import Batch, BatchKind, encode_batch, frame
from schemas.errors import Unavailable
from schemas.events import Kind, Mark
from schemas.rows import HostRow, ImageRow, LossCause, LossRow, Row
from streams import embedded
from streams.embedded import Embedded, Host
from streams.statefile import write_state

HOST_ID, BOOT_ID, RING_ID = UUID(int=1), UUID(int=2), 77
MS = 1_000_000


class Killed(Exception):
    """The process was killed here."""


def head(kind: Kind, time_ns: int, tgid: int, start_ns: int, exec_id: int) -> tuple[int, ...]:
    return (kind, events.RECORD_VERSION, 0, 0, 1, tgid, time_ns, start_ns, exec_id, 0)


def mark(time_ns: int, kind: Mark, *values: int) -> bytes:
    return events.MARK.pack(*head(Kind.MARK, time_ns, 9, 1, 0), kind, *values, *[0] * (8 - len(values)))


def fork(time_ns: int, tgid: int, creator_tgid: int, creator_start_ns: int) -> bytes:
    ids = (creator_tgid, creator_tgid, creator_tgid, *[0] * 9)
    return events.FORK.pack(*head(Kind.FORK, time_ns, tgid, time_ns, 0), creator_start_ns, 0, creator_start_ns, 0, 0, 0, *ids, b"w")


def exit_(time_ns: int, tgid: int, start_ns: int) -> bytes:
    return events.EXIT.pack(*head(Kind.EXIT, time_ns, tgid, start_ns, 0), 0, 0, 0, 0, 0, 0, 0, tgid, 0, b"w")


def script() -> list[bytes]:
    """A parent that lives on, and thirty children of it: short ones, and some that outlive a step."""
    records = [mark(1, Mark.CLOCK, 1, 1_000_000_001), mark(2, Mark.ATTACHED, 0), fork(10, 5, 0, 0)]
    for n in range(30):
        begin_ns = (n + 1) * 300 * MS
        records += [fork(begin_ns, 100 + n, 5, 10), exit_(begin_ns + (n % 3) * 150 * MS, 100 + n, begin_ns)]
    return records


@dataclass
class FakeRing:
    """A ring in memory; positions as the kernel counts them."""

    data: bytes = b""
    start: int = 0
    given_bytes_max: int = 700
    size_bytes: int = 1 << 20

    def stretch(self, limit_bytes: int, start: int | None = None) -> tuple[int, int, bytes]:
        assert start is None
        end, limit = self.start, self.start + min(limit_bytes, self.given_bytes_max)
        while end < len(self.data):
            size = 8 + (int.from_bytes(self.data[end : end + 4], "little") + 7 & ~7)
            if end + size > limit:
                break
            end += size
        return self.start, end, self.data[self.start : end]

    def release(self, position: int) -> None:
        assert position >= self.start, "the position never goes back"
        self.start = position

    def consumer(self) -> int:
        return self.start

    def producer(self) -> int:
        return len(self.data)


@dataclass
class FakeRecorder:
    """A recorder whose ring was filled before."""

    ring: FakeRing
    ring_id: int = RING_ID
    marks: list[tuple[int, ...]] = field(default_factory=list)
    alive: bool = True
    taken: int = 0
    pending: list[Batch] = field(default_factory=list)
    newer: bool = False

    def mark(self, kind: Mark, *values: int) -> bool:
        self.marks.append((kind, *values))
        return True

    def clock(self) -> bool:
        self.marks.append((Mark.CLOCK,))
        return True

    def pin_again(self) -> list[str]:
        return []

    def refresh(self) -> bool:
        if self.newer:
            self.snapshot()
        newer, self.newer = self.newer, False
        return newer

    def probe(self) -> bool:
        return self.alive

    def exec_probe(self) -> bool:
        return self.alive

    def snapshot(self) -> None:
        self.taken += 1
        self.pending.append(Batch(BatchKind.SNAPSHOT, HOST_ID, BOOT_ID, RING_ID, 0, 0, 1, 1, self.taken, 0, b"h", b""))

    def pending_snapshots(self, after: int = 0) -> list[bytes]:
        return [encode_batch(batch) for batch in self.pending if batch.lost > after]

    def discard_snapshots(self, last_id: int) -> None:
        self.pending = [batch for batch in self.pending if batch.lost > last_id]


@dataclass
class FakeStore:
    """A store that keeps the newest version of each row, as ReplacingMergeTree does."""

    rows: dict[tuple[object, ...], ImageRow | LossRow] = field(default_factory=dict)
    reports: list[HostRow] = field(default_factory=list)

    def write(self, rows: list[Row], token_base: str) -> None:
        for row in rows:
            if isinstance(row, HostRow):
                self.reports.append(row)
                continue
            if isinstance(row, ImageRow):
                key: tuple[object, ...] = (row.start_boottime, row.tgid, row.exec_id)
            else:
                key = ("loss", row.ring_id, row.position, row.cause)
            older = self.rows.get(key)
            if older is None or row.version >= older.version:
                self.rows[key] = row

    def newest_version(self, host_id: UUID, boot_id: UUID) -> int:
        return max((row.version for row in self.rows.values() if isinstance(row, ImageRow)), default=0)


@dataclass
class Fuse:
    """Kills at the n-th touch of the world, before or after it took effect."""

    at: int
    before: bool
    touches: int = 0

    def touch(self, action: object, *args: object) -> object:
        self.touches += 1
        if self.touches == self.at and self.before:
            raise Killed
        result = action(*args)  # type: ignore[operator]
        if self.touches == self.at:
            raise Killed
        return result


def host() -> Host:
    return Host(HOST_ID, BOOT_ID, b"h", lambda: (20_000 * MS, 21_000 * MS))


def drain(stream: Embedded) -> None:
    while stream.step():
        pass


def reference() -> dict[tuple[object, ...], ImageRow | LossRow]:
    store = FakeStore()
    ring = FakeRing(b"".join(map(frame, script())))
    with tempfile.TemporaryDirectory() as directory:
        drain(Embedded(FakeRecorder(ring), store, Path(directory) / "state", host()))
    return store.rows


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_killed_at_every_touch_the_store_ends_equal(tmp_path: Path, before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = reference()
    assert len(expected) > 30
    killed = 0
    for at in range(1, 200):
        store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
        state = tmp_path / f"state-{before}-{at}"
        fuse = Fuse(at, before)
        real_write, real_release = store.write, ring.release
        store.write = lambda rows, token, f=fuse, w=real_write: f.touch(w, rows, token)  # type: ignore[method-assign,misc]
        ring.release = lambda position, f=fuse, r=real_release: f.touch(r, position)  # type: ignore[method-assign,misc]
        monkeypatch.setattr(embedded, "write_state", lambda path, value, f=fuse: f.touch(write_state, path, value))
        try:
            drain(Embedded(FakeRecorder(ring), store, state, host()))
        except Killed:
            killed += 1
            monkeypatch.setattr(embedded, "write_state", write_state)
            store.write, ring.release = real_write, real_release  # type: ignore[method-assign]
            drain(Embedded(FakeRecorder(ring), store, state, host()))
        else:
            assert store.rows == expected
            break
        assert store.rows == expected, f"killed at touch {at}"
        assert ring.start == len(ring.data)
    assert killed > 20


def test_a_store_that_is_away_holds_the_ring_and_loses_nothing(tmp_path: Path) -> None:
    store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
    stream = Embedded(FakeRecorder(ring), store, tmp_path / "state", host())
    write, store.write = store.write, _away  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(Unavailable):
            stream.step()
        assert ring.start == 0
    store.write = write  # type: ignore[method-assign]
    drain(stream)
    assert store.rows == reference()


def _away(rows: list[Row], token_base: str) -> None:
    raise Unavailable("the store is away")


def test_a_disk_that_is_full_holds_the_ring(tmp_path: Path) -> None:
    store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
    stream = Embedded(FakeRecorder(ring), store, tmp_path / "none" / "state", host())
    with pytest.raises(OSError):
        stream.step()
    assert ring.start == 0
    (tmp_path / "none").mkdir()
    drain(stream)
    assert store.rows == reference()
    assert ring.start == len(ring.data)


def test_an_older_state_is_found_and_the_hole_reported(tmp_path: Path) -> None:
    store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
    path = tmp_path / "state"
    stream = Embedded(FakeRecorder(ring), store, path, host())
    stream.step()
    older, position = path.read_bytes(), ring.start
    stream.step()
    stream.step()
    path.write_bytes(older)
    missing = ring.start - position
    drain(Embedded(FakeRecorder(ring), store, path, host()))
    holes = [row for row in store.rows.values() if isinstance(row, LossRow) and row.detail.endswith(b"never arrived")]
    assert [hole.amount for hole in holes] == [missing]


@pytest.mark.parametrize("cause", ["lost", "skipped"])
def test_after_a_loss_two_snapshots_are_taken_and_handed_to_the_join(tmp_path: Path, cause: str) -> None:
    recorder = FakeRecorder(FakeRing())
    stream = Embedded(recorder, FakeStore(), tmp_path / "state", clock(1_000 * MS))
    for _ in range(5):
        stream.watch()
    assert list(stream.state.snapshots) == [1]
    stream.state.counters[cause] = 1
    for _ in range(5):
        stream.watch()
    assert list(stream.state.snapshots) == [1, 2, 3]


def test_the_snapshot_of_a_loader_is_taken_up_even_after_a_boot(tmp_path: Path) -> None:
    ring = FakeRing(b"".join(map(frame, script())))
    before = Embedded(FakeRecorder(ring), FakeStore(), tmp_path / "state", Host(HOST_ID, UUID(int=9), b"h", host().now))
    drain(before)
    before.state.last_snapshot = 10**15  # that boot went on for days
    write_state(tmp_path / "state", before.state)
    after_boot = FakeRecorder(FakeRing(), RING_ID + 1)
    stream = Embedded(after_boot, FakeStore(), tmp_path / "state", clock(1_000 * MS))
    assert stream.state.last_snapshot == 10**15
    after_boot.newer = True
    stream.watch()
    assert after_boot.taken == 2, "the loader's and ours"
    assert list(stream.state.snapshots) == [1, 2]


def test_a_store_that_was_put_back_is_found_at_the_start(tmp_path: Path) -> None:
    store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
    stream = Embedded(FakeRecorder(ring), store, tmp_path / "state", host())
    drain(stream)
    assert not Embedded(FakeRecorder(ring), store, tmp_path / "state", host()).progress.put_back
    images = sorted((row for row in store.rows.values() if isinstance(row, ImageRow)), key=lambda row: row.version)
    kept = [row for row in images if row.tgid != 5][:20]
    store.rows = {(row.start_boottime, row.tgid, row.exec_id): row for row in kept}
    again = Embedded(FakeRecorder(ring), store, tmp_path / "state", host())
    assert again.progress.put_back
    drain(again)
    losses = [row for row in store.rows.values() if isinstance(row, LossRow)]
    assert [row.cause for row in losses] == [LossCause.ROWS_LOST]
    assert losses[0].begin_boottime == kept[-1].version // 4 and losses[0].end_boottime == again.state.now_ns
    assert [row.tgid for row in store.rows.values() if isinstance(row, ImageRow) and row.tgid == 5] == [5], "what lives is there again"
    assert not Embedded(FakeRecorder(ring), store, tmp_path / "state", host()).progress.put_back


def test_rows_that_expired_are_not_missed(tmp_path: Path) -> None:
    store, ring = FakeStore(), FakeRing(b"".join(map(frame, script())))
    drain(Embedded(FakeRecorder(ring), store, tmp_path / "state", host()))
    store.rows.clear()
    later = Host(HOST_ID, UUID(int=3), b"h", lambda: (20_000 * MS, 21_000 * MS + 10**15))
    assert not Embedded(FakeRecorder(ring), store, tmp_path / "state", later, kept_ns=10**14).progress.put_back


def clock(step_ns: int) -> Host:
    """A host whose clock goes on by a step each time it is read."""
    times = iter(range(0, 10**16, step_ns))
    return Host(HOST_ID, BOOT_ID, b"h", lambda: ((t := next(times)), t + 10**18))


def test_while_the_store_is_away_no_snapshot_pushes_out_the_first(tmp_path: Path) -> None:
    ring = FakeRing(b"".join(map(frame, script())))
    recorder, store = FakeRecorder(ring), FakeStore()
    stream = Embedded(recorder, store, tmp_path / "state", clock(30_000 * MS))
    write, store.write = store.write, _away  # type: ignore[method-assign]
    for _ in range(10 * 120):
        stream.watch()
        with pytest.raises(Unavailable):
            stream.step()
    assert list(stream.state.snapshots) == [1, 2, 3, 4] and recorder.taken == 4
    store.write = write  # type: ignore[method-assign]
    drain(stream)
    stream.watch()
    assert recorder.taken == 5, "the next one comes as soon as the store is back"


def test_the_host_is_reported_now_and_then(tmp_path: Path) -> None:
    ring, store = FakeRing(b"".join(map(frame, script()))), FakeStore()
    stream = Embedded(FakeRecorder(ring), store, tmp_path / "state", clock(1 * MS))
    drain(stream)
    (first,) = store.reports
    assert (first.host_id, first.host, first.claims, first.machines, first.ring_id) == (HOST_ID, b"h", HOST_ID, 1, RING_ID)
    assert first.recording and first.living == 2 and 0 < first.position <= stream.state.position
