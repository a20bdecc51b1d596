"""The kernel's ring as memory of ours: read without a system call, a copy or a library.

Layout (kernel/bpf/ringbuf.c): one page with the consumer's position, which is ours to write; one page with the producer's; then the
data pages twice in a row, so that a record that wraps around lies in one piece.
"""

import mmap
from collections.abc import Callable

from producers.bpf import syscall
from schemas.batch import BUSY, DISCARD

_PAGE = mmap.PAGESIZE
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
        self._consumer_page = mmap.mmap(fd, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer_pages = mmap.mmap(fd, _PAGE + 2 * self.size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE)
        # Casts to 'Q' give one aligned 8-byte load or store each. struct.pack_into() would zero the field first: the kernel then sees
        # a full ring for a moment and drops records.
        self._consumer = memoryview(self._consumer_page)[:8].cast("Q")
        self._pages = memoryview(self._producer_pages)
        self._producer = self._pages[:8].cast("Q")
        self._data = self._pages[_PAGE:]
        self._words = self._data.cast("I")

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
        end, produced, mask, words = begin, self._producer[0], self.size_bytes - 1, self._words
        while end < produced:
            word = words[(end & mask) >> 2]
            if word & BUSY:
                break
            following = end + ((word & _LENGTH) + 15 & ~7)
            if following - begin > limit_bytes and end > begin:
                break
            end = following
        at = begin & mask
        return begin, end, self._mask(bytes(self._data[at : at + end - begin]))

    def finished_after(self, start: int) -> bytes:
        """The finished records from ``start`` on, framed, whatever unfinished ones lie between them. For looking, not for keeping."""
        at, produced, mask, words = start, self._producer[0], self.size_bytes - 1, self._words
        found = []
        while at < produced:
            word = words[(at & mask) >> 2]
            size = (word & _LENGTH) + 15 & ~7
            if not word & (BUSY | DISCARD):
                begin = at & mask
                found.append(bytes(self._data[begin : begin + size]))
            at += size
        return b"".join(found)

    def release(self, position: int) -> None:
        """Lets the kernel overwrite everything before ``position``."""
        assert self._consumer[0] <= position <= self._producer[0]
        self._consumer[0] = position

    def close(self) -> None:
        """Unmaps the ring."""
        for view in (self._consumer, self._producer, self._words, self._data, self._pages):
            view.release()
        self._consumer_page.close()
        self._producer_pages.close()
