"""Prints the page faults of a forward pass, folded and in eager mode: page_faults.py [keep].

glibc has the thresholds that it starts with, which some imports raise by accident.
"""

import ctypes
import resource
import sys

import torch

from hybridvit.create import create_model
from hybridvit.folding.fold import fold
from hybridvit.machine.allocator import M_MMAP_THRESHOLD, keep_freed_memory

CALLS = 5


def main() -> None:
    """Of the calls after the first few, on average."""
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 128 << 10)
    if sys.argv[1:] == ["keep"]:
        keep_freed_memory()
    model, images = fold(create_model("fastvit_t8").eval()), torch.zeros(1, 3, 256, 256)
    with torch.inference_mode():
        for _ in range(CALLS):
            model(images)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(CALLS):
            model(images)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // CALLS)


if __name__ == "__main__":
    main()
