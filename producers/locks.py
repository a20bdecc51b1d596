"""Locks between processes: one loader and one reader for each recorder. They go with the process that holds them."""

import fcntl
import os
from pathlib import Path

from schemas.errors import Unavailable

RUN_DIRECTORY = Path("/run/tasktrail")
"""Where lock files and waiting snapshots lie; nothing there has to outlive a boot."""


class Lock:
    """A held lock; ``close`` lets go."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        """Lets go of the lock."""
        os.close(self._fd)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(role: str, pin_dir: Path, run_dir: Path) -> tuple[int, Path]:
    run_dir.mkdir(parents=True, exist_ok=True)
    name = os.path.realpath(pin_dir).strip("/").replace("/", "-")
    path = run_dir / f"{role}-{name}.lock"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), path


def lock_loader(pin_dir: Path, run_dir: Path) -> Lock:
    """The right to change the pins; waits for the loader that has it."""
    fd, _ = _open("loader", pin_dir, run_dir)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return Lock(fd)


def lock_reader(pin_dir: Path, run_dir: Path) -> Lock:
    """The right to move the ring's consumer position. Raises Unavailable naming the process that has it."""
    fd, path = _open("reader", pin_dir, run_dir)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode().strip() or "unknown"
        os.close(fd)
        raise Unavailable(f"the ring in {pin_dir} is read by process {holder} already ({path})", "stop that one first") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return Lock(fd)


def lock_file(path: Path) -> Lock:
    """An exclusive lock on the file, which is made if needed; waits for it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return Lock(fd)
