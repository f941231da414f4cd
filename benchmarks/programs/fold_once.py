"""Fold fastvit_ma36, and print the seconds and by how many MiB the peak of the interpreter grew."""

import resource
import time

import torch

import hybridvit


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    torch.set_num_threads(2)
    hybridvit.fold(hybridvit.create_model("fastvit_debug").eval())
    before = peak_mib()
    model = hybridvit.create_model("fastvit_ma36").eval()
    start = time.perf_counter()
    folded = hybridvit.fold(model)
    print(time.perf_counter() - start, peak_mib() - before)
