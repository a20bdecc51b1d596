"""The kernel's ring as memory of ours: read without a system call, a copy or a library.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, which is ours to write; one page with the producer's; then the
data pages twice in a row, so that a record that wraps around lies in one piece.

Only what is being read is mapped: the pages are the kernel's, but whoever maps them is told to use that memory, and all of them twice
over would be most of what a small reader seems to take.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from producers.bpf import syscall
from schemas.batch import BUSY, DISCARD

_PAGE = mmap.PAGESIZE
_RECORD_BYTES_MAX = 65_536
"""More than any record takes: the first one is given whole, whatever the limit."""
_LENGTH = 0xFFFFFFFF & ~(BUSY | DISCARD)


def unchanged(body: bytes) -> bytes:
    """No masking."""
    return body


class Ring:
    """A mapped ring. Positions are byte counts since the ring was made and never wrap."""

    def __init__(self, fd: int, mask: Callable[[bytes], bytes] = unchanged) -> None:
        """Maps the ring buffer map ``fd``, which may be closed afterwards. ``mask`` goes over every stretch before it is handed out;
        it keeps the framing and the length."""
        self._mask = mask
        self.size_bytes = syscall.map_info(fd).entries
        self._fd = os.dup(fd)
        self._consumer_page = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_page = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        # Casts to 'Q' give one aligned 8-byte load or store each. struct.pack_into() would zero the field first: the kernel then sees
        # a full ring for a moment and drops records.
        self._consumer = memoryview(self._consumer_page)[:8].cast("Q")
        self._producer = memoryview(self._producer_page)[:8].cast("Q")

    @contextmanager
    def _mapped(self, begin: int, size: int) -> Iterator[tuple[memoryview, memoryview]]:
        """At least ``size`` bytes from position ``begin`` on, as bytes and as 4-byte words."""
        at = begin & self.size_bytes - 1
        inside = at % _PAGE
        length = min(inside + size + _PAGE - 1 & -_PAGE, 2 * self.size_bytes - at + inside)
        with mmap.mmap(self._fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=2 * _PAGE + at - inside) as pages:
            whole = memoryview(pages)
            view = whole[inside:]
            words = view.cast("I")
            try:
                yield view, words
            finally:
                for one in (words, view, whole):
                    one.release()

    def consumer(self) -> int:
        """Where the safe data ends: what lies before may be overwritten."""
        return self._consumer[0]

    def producer(self) -> int:
        """Where the kernel will write next."""
        return self._producer[0]

    def stretch(self, limit_bytes: int, start: int | None = None) -> tuple[int, int, bytes]:
        """Start, end and bytes of the finished records from ``start`` (the consumer's position if None) on.

        It stops before a record that is still being written, and before ``limit_bytes`` are exceeded unless the first record alone is
        longer. Discarded records stay in, so that end - start is the number of bytes. Nothing is released.
        """
        begin = self._consumer[0] if start is None else start
        there = self._producer[0] - begin
        if there <= 0:
            return begin, begin, b""
        end, limit = 0, min(there, limit_bytes + _RECORD_BYTES_MAX)
        with self._mapped(begin, limit) as (view, words):
            while end < limit:
                word = words[end >> 2]
                if word & BUSY:
                    break
                following = end + ((word & _LENGTH) + 15 & ~7)
                if following > limit_bytes and end:
                    break
                end = following
            body = bytes(view[:end])
        return begin, begin + end, self._mask(body)

    def finished_after(self, start: int) -> bytes:
        """The finished records from ``start`` on, framed, whatever unfinished ones lie between them. For looking, not for keeping."""
        at, there = 0, self._producer[0] - start
        found = []
        if there > 0:
            with self._mapped(start, there) as (view, words):
                while at < there:
                    word = words[at >> 2]
                    size = (word & _LENGTH) + 15 & ~7
                    if not word & (BUSY | DISCARD):
                        found.append(bytes(view[at : at + size]))
                    at += size
        return b"".join(found)

    def release(self, position: int) -> None:
        """Lets the kernel overwrite everything before ``position``."""
        assert self._consumer[0] <= position <= self._producer[0]
        self._consumer[0] = position

    def close(self) -> None:
        """Unmaps the ring."""
        self._consumer.release()
        self._producer.release()
        self._consumer_page.close()
        self._producer_page.close()
        os.close(self._fd)
