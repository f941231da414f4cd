"""How the C library's allocator treats memory that PyTorch frees."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc takes no more
TRIM_THRESHOLD = 1 << 30  # bytes that may lie free at the end of the heap


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation, where it is the C library; harmless to call again.

    As it starts, it gives the activations of each operation back to the system, which clears every page anew when
    the next one asks: thousands of page faults a forward pass. The environment does the same for any program:
    MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=1073741824.
    """
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD)
