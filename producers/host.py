"""Which host this is, and what time it is here."""

import hashlib
import os
import time
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

from schemas.errors import Unavailable

STATE_DIRECTORY = Path("/var/lib/tasktrail")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MACHINE_ID = Path("/etc/machine-id")
_PRODUCT_UUID = Path("/sys/class/dmi/id/product_uuid")
_SERIAL_NUMBER = Path("/proc/device-tree/serial-number")
_CLOCK_TRIES = 8


class Host(NamedTuple):
    """Who a batch comes from.

    host_id   this installation
    boot_id   this boot
    hostname  the host's name, for showing
    """

    host_id: UUID
    boot_id: UUID
    hostname: bytes


def here(state_dir: Path = STATE_DIRECTORY) -> Host:
    """This host, now."""
    return Host(host_id(state_dir), boot_id(), hostname())


def boot_id() -> UUID:
    """The kernel's random name of this boot."""
    return UUID(_BOOT_ID.read_text().strip())


def machine_id() -> str:
    """What /etc/machine-id says; empty on a system without."""
    try:
        return _MACHINE_ID.read_text().strip()
    except FileNotFoundError:
        return ""


def host_id(state_dir: Path = STATE_DIRECTORY) -> UUID:
    """The installation's random name, made on first use and kept in ``state_dir``.

    It is bound to the machine-id that it was made under and made anew when that is another one: an image that is cloned after the
    installation gives every copy its own name, as far as the copies have machine-ids of their own.
    """
    path, machine = state_dir / "host-id", machine_id()
    try:
        kept, _, under = path.read_text().strip().partition(" ")
        if under == machine:
            return UUID(kept)
    except FileNotFoundError:
        pass
    except ValueError:
        raise Unavailable(f"{path} does not hold a host id", f"remove {path}; a new id is made then") from None
    made = uuid4()
    state_dir.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".host-id-{os.getpid()}")
    with unfinished.open("w") as file:
        file.write(f"{made} {machine}\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
    return made


def machine() -> bytes:
    """A fingerprint of 8 bytes of the machine: two that claim one host_id differ in it, unless one is an exact copy of the other.

    Of /etc/machine-id and what the firmware calls the machine: the product UUID, or the serial number of a device tree; empty where
    that may not be read (it is for root only). Network devices are left out, for they come and go.
    """
    facts = [machine_id().encode()]
    for path in (_PRODUCT_UUID, _SERIAL_NUMBER):
        try:
            facts.append(path.read_bytes().strip(b"\0\n "))
        except FileNotFoundError:
            continue
        except OSError:
            return b""
    return hashlib.sha256(b"\n".join(facts)).digest()[:8]


def hostname() -> bytes:
    """What uname(2) gives as the node's name."""
    return os.fsencode(os.uname().nodename)


class Moment(NamedTuple):
    """Both clocks at one moment, in nanoseconds."""

    boottime_ns: int
    realtime_ns: int


def now() -> Moment:
    """CLOCK_BOOTTIME and CLOCK_REALTIME read together: of a few readings the one in which the least time passed between them."""
    best, narrowest = Moment(0, 0), 1 << 63
    for _ in range(_CLOCK_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        realtime = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if after - before < narrowest:
            best, narrowest = Moment((before + after) // 2, realtime), after - before
    return best
