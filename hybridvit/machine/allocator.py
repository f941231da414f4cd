"""How the C library's allocator treats memory that PyTorch frees, and what it costs where that is given back."""

import ctypes
import sys
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


def page_faults() -> int | None:
    """How often this process had to wait for the system to give it a page, so far; None where it is not counted.

    From memory (minor) or from disk (major). A program whose memory stays with it has few while it computes.
    """
    if sys.platform == "win32":
        return None
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt
