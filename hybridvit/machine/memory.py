"""One error for memory that does not suffice, whatever torch calls it."""

from collections.abc import Iterator
from contextlib import contextmanager

from hybridvit.errors import OutOfMemory


@contextmanager
def enough_memory(shape: tuple[int, ...]) -> Iterator[None]:
    """Raise OutOfMemory, naming the batch `shape`, where torch runs out of memory on a GPU or on the CPU."""
    import torch

    try:
        yield
    except RuntimeError as error:  # on the CPU torch raises no more than this
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(
            f"A batch of shape {tuple(shape)} needs more memory than the device has. Use a smaller batch or image size."
        ) from error
