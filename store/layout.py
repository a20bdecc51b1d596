"""What lies where in a store's directory.

DIR/                0711  so that the server's user can reach its own directory
DIR/lock                  locked while a server runs on the store; holds the pid of the process that started it
DIR/status.json           written by ``tasktrail run``
DIR/credentials/          0700 (0750 and of group tasktrail where that exists): never below the server's directory
    reader.json           how to read: address, user, password
    writer.json           how to write, for root or the store's owner alone
DIR/state/          0700  state of the join
DIR/deadletter/     0700  rows that no server would take
DIR/clickhouse/     0700  the server's own, of its unprivileged user; all that it can write
    config.xml, users.xml made anew at each start; passwords only as hashes
    data/                 the tables
DIR/server.log            what the server said at its last start
"""

import errno
import grp
import os
import pwd
from pathlib import Path
from typing import NamedTuple

from schemas.errors import BadInput, TasktrailError, Unavailable

DEFAULT_STORE = "/var/lib/tasktrail"
STORE_VARIABLE = "TASKTRAIL_STORE"
ACCOUNT = "tasktrail"
"""User that the server becomes when it is started by root, and group that may read the reader's credentials."""
NOBODY = 65534
"""uid and gid that no file should belong to: the server's where there is no such user."""


class Layout(NamedTuple):
    """The paths of one store."""

    directory: Path

    @property
    def lock(self) -> Path:
        """The lock file."""
        return self.directory / "lock"

    @property
    def status(self) -> Path:
        """What ``run`` last said about itself."""
        return self.directory / "status.json"

    @property
    def credentials(self) -> Path:
        """The directory of passwords."""
        return self.directory / "credentials"

    @property
    def state(self) -> Path:
        """The join's state."""
        return self.directory / "state"

    @property
    def deadletter(self) -> Path:
        """Rows that no server would take."""
        return self.directory / "deadletter"

    @property
    def server(self) -> Path:
        """The server's configuration."""
        return self.directory / "clickhouse"

    @property
    def data(self) -> Path:
        """The server's own directory."""
        return self.server / "data"

    @property
    def log(self) -> Path:
        """What the server said at its last start."""
        return self.directory / "server.log"

    def credential(self, role: str) -> Path:
        """The file of one role, writer or reader."""
        return self.credentials / f"{role}.json"


class Owner(NamedTuple):
    """Who a directory belongs to."""

    uid: int
    gid: int


def server_owner() -> Owner | None:
    """Whom the server becomes: user tasktrail if there is one, else nobody; None when we are not root and it stays who we are."""
    if os.geteuid() != 0:
        return None
    try:
        account = pwd.getpwnam(ACCOUNT)
    except KeyError:
        return Owner(NOBODY, NOBODY)
    return Owner(account.pw_uid, account.pw_gid) if account.pw_uid else Owner(NOBODY, NOBODY)


def reader_gid() -> int | None:
    """The group that may read the reader's credentials, None if it is not there or we are neither root nor in it."""
    try:
        gid = grp.getgrnam(ACCOUNT).gr_gid
    except KeyError:
        return None
    return gid if os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups()) else None


def make(directory: Path) -> Layout:
    """Make what is missing of a store's directories, with their rights. Raises BadInput or Unavailable when it cannot be."""
    layout = Layout(directory.absolute())
    group = reader_gid()
    try:
        layout.directory.mkdir(parents=True, exist_ok=True)
        _make(layout.directory, 0o711, None)
        _make(layout.credentials, 0o700 if group is None else 0o750, None if group is None else Owner(os.geteuid(), group))
        _make(layout.state, 0o700, None)
        _make(layout.deadletter, 0o700, None)
        owner = server_owner()
        _make(layout.server, 0o700 if owner is None else 0o750, None if owner is None else Owner(0, owner.gid))
        _make(layout.data, 0o700, owner)
    except OSError as error:
        raise failure(error, layout.directory) from None
    return layout


def write_private(path: Path, data: bytes, mode: int = 0o600, gid: int | None = None) -> None:
    """Replace a file in one step; nobody ever sees it half written or with wider rights. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        if gid is not None:
            os.fchown(file.fileno(), -1, gid)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def failure(error: OSError, directory: Path) -> TasktrailError:
    """The system's refusal as a sentence with its cure."""
    what = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"store {directory}: the disk is full", "make room, or lower the retention")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BadInput(f"store {directory} cannot be written: {what}", "run as root, or choose another directory with --store")
    return BadInput(f"store {directory} cannot be used: {what}", "choose another directory with --store")


def _make(path: Path, mode: int, owner: Owner | None) -> None:
    """A directory with this mode and owner; what is below keeps its own."""
    path.mkdir(exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    if owner is not None:
        os.chown(path, owner.uid, owner.gid)
    path.chmod(mode)
