"""The join's state in a file: always one whole state, the old one or the new one, whatever moment the machine stops."""

import os
from pathlib import Path

from schemas.errors import DecodeError, TasktrailError
from streams.join import HostState, dump, load


def read_state(path: Path) -> HostState:
    """The state that was written last; a fresh one where there is none. Raises DecodeError when the file is not one of ours."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return HostState()
    except OSError as failure:
        raise TasktrailError(f"cannot read the state {path}: {failure.strerror}", "run as the user who owns the store") from failure
    try:
        return load(data)
    except DecodeError as broken:
        raise DecodeError(f"{path}: {broken.problem}", broken.cure) from broken


def write_state(path: Path, state: HostState) -> int:
    """Put the state on disk in place of the one before; returns its bytes. Raises OSError when the disk does not take it."""
    data = dump(state)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return len(data)
