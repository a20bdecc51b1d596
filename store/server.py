"""The embedded ClickHouse of one store directory, seen from the process that starts it.

The server is a child process (store.server_child): it ends when the thread that started it ends, so start it from the main thread.
"""

import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from schemas.errors import BadInput, TasktrailError, Unavailable
from store import layout, server_config
from store.address import DATABASE, Address
from store.layout import Layout
from store.server_config import Limits
from store.server_errors import sentence

HOST = "127.0.0.1"
ROLES = {"reader": server_config.READER, "writer": server_config.WRITER}
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from store.server_child import main; main(sys.argv[2])"


class Ports(NamedTuple):
    """Where a server listens on 127.0.0.1; 0: the same as last time if they are free, else any that is."""

    tcp: int = 0
    http: int = 0


class Server:
    """The embedded server of a store directory."""

    def __init__(
        self,
        directory: Path | str,
        ports: Ports = Ports(),  # noqa: B008, a NamedTuple is immutable
        limits: Limits = Limits(),  # noqa: B008
        timeout_s: float = 60.0,
        pause: Callable[[float], None] = time.sleep,
        peers: tuple[int, ...] = (),
    ) -> None:
        """``peers`` are the TCP ports of other servers that this one may ask (Distributed tables); none for a store of its own."""
        self.directory = Path(directory)
        self._wanted = ports
        self._limits = limits
        self._timeout_s = timeout_s
        self._pause = pause
        self._peers = peers
        self._layout: Layout | None = None
        self._lock = -1
        self._child: subprocess.Popen[bytes] | None = None
        self._addresses: dict[str, Address] = {}

    def start(self) -> Self:
        """Take the store and start its server; returns when it answers.

        Raises BadInput (store in use, cannot be written, chdb-core missing) or Unavailable (disk full, server does not come up).
        """
        self._layout = layout.make(self.directory)
        self._lock = _take(self._layout, self._timeout_s / 6, self._pause)
        try:
            self._launch(self._layout)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def pid(self) -> int:
        """Of the child, 0 if there is none."""
        return self._child.pid if self._child else 0

    def address(self, role: str) -> Address:
        """How ``reader`` or ``writer`` gets in."""
        return self._addresses[role]

    def alive(self) -> bool:
        """Whether the child lives."""
        return self._child is not None and self._child.poll() is None

    def revive(self) -> bool:
        """Start the child again if it has died, on the same ports; whether that was needed. Raises as start does."""
        if self.alive():
            return False
        assert self._layout is not None, "revive before start"
        self._reap()
        self._launch(self._layout)
        return True

    def stop(self) -> None:
        """End the child, which loses nothing, and let go of the store."""
        self._reap()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self if self._child else self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _launch(self, place: Layout) -> None:
        """Write the configuration, start the child and wait until both its ports answer."""
        try:
            ports = self._ports(place)
            self._addresses = _write_files(place, ports, self._limits)
            with place.log.open("wb") as log:
                self._child = subprocess.Popen(
                    [sys.executable, "-I", "-c", _BOOT, str(Path(__file__).parent.parent), _orders(place, ports, self._peers)],
                    cwd="/",
                    env={"TZ": "UTC", "LANG": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for us; we end the server when the last rows are in.
                    start_new_session=True,
                    # The child holds the lock too, so that nobody starts another server before it has really ended.
                    pass_fds=(self._lock,),
                )
        except OSError as error:
            raise layout.failure(error, place.directory) from None
        self._await(place, ports)

    def _ports(self, place: Layout) -> Ports:
        """The ports to use now."""
        last = self._addresses.get("reader") or _stored_address(place, "reader")
        tcp = self._wanted.tcp or _free_port(last.port if last else 0)
        return Ports(tcp, self._wanted.http or _free_port(last.http_port if last else 0, tcp))

    def _await(self, place: Layout, ports: Ports) -> None:
        """Return when the child listens. Raises Unavailable if it ends or takes too long; it gives no event to wait for."""
        assert self._child is not None
        end = time.monotonic() + self._timeout_s
        waiting = [ports.http, ports.tcp]
        while waiting:
            if self._child.poll() is not None:
                raise _startup_failure(place, self._child.returncode)
            if time.monotonic() > end:
                self._reap()
                raise Unavailable(f"store {place.directory}: the server did not answer in {self._timeout_s:.0f} s", f"see {place.log}")
            if _answers(waiting[-1]):
                waiting.pop()
            else:
                self._pause(0.01)

    def _reap(self) -> None:
        """End the child and wait for its end."""
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None


def stored_address(directory: Path | str, role: str) -> Address | None:
    """How ``role`` gets into the server of a store directory that was started last; None if there never was one.

    Raises BadInput when the credentials cannot be read.
    """
    place = Layout(Path(directory).absolute())
    try:
        return _stored_address(place, role)
    except PermissionError:
        raise BadInput(f"{place.credential(role)} cannot be read by you", f"run as root, or be in group {layout.ACCOUNT} to read") from None


def holder(directory: Path | str) -> int:
    """Pid of the process whose server runs on the store, 0 if none does.

    Raises BadInput when we may not know: whoever can open the lock can also take it.
    """
    place = Layout(Path(directory).absolute())
    try:
        handle = os.open(place.lock, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise _not_for_us(place.directory) from None
    except OSError:
        return 0
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(handle)
    finally:
        os.close(handle)
    return 0


def _not_for_us(directory: Path) -> BadInput:
    return BadInput(f"store {directory} cannot be read by you", f"run as root, or as a member of group {layout.ACCOUNT}")


def _take(place: Layout, patience_s: float, pause: Callable[[float], None]) -> int:
    """The store's lock, held: a file descriptor. A server whose parent was killed just now may need a moment to end."""
    try:
        handle = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        group = layout.reader_gid()
        os.fchmod(handle, 0o600 if group is None else 0o640)
        os.fchown(handle, -1, -1 if group is None else group)
    except OSError as error:
        raise layout.failure(error, place.directory) from None
    end = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            pid = _pid_in(handle)
            if _living(pid) or time.monotonic() > end:
                os.close(handle)
                raise BadInput(f"store {place.directory} is in use by process {pid}", "end it, or choose another with --store") from None
            pause(0.02)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _pid_in(handle: int) -> int:
    text = os.pread(handle, 32, 0).strip()
    return int(text) if text.isdigit() else 0


def _living(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def _orders(place: Layout, ports: Ports, peers: tuple[int, ...]) -> str:
    """What the child is told, see store.server_child.Orders."""
    owner = layout.server_owner()
    uid, gid = owner or (-1, -1)
    whose = {"parent": os.getpid(), "uid": uid, "gid": gid}
    return json.dumps({"directory": str(place.server), "data": str(place.data), **whose, "ports": ports, "peers": peers})


def _write_files(place: Layout, ports: Ports, limits: Limits) -> dict[str, Address]:
    """Configuration and credentials; passwords stay what they were. Returns the address of each role."""
    addresses = {}
    for role, user in ROLES.items():
        known = _stored_address(place, role)
        password = known.password if known else secrets.token_urlsafe(32)
        addresses[role] = Address(HOST, ports.tcp, user, password, DATABASE, False, ports.http)
    owner = layout.server_owner()
    mode, group = (0o600, None) if owner is None else (0o640, owner.gid)
    config = server_config.config_xml(ports.tcp, ports.http, str(place.data), limits)
    users = server_config.users_xml(addresses["reader"].password, addresses["writer"].password, limits)
    layout.write_private(place.server / "config.xml", config.encode(), mode, group)
    layout.write_private(place.server / "users.xml", users.encode(), mode, group)
    for role, address in addresses.items():
        group = layout.reader_gid() if role == "reader" else None
        text = json.dumps(address._asdict(), indent=1) + "\n"
        layout.write_private(place.credential(role), text.encode(), 0o600 if group is None else 0o640, group)
    return addresses


def _stored_address(place: Layout, role: str) -> Address | None:
    """What a credentials file says, None if there is none or it is damaged. Raises PermissionError."""
    try:
        values = json.loads(place.credential(role).read_text())
        return Address(**values)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _free_port(wanted: int, but: int = 0) -> int:
    """``wanted`` if it is free, else any port that is."""
    for port in (wanted, 0, 0):
        with socket.socket() as probe:
            # As the server will do: connections of its last life may still be in TIME_WAIT.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found = int(probe.getsockname()[1])
            if found != but:
                return found
    raise Unavailable("no TCP port is free on 127.0.0.1")


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _startup_failure(place: Layout, code: int) -> TasktrailError:
    """Why the child ended, as far as it said."""
    text = place.log.read_text("utf-8", "replace")
    if "chdb-core is not installed" in text:
        return BadInput("the embedded store needs chdb-core", "pip install tasktrail[store], or use --store clickhouse://...")
    if "No space left" in text or "NOT_ENOUGH_SPACE" in text:
        return Unavailable(f"store {place.directory}: the disk is full", "make room, or lower the retention")
    said = sentence(text[text.rfind("Code: ") :])[:300] if "Code: " in text else " ".join(text.split())[-300:]
    if "PermissionError" in text:
        problem = f"store {place.directory} cannot be entered by the user that its server runs as"
        return BadInput(problem, "choose a directory below directories that everybody may enter")
    return Unavailable(f"store {place.directory}: the server did not start: {said or f'it ended with {code}'}", f"see {place.log}")
