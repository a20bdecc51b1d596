"""What the kernel tests share: waiting with a deadline, reading a live ring, running the helper programs."""

import itertools
import os
import select
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from producers import host, loader
from producers.bpf import pins, source
from producers.recorder import Recorder
from schemas import events, limits
from schemas.batch import frames

T = TypeVar("T")
Key = tuple[int, int]

_numbers = itertools.count(1)


def wait_until(condition: Callable[[], T], what: str, seconds: float = 20) -> T:
    """The first true value of ``condition``. For where the kernel gives no event; fails loudly at the deadline."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        select.select([], [], [], 0.002)
    return value


def new_pin_dir() -> Path:
    """A directory for pins that no other test has."""
    return Path(f"/sys/fs/bpf/tasktrail-test-{os.getpid()}-{next(_numbers)}")


def settings(directory: Path, **programs: int) -> loader.Settings:
    """Loader settings with everything that is not a pin below ``directory``."""
    return loader.Settings(source.Settings(**programs), directory / "run" / "snapshots", directory / "state")


def key(record: events.Record) -> Key:
    """The process that a record is about."""
    return record.tgid, record.start_ns


class Live:
    """A loaded recorder and what has been read from its ring since ``forget``."""

    def __init__(self, pin_dir: Path, chosen: loader.Settings) -> None:
        self.pin_dir, self.chosen = pin_dir, chosen
        self.recorder = Recorder(pin_dir, chosen.spool, chosen.state_dir)
        self.records: list[events.Record] = []

    def close(self) -> None:
        """Lets go of the recorder, which goes on."""
        self.recorder.close()

    def read(self) -> None:
        """Takes what lies finished in the ring, and releases it."""
        ring = self.recorder.ring
        while True:
            start, end, body = ring.stretch(limits.BATCH_BYTES_MAX)
            if start == end:
                return
            ring.release(end)
            self.records += [events.decode_record(body, at, size) for at, size in frames(body)]

    def catch_up(self) -> list[events.Record]:
        """Everything that happened before this call: a mark goes into the ring, and what is read up to it is complete."""
        asked = host.now().boottime_ns
        while not self.recorder.mark(events.Mark.CLOCK, asked):
            self.read()

        def arrived() -> bool:
            self.read()
            return any(isinstance(record, events.MarkRecord) and record.values[0] == asked for record in self.records)

        wait_until(arrived, "the mark coming out of the ring")
        return self.records

    def forget(self) -> None:
        """Catches up and starts with an empty list."""
        self.catch_up()
        self.records = []

    def of(self, tgid: int) -> list[events.Record]:
        """Records about the processes with this tgid."""
        return [record for record in self.records if record.tgid == tgid and not isinstance(record, events.MarkRecord)]


def load_live(directory: Path, **programs: int) -> Live:
    """A recorder of its own."""
    pin_dir, chosen = new_pin_dir(), settings(directory, **programs)
    loader.load(pin_dir, chosen)
    return Live(pin_dir, chosen)


def unload_live(live: Live) -> None:
    """Takes it out again."""
    live.close()
    loader.unload(live.pin_dir, live.chosen.spool)


def output(*command: str | Path, env: Mapping[str, str] | None = None, status: int = 0) -> list[list[str]]:
    """Words of the lines that the command prints; it must end with ``status``."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120)
    assert done.returncode == status, f"{command} ended with {done.returncode}: {done.stderr}"
    return [line.split() for line in done.stdout.splitlines()]


def remove_pins(pin_dir: Path) -> None:
    """Removes whatever is left of a recorder, loaded or not."""
    for name in pins.present(pin_dir):
        (pin_dir / name).unlink(missing_ok=True)
    if pin_dir.is_dir():
        pin_dir.rmdir()
