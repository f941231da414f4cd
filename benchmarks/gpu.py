"""The main comparisons on a CUDA GPU, in at most 8 minutes: docs/measurements/gpu-models.json.

    python benchmarks/gpu.py --output docs/measurements/gpu-models.json

Ours and, where timm is installed, peers, in PyTorch, eager and compiled, fp16, channels last: batch 1 and 128 as the
FasterViT paper's tables have it, and batch 8 as FastViT's.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from comparison import commit

from hybridvit.measure.bench import bench
from hybridvit.measure.options import BenchOptions

OURS = ("fastvit_t8", "fastvit_sa12", "fastvit_sa24", "fastvit_ma36", "fastervit_0", "fastervit_2")
PEERS = ("fastvit_sa12.apple_in1k", "repvit_m1_1.dist_450e_in1k", "convnext_tiny.fb_in1k", "resnet50.a1_in1k")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--runtimes", nargs="+", default=["torch", "torch-compile"])
    output = parser.parse_args().output
    result = bench(
        [*OURS, *(PEERS if find_spec("timm") else ())],
        BenchOptions(
            runtimes=parser.parse_args().runtimes,
            precisions=("fp16",),
            batch=(1, 8, 128),
            device="cuda",
            rounds=30,
            seconds=30,
            processes=1,  # compiling each again would not fit into the 8 minutes
        ),
        show=lambda text: print(text, file=sys.stderr, flush=True),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"commit": commit()} | result.to_dict())
    output.write_text(line + "\n")
    print(line)
