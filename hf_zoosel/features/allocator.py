"""Keep the C library from giving activations back to the system after every layer.

By default glibc returns freed memory above some tens of megabytes at once, and a forward pass on a CPU
frees that much at every layer: the next layer then faults the same pages in again, thousands per image.
"""

import contextlib
import ctypes
from collections.abc import Iterator

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no more
_KEPT = 512 << 20


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let malloc keep up to 512 MB of freed memory for the next layer; on leaving, what is free goes back.

    Does nothing where the C library is not glibc. glibc cannot tell its thresholds, so they stay, for this
    process: it may hold up to 512 MB of freed memory afterwards, and never takes more for it.
    """
    try:
        libc = ctypes.CDLL(None)
        mallopt, malloc_trim = libc.mallopt, libc.malloc_trim
    except (OSError, TypeError, AttributeError):  # Windows, macOS, musl
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
    try:
        yield
    finally:
        malloc_trim(0)
