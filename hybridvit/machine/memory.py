"""Memory that does not suffice, whatever torch calls it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hybridvit.errors import OutOfMemory

WORDS = (
    "DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory", "std::bad_alloc",
    "MPS backend out of memory",
)  # fmt: skip
"""What a RuntimeError of PyTorch says where no type tells it: torch 2.14 has one for GPUs of CUDA and XPU alone."""

UNDER_A_LIMIT = ("could not create a primitive", "could not create a memory object", "Cannot allocate memory")
"""What oneDNN 3.12 (in torch 2.14) and the system say; they say it for other reasons too, so it counts only where the
process has a limit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device's, or the host's, memory did not suffice."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = WORDS + (UNDER_A_LIMIT if _limit_bytes() is not None else ())
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _limit_bytes() -> int | None:
    """What the address space of this process may grow to, None without a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


@contextmanager
def enough_memory(shape: tuple[int, ...]) -> Iterator[None]:
    """Raise OutOfMemory, naming the batch `shape`, where torch runs out of memory on a GPU or on the CPU."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(
            f"A batch of shape {tuple(shape)} needs more memory than the device has. Use a smaller batch or image size."
        ) from error
