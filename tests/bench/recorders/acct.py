"""BSD process accounting: the kernel writes a record for each process that ends. There is no process to disturb."""

import struct

from tests.bench.recorders.facts import Said, Seen
from tests.bench.recorders.recorder import Recorder, run

RECORD = struct.Struct("=BBHIIIIIIf8H16s")
"""struct acct_v3 of linux/acct.h: flag, version, tty, exit code, uid, gid, pid, ppid, begin, elapsed, eight comp_t, comm."""
FORKED_ONLY = 0x01
"""AFORK: it forked and did not exec."""
VERSION = 3


def read_accounts(data: bytes) -> Seen:
    """Pids in the file. A fork and an exec are known when the process has ended, and from the same record."""
    records = [one for one in RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]) if one[1] & 0x7F == VERSION]
    pids = frozenset(one[6] for one in records)
    return Seen(pids, frozenset(one[6] for one in records if not one[0] & FORKED_ONLY), pids)


class Acct(Recorder):
    """accton into a file."""

    name = "acct"
    package = "acct"
    switch = "accton off"
    has_process = False

    def start(self) -> None:
        """Accounting begins."""
        accounts = self.directory / "pacct"
        accounts.touch()
        run("accton", accounts)

    def off(self) -> None:
        """Accounting ends."""
        run("accton", "off")

    def finish(self) -> tuple[Seen, Said]:
        """It has no word for what it missed."""
        self.off()
        return read_accounts((self.directory / "pacct").read_bytes()), Said(None)

    def drain(self) -> None:
        """The kernel writes before the process has ended."""

    def close(self) -> None:
        """Accounting is off."""
        self.off()
        super().close()
