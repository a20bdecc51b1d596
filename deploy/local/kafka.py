"""An Apache Kafka for one machine: one process that is broker and controller, on 127.0.0.1, for trying and for tests.

    with Kafka(Path("/var/tmp/kafka")) as kafka:
        print(kafka.address)

Maven brings the jars on first use, into a cache outside the checkout (TASKTRAIL_KAFKA_JARS names another directory). Needs Java 17.
Run as a program it serves until it is asked to stop: ``python -m deploy.local.kafka DIRECTORY [PORT]``.
"""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from schemas.errors import Unavailable

VERSION = "4.1.1"
POM = Path(__file__).with_name("kafka-pom.xml")
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
"""Small, and quick to start: the compiler's second tier takes a core for the first minute."""
CLUSTER_ID = "dGFza3RyYWlsLWxvY2FsMQ"
START_S = 90.0
STOP_S = 40.0
FETCH_S = 600.0


def jars() -> Path:
    """The directory with Kafka's jars, fetched if it is not there. Raises Unavailable."""
    named = os.environ.get("TASKTRAIL_KAFKA_JARS")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = Path(named) if named else cache / "tasktrail" / f"kafka-{VERSION}"
    if any(directory.glob("kafka_2.13-*.jar")):
        return directory
    if shutil.which("mvn") is None:
        raise Unavailable(
            f"Kafka's jars are not in {directory}, and there is no Maven to fetch them", "install maven, or set TASKTRAIL_KAFKA_JARS"
        )
    unfinished = directory.with_name(f".{directory.name}-{os.getpid()}")
    command = ["mvn", "-q", "-B", "-f", str(POM), COPY, f"-DoutputDirectory={unfinished}", "-DincludeScope=runtime"]
    done = subprocess.run(command, cwd=POM.parent, capture_output=True, text=True, timeout=FETCH_S, check=False)
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise Unavailable(f"Maven did not fetch Kafka {VERSION}: {(done.stdout or done.stderr).strip()[-300:]}")
    with contextlib.suppress(OSError):  # another one was faster
        unfinished.rename(directory)
    shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def tools() -> Path:
    """The jar with those of Kafka's tools that are not in the broker's, fetched if it is not there. Raises Unavailable."""
    name = f"kafka-tools-{VERSION}.jar"
    cache = jars().parent / f"kafka-tools-{VERSION}"
    for directory in (jars(), cache):
        if (directory / name).is_file():
            return directory / name
    cache.mkdir(exist_ok=True)
    command = ["mvn", "-q", "-B", COPY.rpartition(":")[0] + ":copy", f"-Dartifact=org.apache.kafka:kafka-tools:{VERSION}"]
    done = subprocess.run([*command, f"-DoutputDirectory={cache}"], capture_output=True, text=True, timeout=FETCH_S, check=False)
    if done.returncode:
        raise Unavailable(f"Maven did not fetch Kafka's tools {VERSION}: {(done.stdout or done.stderr).strip()[-300:]}")
    return cache / name


def free_port(wanted: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on: the wanted one if that is so."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            # As servers do: connections of the last life may still be in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise Unavailable("no TCP port is free on 127.0.0.1")


class Kafka:
    """One broker. Its data outlive it: ``start`` after ``stop`` or ``kill`` goes on with them, on the same port."""

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        host: str = "127.0.0.1",
        settings: Mapping[str, str] | None = None,
        users: Sequence[str] = (),
        own_session: bool = False,
    ) -> None:
        """``settings`` are the broker's, by its names; ``users`` are what `kafka-storage format --add-scram` takes.

        In an ``own_session`` it hears no Ctrl-C of a terminal, and goes on when whoever started it has ended.
        """
        self.directory = directory
        self.host, self.port, self._controller = host, port or free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._settings, self._users, self._own_session = dict(settings or {}), users, own_session

    @property
    def address(self) -> str:
        """What --kafka takes."""
        return f"{self.host}:{self.port}"

    @property
    def log(self) -> Path:
        """What the broker writes to stdout and stderr."""
        return self.directory / "kafka.log"

    def _properties(self) -> str:
        controller = f"127.0.0.1:{self._controller}"
        lines = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": controller,
            "listeners": f"BROKER://{self.address},CONTROLLER://{controller}",
            "advertised.listeners": f"BROKER://{self.address},CONTROLLER://{controller}",
            "listener.security.protocol.map": "BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "BROKER",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            **self._settings,
        }
        return "".join(f"{name}={value}\n" for name, value in lines.items())

    def _java(self, *arguments: str) -> list[str]:
        if shutil.which("java") is None:
            raise Unavailable("there is no Java to run Kafka with", "install a Java 17 runtime, such as default-jre-headless")
        return ["java", *JVM, "-cp", f"{jars()}/*", *arguments]

    def start(self) -> "Kafka":
        """Start, and wait until it answers. Raises Unavailable with the end of its log if it does not."""
        self.directory.mkdir(parents=True, exist_ok=True)
        properties = self.directory / "server.properties"
        properties.write_text(self._properties())
        if not (self.directory / "data" / "meta.properties").exists():
            users = [word for user in self._users for word in ("--add-scram", user)]
            format_it = self._java("kafka.tools.StorageTool", "format", "--standalone", "-t", CLUSTER_ID, "-c", str(properties), *users)
            done = subprocess.run(format_it, capture_output=True, text=True, timeout=START_S, check=False)
            if done.returncode:
                raise Unavailable(f"Kafka's storage could not be made: {(done.stderr or done.stdout).strip()[-300:]}")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._java("kafka.Kafka", str(properties)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=self._own_session,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                end = self.log.read_text(errors="replace")[-800:]
                self.kill()
                raise Unavailable(f"Kafka did not start within {START_S:g} s: {end}")
            select.select([], [], [], 0.1)
        return self

    def _answers(self) -> bool:
        """Whether the broker takes requests: an ApiVersions request (version 0) gets an answer."""
        request = bytes.fromhex("00000013 0012 0000 00000001 0009") + b"tasktrail"
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as connection:
                connection.sendall(request)
                return len(connection.recv(4)) == 4
        except OSError:
            return False

    def stop(self) -> None:
        """Ask it to stop, and wait for its end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def pause(self) -> None:
        """Let it hang, connections open."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def __enter__(self) -> "Kafka":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def main() -> None:
    """Serve until asked to stop."""
    directory, port = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 9092
    kafka = Kafka(directory, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        kafka.start()
        print(f"Kafka {VERSION} on {kafka.address}, data in {directory}", flush=True)
        assert kafka.process is not None
        kafka.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        kafka.stop()


if __name__ == "__main__":
    main()
