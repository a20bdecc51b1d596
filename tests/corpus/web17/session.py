"""What happens on the recorded host: typed from outside over ssh and HTTP, so that nothing of the outside is recorded.

    python3 session.py KEY SSH_PORT HTTP_PORT OUTPUT

Nothing waits for a fixed time but the cron job, which comes once a minute.
"""

import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

PROMPT = "ready> "
LINES = (
    "cd hello; make",
    "./hello | sort -u | head -2",
    "cd; ./crash",
    "./weekly.py",
    "false; ls /nowhere; nosuchcommand; ./greet_1.0_all.deb",
    "sleep 600 & kill -9 $!; wait",
    "bash -c 'id -un; exec sh -c \"date +%Y; exec sleep 0.1\"'",
    "./threads exec; ./threads",
    "/usr/local/sbin/beacond",
    "sudo apt-get install -y ./greet_1.0_all.deb",
    "greet",
    "sudo -u www-data id; sudo unshare --fork --pid --mount-proc sh -c 'ps ax | wc -l; (sleep 0.1 &); exec sh -c \"exec true\"'",
    "./odd.py",
    "/bin/echo $(seq 2000) | wc -c",
    "for i in $(seq 700); do /bin/true; done",
    "(cd hello && make clean && make -j2)",
    "sudo unshare --fork --pid --mount-proc nohup sh -c 'hostname; sleep 3600; true' >/dev/null 2>&1 &",
    "nohup sleep 3600 >/dev/null 2>&1 &",
)


class Terminal:
    """One interactive login of alice."""

    def __init__(self, ssh: list[str]) -> None:
        self._ssh = subprocess.Popen([*ssh, "-tt", "alice@127.0.0.1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.type("PS1='ready''> '")

    def type(self, line: str) -> None:
        """One line, and all that it does until the prompt is there again."""
        assert self._ssh.stdin is not None and self._ssh.stdout is not None
        self._ssh.stdin.write(line.encode() + b"\n")
        self._ssh.stdin.flush()
        seen = b""
        while not seen.endswith(PROMPT.encode()):
            byte = self._ssh.stdout.read(1)
            assert byte, seen
            seen += byte
            sys.stdout.buffer.write(byte)
            sys.stdout.buffer.flush()

    def leave(self) -> None:
        """Log out."""
        assert self._ssh.stdin is not None
        self._ssh.stdin.write(b"exit\n")
        self._ssh.stdin.close()
        self._ssh.wait()


def main(key: str, ssh_port: str, http_port: str, output: str) -> None:
    """Load the recorder, start the dump, do things, stop the dump, fetch the recording."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    ssh = ["ssh", "-i", key, "-p", ssh_port, *options]

    def root(command: str) -> bytes:
        return subprocess.run([*ssh, "root@127.0.0.1", command], stdout=subprocess.PIPE, check=True).stdout

    root("sysctl -q kernel.pid_max=900; tasktrail record load && tasktrail record status")
    root("systemctl start tasktrail-dump; until [ -s /root/web-17.tt ]; do sleep 0.2; done")
    first, second = Terminal(ssh), Terminal(ssh)
    for line in LINES:
        first.type(line)
    second.type("nohup ./weekly.py > weekly.txt; cat weekly.txt")
    query = urllib.parse.urlencode({"host": "127.0.0.1; python3 /srv/shop/intruder.py >/dev/null 2>&1"})
    urllib.request.urlopen(f"http://127.0.0.1:{http_port}/ping?{query}", timeout=60).read()
    subprocess.run([*ssh, "alice@127.0.0.1", "uptime"], check=True)
    second.type("while ! ls /var/log/*.report 2>/dev/null; do sleep 5; done")
    first.leave()
    root("systemctl stop tasktrail-dump; tasktrail record status; tasktrail record unload")
    Path(output).write_bytes(root("cat /root/web-17.tt"))
    second.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
