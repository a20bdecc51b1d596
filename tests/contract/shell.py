"""Reading commands as a person or a pipe gets them."""

import fcntl
import json
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from tasktrail.cli import run_command


class Shell:
    """Runs commands on the store."""

    def __init__(self, place: str, capsys: pytest.CaptureFixture[str]) -> None:
        """``place`` is what --store takes."""
        self._capsys = capsys
        self.place = place

    def pipe(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr in a pipe."""
        code = run_command([*arguments, "--store", self.place])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def lines(self, *arguments: str) -> list[dict[str, object]]:
        """The JSON objects of a command that must succeed."""
        code, out, err = self.pipe(*arguments)
        assert (code, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]

    def terminal(self, *arguments: str, columns: int = 80) -> str:
        """What an 80-column terminal is sent, styles taken away."""
        controller, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        environment = {**os.environ, "TERM": "xterm", "TZ": "UTC", "TASKTRAIL_STORE": self.place}
        environment.pop("COLUMNS", None)
        command = [sys.executable, "-m", "tasktrail", *arguments]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=environment) as child:
            os.close(terminal)
            data = b""
            while True:
                try:
                    part = os.read(controller, 65536)
                except OSError:
                    part = b""
                if not part:
                    break
                data += part
            assert child.wait() == 0, data
        os.close(controller)
        return re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).replace("\r\n", "\n")
