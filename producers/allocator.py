"""How the C library's allocator holds memory: little, for a program that lives beside others for months."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""mallopt(3), <malloc.h>."""
_KEPT_BYTES = 128 * 1024


def hold_little() -> bool:
    """One arena for all threads, and what is large goes back to the kernel at once: bodies of batches come and go by half a megabyte.

    To be called before threads are started. False where the C library has no mallopt.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    done = [mallopt(_ARENA_MAX, 1), mallopt(_TRIM_THRESHOLD, _KEPT_BYTES), mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)]
    return all(done)
