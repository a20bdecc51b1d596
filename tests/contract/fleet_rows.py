"""Twenty made-up hosts that are as alike as can be: same pids, same names of processes, same times since boot, some with one name, one
boot_id, or a name made to deceive. What tells their processes apart is an argument that each host has for itself."""

from uuid import UUID

from schemas.rows import ImageRow, LossCause, LossRow
from tests.contract.image_rows import S, World
from tests.contract.rows import BEGIN, loss

TWINS = (b"twin", b"twin")
HOSTILE = (
    b"\x1b[31mred\x1b[0m",
    b"it's",
    b'"quoted"',
    b"*",
    b"web-[0-9]",
    b"a b:1",
    b"\xff\xfe",
    b"",
    b"$(reboot)",
    b"web-1;DROP",
    b"{x:String}",
)
PLAIN = tuple(b"web-%d" % number for number in range(1, 8))
NAMES = (*PLAIN, *TWINS, *HOSTILE)
COPIED_BOOT = UUID(int=0xC0B1ED)
"""Of two machines, one of which was copied from the other while it ran."""


def host_id(number: int) -> UUID:
    """The id of the number-th host; the ids' first digits differ."""
    return UUID(int=(number + 1) * 0x0B57_9BDF << 96 | number)


def mark(number: int) -> bytes:
    """What every process of the host has as an argument, and none of another host."""
    return b"of-host-%d-" % number


def world(number: int, name: bytes | None = None) -> World:
    """systemd(1) > sshd(812) > sshd(899) > bash(901) > make(4650) > cc1(4711), and what has ended."""
    boot = COPIED_BOOT if number in (0, 1) else UUID(int=0xB007 << 64 | number)
    host = World(NAMES[number] if name is None else name, host_id(number), boot)
    of = mark(number)
    systemd = host.root()
    systemd.put(systemd.now._replace(argv=(b"/sbin/init", of), version=systemd.now.version + 1))
    bash = systemd.spawn(10 * S, 812, b"sshd", b"-D", of).fork(20 * S, 899).spawn(21 * S, 901, b"bash", of)
    bash.spawn(22 * S, 4711, b"ls", of).exit(23 * S)
    make = bash.spawn(30 * S, 4650, b"make", b"-j2", of)
    make.spawn(41 * S, 4711, b"cc1", b"a.c", of)
    # Hosts have ended different parts of the same work.
    if number % 2:
        make.spawn(50 * S, 4800, b"sleep", of).exit(60 * S, code=number)
        bash.exec(70 * S, b"python3", of)
    if number % 3 == 0:
        make.exit(80 * S, signal=9)
    only = systemd.spawn((90 + number) * S, 7000 + number, b"only-%d" % number, of)
    only.exit((100 + number) * S, code=1)
    return host


def fleet() -> list[ImageRow | LossRow]:
    """All that the twenty hosts have written."""
    rows: list[ImageRow | LossRow] = []
    for number in range(len(NAMES)):
        host = world(number)
        rows += host.log
        told = {"host_id": host.host_id, "host": host.host, "boot_id": host.boot_id}
        rows.append(loss(0, cause=int(LossCause.NO_RECORDER), begin=BEGIN, end=BEGIN + 5 * S, **told))
        if number % 5 == 0:
            rows.append(loss(33, amount=number + 1, begin=BEGIN + 33 * S, end=BEGIN + 34 * S, **told))
    return rows
