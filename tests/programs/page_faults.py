"""Prints the page faults of a forward pass, folded and in eager mode: before freed memory is kept, and after.

glibc has the thresholds that it starts with, which some imports raise by accident.
"""

import ctypes
import resource

import torch
from torch import Tensor, nn

from hybridvit.create import create_model
from hybridvit.folding.fold import fold
from hybridvit.machine.allocator import M_MMAP_THRESHOLD, keep_freed_memory

CALLS, ROUNDS = 5, 5


def faults(model: nn.Module, images: Tensor) -> int:
    """Of a call after the first few, in the best of a few rounds: a busy system takes single pages back."""
    with torch.inference_mode():
        for _ in range(CALLS):
            model(images)
        return min(_of_a_round(model, images) for _ in range(ROUNDS))


def _of_a_round(model: nn.Module, images: Tensor) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        model(images)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // CALLS


def main() -> None:
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
    model, images = fold(create_model("fastvit_t8").eval()), torch.zeros(1, 3, 256, 256)
    print(faults(model, images))
    keep_freed_memory()
    print(faults(model, images))


if __name__ == "__main__":
    main()
