"""All of a fleet on this machine: a Kafka, a ClickHouse, two workers, hosts that are played, and, for root, this host itself.

Everything lies in one directory: what was started, settings, logs, the log's and the store's data. Each part runs on its own, so the
fleet goes on when whoever started it has ended; ``down`` ends it by the pids and start times that were written down.
"""

import contextlib
import fcntl
import os
import select
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local import processes
from deploy.local import store as store_program
from deploy.local.kafka import Kafka, free_port
from deploy.local.processes import End, Process, Roll
from schemas.errors import BadInput, TasktrailError, Unavailable
from store.opening import open_for_reading
from store.server import stored_address

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY_VARIABLE = "TASKTRAIL_FLEET_DIR"
PYTHON = sys.executable
PARTITIONS = 8
WORKERS = 2
HOSTS = 5
KAFKA_PORT = 9092
STOP_S = 30.0
COMMAND_S = 120.0
ROWS_S = 120.0
"""How long the first rows of every host may take: workers join the group, and hosts begin one after another."""
PAUSE_S = 0.2
Say = Callable[[str], None]


def default_directory() -> Path:
    """Below the state directory of whoever runs this; of root that is /var/lib, for the store's server is nobody and must get there."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    if named:
        return Path(named).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/tasktrail-fleet")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tasktrail-fleet"


class HostRows(NamedTuple):
    """A host in the store: its name, its rows, and Unix time in seconds at which its latest process began."""

    name: str
    rows: int
    latest: int


class Fleet:
    """One fleet, in one directory.

    hosts  how many are played
    real   whether this host is recorded too
    say    tells a person one line
    """

    def __init__(self, directory: Path, hosts: int, real: bool, say: Say) -> None:
        self.directory, self.real, self.say = directory, real, say
        self.names = tuple(f"web-{21 + number}" for number in range(hosts))
        self.roll = Roll(directory / "processes")
        self.settings = directory / "tasktrail.toml"
        self.logs = directory / "logs"
        self.store = directory / "store"
        # Two fleets of one machine have each their own recorder.
        self.pin_dir = Path(f"/sys/fs/bpf/tasktrail-fleet-{zlib.crc32(os.fsencode(directory)):08x}")

    @property
    def recorder(self) -> str:
        """What this host's part is called."""
        return "produce"

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Held while parts are started or ended. Raises BadInput when another one holds it, or the directory is not ours to use."""
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise BadInput(f"{self.directory} cannot be used: {failure.strerror}", f"name another by {DIRECTORY_VARIABLE}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise BadInput(f"somebody starts or ends the fleet in {self.directory} just now", "wait for that") from None
        finally:
            os.close(handle)

    def living(self) -> dict[str, Process]:
        """The parts that run."""
        return {process.name: process for process in self.roll.read() if processes.lives(process)}

    # -- up --

    def up(self) -> bool:
        """Start what does not run; False if all of it ran already. What was started is ended again when something fails."""
        before = self.living()
        try:
            started = self._start_missing(before)
            if started:
                self._wait_rows()
            return started
        except BaseException:
            self._end([process for process in self.roll.read() if before.get(process.name) != process])
            if self.recorder not in before:
                self._unload()
            raise

    def _start_missing(self, before: Mapping[str, Process]) -> bool:
        kafka = self._kafka("kafka" in before)
        self._write_settings(kafka)
        missing = [name for name in self._parts() if name not in before]
        for name in missing:
            self.say(f"starting {name}")
            {"kafka": self._start_kafka, "store": self._start_store}.get(name, self._start_other)(name, kafka)
        return bool(missing)

    def _parts(self) -> list[str]:
        """Names of all parts, in the order of their starts."""
        workers = [f"worker-{number + 1}" for number in range(WORKERS)]
        return ["kafka", "store", *workers, "hosts", *([self.recorder] if self.real else [])]

    def _kafka(self, runs: bool) -> Kafka:
        """The broker: on the port that it had, if nobody else has that now."""
        noted = self.directory / "kafka-port"
        port = int(noted.read_text()) if noted.exists() else KAFKA_PORT
        if not runs:
            port = free_port(port)
            noted.write_text(f"{port}\n")
        return Kafka(self.directory / "kafka", port, own_session=True)

    def _write_settings(self, kafka: Kafka) -> None:
        """The settings file for whoever asks the fleet, and for this host's recorder."""
        host = self.directory / "host"
        values = {
            "kafka": kafka.address,
            "store": str(self.store),
            "pin_dir": str(self.pin_dir),
            "run_dir": str(host / "run"),
            "state_dir": str(host / "state"),
        }
        self.settings.write_text("".join(f'{name} = "{value}"\n' for name, value in values.items()))

    def _environment(self, **more: str) -> dict[str, str]:
        """What parts see: our settings file, and no settings of whoever calls."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TASKTRAIL_") or name == "TASKTRAIL_KAFKA_JARS"}
        return {**kept, "TASKTRAIL_CONFIG": str(self.settings), **more}

    def _command(self, *arguments: str) -> None:
        """A command of ours that must succeed."""
        command = [PYTHON, "-m", "tasktrail", *arguments]
        done = subprocess.run(command, env=self._environment(), cwd=ROOT, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode:
            raise Unavailable(f"`tasktrail {' '.join(arguments)}` failed: {done.stderr.strip()}")

    def _start_kafka(self, name: str, kafka: Kafka) -> None:
        kafka.start()
        assert kafka.process is not None
        self.roll.add(processes.remember(name, kafka.process.pid))
        self._command("topics", "create", "--replication", "1", "--partitions", str(PARTITIONS))

    def _start_store(self, name: str, kafka: Kafka) -> None:
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        process = self._run(name, [PYTHON, "-m", "deploy.local.store", str(self.store)], self._environment())
        deadline = time.monotonic() + COMMAND_S
        while store_program.READY not in log.read_text():
            if not processes.lives(process) or time.monotonic() > deadline:
                raise Unavailable(f"the store did not start: {log.read_text().strip()[-300:]}", f"see {log}")
            select.select([], [], [], PAUSE_S)
        self._command("store", "init")

    def _start_other(self, name: str, kafka: Kafka) -> None:
        if name == "hosts":
            command = [PYTHON, "-m", "deploy.local.hosts", kafka.address, *self.names]
            self._run(name, command, self._environment())
        elif name == self.recorder:
            self._run(name, [PYTHON, "-m", "tasktrail", "produce"], self._environment(TASKTRAIL_METRICS=f"127.0.0.1:{free_port(9477)}"))
        else:
            writer = stored_address(self.store, "writer")
            assert writer is not None
            state = ["--state-dir", str(self.directory / name)]
            command = [PYTHON, "-m", "tasktrail", "stream", "--kafka", kafka.address, "--store", str(writer), "--member", name, *state]
            self._run(name, command, self._environment(TASKTRAIL_PASSWORD=writer.password))

    def _run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> Process:
        process = processes.start(name, command, environment, ROOT, self.logs / f"{name}.log")
        self.roll.add(process)
        return process

    def _wait_rows(self) -> None:
        """Returns when rows of every host are in the store."""
        self.say("waiting for the first rows of every host")
        deadline = time.monotonic() + ROWS_S
        wanted = set(self.names) | ({os.uname().nodename} if self.real else set())
        while missing := wanted - {host.name for host in self.rows()}:
            living = self.living()
            if self.real and self.recorder not in living and os.uname().nodename in wanted:
                said = (self.logs / f"{self.recorder}.log").read_text().strip().splitlines()
                self.say(f"this host is not recorded: {said[-1] if said else 'produce has ended'}")
                wanted.discard(os.uname().nodename)
            ended = [name for name in self._parts() if name not in living and name != self.recorder]
            if ended or time.monotonic() > deadline:
                what = f"{ended[0]} has ended" if ended else f"no rows of {', '.join(sorted(missing))} within {ROWS_S:g} s"
                raise Unavailable(what, f"see the logs in {self.logs}")
            select.select([], [], [], PAUSE_S)

    # -- what is there --

    def rows(self) -> list[HostRows]:
        """The hosts in the store. Raises Unavailable when it does not answer."""
        with open_for_reading(str(self.store)) as connection:
            sql = "SELECT host, count(), toUnixTimestamp(max(begin)) FROM images GROUP BY host ORDER BY host"
            return [HostRows(os.fsdecode(host), int(rows), int(latest)) for host, rows, latest in connection.query(sql).rows]

    # -- down --

    def down(self) -> bool:
        """End all parts, and take this host's recorder out of the kernel; False if nothing ran."""
        ran = self._end(self.roll.read())
        self._unload()
        return ran

    def _unload(self) -> None:
        """Take this fleet's recorder out of the kernel if it is there."""
        if os.path.isdir(self.pin_dir):  # whoever is not root may not look there
            try:
                self._command("record", "unload", "--pin-dir", str(self.pin_dir), "--run-dir", str(self.directory / "host" / "run"))
                self.say("the recorder was taken out of the kernel")
            except TasktrailError as failure:
                self.say(str(failure))

    def _end(self, found: Sequence[Process]) -> bool:
        """End these, the last one first; those that did not end stay written down."""
        ran = False
        for process in reversed(found):
            how = processes.end(process, STOP_S)
            ran = ran or how is not End.GONE
            self.say(f"{process.name} ({process.pid}) {how.value}")
            self.roll.write([one for one in self.roll.read() if one != process or processes.lives(one)])
        return ran
