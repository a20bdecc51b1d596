"""The process that is the embedded ClickHouse: loads the server from the chdb-core wheel, enters its cage, serves until it is killed.

The only module that knows how a server is got out of that wheel (version pinned, held by tests/contract): the raw extension's
``query`` runs ``SYSTEM START LISTEN`` in a directory with a ``config.xml`` and then a statement that never ends. It can be done
once in a process, and no signal but death ends it; the data is safe at any moment.

Run by store.server as ``python -I -c``, with the store package's directory and one JSON argument (``Orders``).
"""

import ctypes
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

from store import cage

SERVE = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT number FROM system.numbers WHERE sleepEachRow(1) > 0 "
    "SETTINGS max_block_size = 1, max_threads = 1, max_execution_time = 0, max_untracked_memory = 1000000000000"
)
"""The last statement never ends and gives no row. With its few bytes not counted, it does not fall when another query has used up
the server's memory, which would end the server."""

READABLE = (
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self",
    "/proc/stat",
    "/proc/sys/kernel",
    "/proc/sys/vm",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/usr/share/zoneinfo",
)
"""What the server looks at to know its machine; nothing there is secret, and its own /proc/self/environ is empty."""


class Orders(NamedTuple):
    """What the child is told.

    directory  its working directory, which it may read: config.xml and users.xml
    data       its own directory, the only one that it may write
    parent     pid of the process with which it shall end
    uid, gid   whom it shall become; -1: stay who it is
    ports      TCP ports on which it may listen
    peers      TCP ports to which it may connect
    """

    directory: str
    data: str
    parent: int
    uid: int
    gid: int
    ports: tuple[int, int]
    peers: tuple[int, ...]


def extension_path() -> Path | None:
    """Where the wheel's extension is, None if chdb-core is not installed. Loads nothing."""
    found = importlib.util.find_spec("chdb")
    for place in found.submodule_search_locations or () if found else ():
        for path in Path(place).glob("_chdb*.so"):
            return path
    return None


def _load(path: Path) -> Any:
    """The extension, and the helper library that it would open later, when it may no longer read it."""
    found = importlib.util.spec_from_file_location("_chdb", path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    helper = path.parent / f"libpybind11nonlimitedapi_chdb_{sys.version_info.major}.{sys.version_info.minor}.so"
    if helper.exists():
        ctypes.CDLL(str(helper), mode=os.RTLD_GLOBAL)
    return module


def main(orders_json: str) -> None:
    """Serve. Returns only when the server could not start; the reason is on stderr then."""
    orders = Orders(**json.loads(orders_json))
    path = extension_path()
    if path is None:
        sys.exit("chdb-core is not installed")
    chdb = _load(path)
    os.chdir(orders.directory)
    if orders.uid >= 0:
        cage.drop_privileges(orders.uid, orders.gid)
    cage.keep_capabilities(())
    cage.end_with_parent(orders.parent)
    cage.limit()
    # A thread that the extension had started would stay outside.
    threads = len(os.listdir("/proc/self/task"))
    if threads != 1:
        sys.exit(f"the server's library has started {threads - 1} threads before the cage was entered")
    version = cage.enter(orders.data, (orders.directory, *READABLE), orders.ports, orders.peers)
    print(f"caged: Landlock version {version}", flush=True)
    chdb.query(SERVE, "TSV", path=orders.data)
