"""Loading the recorder from a command that then reads it."""

import subprocess
import sys
from collections.abc import Callable

from schemas.errors import BadInput, TasktrailError, Unavailable
from tasktrail.settings import Settings

LOAD_TIMEOUT_S = 120.0

Say = Callable[[str], None]


def load(settings: Settings, say: Say) -> None:
    """Load the recorder in a process of its own, since the compiler takes a hundred megabytes that are free again when it ends."""
    command = [sys.executable, "-m", "tasktrail", "record", "load", "--pin-dir", settings.pin_dir, "--run-dir", settings.run_dir]
    command += ["--ring-size", str(settings.ring_bytes), "--argv-bytes", str(settings.argv_bytes), "--state-dir", settings.state_dir]
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=LOAD_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"loading the recorder took more than {LOAD_TIMEOUT_S} s", "see `tasktrail doctor`") from None
    if done.returncode:
        message = done.stderr.strip().removeprefix("tasktrail: ")
        if done.returncode == BadInput.exit_code:
            raise BadInput(message)
        raise Unavailable(message or "loading the recorder failed", "" if message else "see `tasktrail doctor`")
    for line in done.stderr.strip().splitlines():
        say(line.removeprefix("tasktrail: "))


def load_again(settings: Settings, say: Say) -> None:
    """After somebody detached the programs: put them back. What fails is told; the next watch tries again."""
    try:
        load(settings, say)
    except TasktrailError as failure:
        say(str(failure))
