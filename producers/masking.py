"""Secrets in arguments are overwritten by whoever reads the ring, before anything is written anywhere.

Arguments lie one after another, each ended by a NUL; patterns are searched in them as they lie, so that one can span two arguments.
What a pattern's first group matches, or all of it where it has none, becomes as many ``*``: the records keep their places and sizes,
so ring positions stay what they were. The length of a secret stays visible, its bytes do not. The record says so by a flag. Names of
files (filename, interp, exe, cwd) and comm are left as they are. Until it is read, the secret lies in the kernel's ring, for root to see.
"""

import re
import struct
from collections.abc import Sequence

from schemas import events
from schemas.batch import frames
from schemas.errors import BadInput
from schemas.events import Flag, Kind

SECRETS = "secrets"
"""Stands for ``_COMMON`` in a list of patterns."""

_NAME = rb"(?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)"
_COMMON = (
    # --password=…, PGPASSWORD=…, "token": "…", ?api_key=…&
    rb"(?i)" + _NAME + rb"[\w.-]{0,32}[\"']?\s{0,4}[=:]\s{0,4}[\"']?([^\0&\"']+)",
    # --password …
    rb"(?i)(?:\A|\0)--?[\w.-]{0,32}?" + _NAME + rb"[\w.-]{0,32}\0([^\0]+)",
    # scheme://user:…@
    rb"://[^/\0:@]{0,256}:([^/\0@]{1,256})@",
    # Authorization: Bearer …
    rb"(?i)(?:authorization:\s{0,4}\w{1,32}|bearer)\s{1,4}([^\0]+)",
)
"""No pattern here takes long on arguments that were made to make it take long: nothing repeats without bound inside a repetition."""

_FLAGS = struct.Struct("<I")
_FLAGS_AT = 4
_SIZE = struct.Struct("<H")
_ARGUMENTS = {
    Kind.EXEC: (events.EXEC.size - 16, events.EXEC.size),
    Kind.SEEN: (struct.calcsize(events.HEAD.format + "4Q17I4x16s"), events.SEEN.size),
}
"""Where a record tells the size of its arguments, and where they begin."""


class Masking:
    """Overwrites what patterns match. ``masked`` counts the records in which something was."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """``patterns`` are regular expressions (Python's re, over bytes), or the word of ``SECRETS``. Raises BadInput."""
        self.masked = 0
        self._patterns: list[re.Pattern[bytes]] = []
        for pattern in patterns:
            try:
                self._patterns += [re.compile(one) for one in (_COMMON if pattern == SECRETS else (pattern.encode(),))]
            except re.error as wrong:
                raise BadInput(f"pattern {pattern!r} of argv_mask is no regular expression: {wrong}", "mend it in the settings") from None

    def __bool__(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self._patterns)

    def arguments(self, argv: bytes) -> bytes:
        """The arguments with what is secret overwritten; the same length."""
        masked: bytearray | None = None
        for pattern in self._patterns:
            for match in pattern.finditer(argv):
                begin, end = match.span(1 if pattern.groups else 0)
                if begin < end:
                    masked = masked or bytearray(argv)
                    # NULs divide arguments and are no secret.
                    masked[begin:end] = bytes(0 if byte == 0 else 0x2A for byte in masked[begin:end])
        if masked is None:
            return argv
        self.masked += 1
        return bytes(masked)

    def body(self, body: bytes) -> bytes:
        """Framed records with their arguments masked. Raises DecodeError where they are not well framed."""
        if not self._patterns:
            return body
        changed: bytearray | None = None
        for at, size in frames(body):
            place = _ARGUMENTS.get(body[at]) if size else None  # type: ignore[call-overload]
            if place is None or size < place[1]:
                continue
            begin = at + place[1]
            end = min(at + size, begin + _SIZE.unpack_from(body, at + place[0])[0])
            argv = body[begin:end]
            masked = self.arguments(argv)
            if masked is not argv:
                changed = changed or bytearray(body)
                changed[begin:end] = masked
                flags = _FLAGS.unpack_from(body, at + _FLAGS_AT)[0] | Flag.ARGV_MASKED
                _FLAGS.pack_into(changed, at + _FLAGS_AT, flags)
        return body if changed is None else bytes(changed)


NO_MASKING = Masking(())
