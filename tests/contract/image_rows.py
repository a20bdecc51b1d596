"""A small made-up host: processes that fork, exec and end, as the rows that the join would write."""

from typing import Any
from uuid import UUID

from schemas import identity
from schemas.identity import NIL
from schemas.rows import EndKind, ImageKind, ImageRow
from tests.contract.rows import BEGIN, BOOT, HOST, image

S = 10**9


class Process:
    """A process of the made-up host; ``rows`` are its images' newest rows by exec id."""

    def __init__(self, world: "World", tgid: int, start_ns: int, creator: "Process | None", unknown_creator: bool = False) -> None:
        self.world, self.tgid, self.start_ns, self.creator = world, tgid, start_ns, creator
        self.task_id = identity.task_id(world.host_id, world.boot_id, tgid, start_ns)
        self.creator_image = creator.now if creator else None
        self.unknown_creator = unknown_creator
        self.rows: dict[int, ImageRow] = {}

    @property
    def now(self) -> ImageRow:
        """The image that it runs."""
        return self.rows[max(self.rows)]

    def row(self, exec_id: int, at_ns: int, **changes: Any) -> ImageRow:
        """A row of this process that begins at ``at_ns`` (nanoseconds since the made-up boot)."""
        above = self.creator_image
        base: dict[str, Any] = {
            "host_id": self.world.host_id,
            "host": self.world.host,
            "boot_id": self.world.boot_id,
            "task_id": self.task_id,
            "tgid": self.tgid,
            "start_boottime": self.start_ns,
            "start": BEGIN + self.start_ns,
            "exec_id": exec_id,
            "begin": BEGIN + at_ns,
            "begin_boottime": at_ns,
            "version": at_ns * 4,
            "user": b"root",
            "seen": (BEGIN + at_ns) // S,
            "creator_id": above.task_id if above else NIL,
            "creator_tgid": above.tgid if above else 0,
            "creator_exec_id": above.exec_id if above else 0,
            "parent_tgid": above.tgid if above else 0,
            "ancestor_ids": (above.task_id, *above.ancestor_ids) if above else (NIL,) if self.unknown_creator else (),
            "chain_complete": int(not self.unknown_creator),
        }
        return image(0, **(base | changes))

    def put(self, row: ImageRow) -> ImageRow:
        """The row counts from now on; also the version before it stays in the store."""
        self.rows[row.exec_id] = row
        self.world.log.append(row)
        return row

    def exec(self, at_ns: int, comm: bytes, *argv: bytes, **changes: Any) -> ImageRow:
        """It runs another program."""
        before = self.now if self.rows else self.creator_image
        exec_id = before.exec_id + 1 if before else 1
        start = BEGIN + at_ns
        chain = {
            "chain_kind": (*(before.chain_kind if before else ()), int(ImageKind.EXEC)),
            "chain_tgid": (*(before.chain_tgid if before else ()), self.tgid),
            "chain_exec_id": (*(before.chain_exec_id if before else ()), exec_id),
            "chain_start": (*(before.chain_start if before else ()), start),
            "chain_comm": (*(before.chain_comm if before else ()), comm),
            "chain_exe": (*(before.chain_exe if before else ()), b"/bin/" + comm),
        }
        if self.rows:
            self._close(at_ns, end_kind=int(EndKind.EXEC))
        facts = {"comm": comm, "exe": b"/bin/" + comm, "argv": (comm, *argv), "cwd": b"/root", "kind": int(ImageKind.EXEC)}
        return self.put(self.row(exec_id, at_ns, **(chain | facts | changes)))

    def fork(self, at_ns: int, tgid: int) -> "Process":
        """It creates a process that is not folded into its exec."""
        child = Process(self.world, tgid, at_ns, self)
        now = self.now
        chain = {name: getattr(now, name) for name in ImageRow._fields if name.startswith("chain_")}
        child.put(child.row(now.exec_id, at_ns, kind=int(ImageKind.FORK), comm=now.comm, exe=now.exe, argv=now.argv, **chain))
        return child

    def spawn(self, at_ns: int, tgid: int, comm: bytes, *argv: bytes, **changes: Any) -> "Process":
        """It creates a process that execs at once: one row."""
        child = Process(self.world, tgid, at_ns, self)
        child.exec(at_ns + 1, comm, *argv, **changes)
        return child

    def _close(self, at_ns: int, **changes: Any) -> None:
        now = self.now
        end = {"duration": BEGIN + at_ns - now.begin, "version": at_ns * 4 + 2, **changes}
        self.put(now._replace(**end))

    def exit(self, at_ns: int, code: int = 0, signal: int = 0) -> None:
        """It ends."""
        self._close(at_ns, end_kind=int(EndKind.EXIT), exit_code=code, exit_signal=signal)


class World:
    """A host since its boot; ``log`` holds every row that was written, older versions too."""

    def __init__(self, host: bytes = b"web1", host_id: UUID = HOST, boot_id: UUID = BOOT) -> None:
        self.host, self.host_id, self.boot_id = host, host_id, boot_id
        self.log: list[ImageRow] = []

    def root(self, tgid: int = 1, comm: bytes = b"systemd") -> Process:
        """Process 1."""
        process = Process(self, tgid, S, None)
        process.exec(2 * S, comm)
        return process
