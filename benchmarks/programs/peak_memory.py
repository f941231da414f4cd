"""Run a candidate of fastervit_inference.py once, print the peak in MiB: peak_memory.py VARIANT LABEL BATCH SIDE."""

import sys
from pathlib import Path

import torch
from fastervit_inference import candidates

if __name__ == "__main__":
    variant, label, batch, side = sys.argv[1:]
    torch.set_num_threads(2)
    model, images = candidates(int(variant))[label](), torch.randn(int(batch), 3, int(side), int(side))
    with torch.inference_mode():
        model(images)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)  # not ru_maxrss, which begins at the peak of the parent
