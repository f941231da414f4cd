"""One training step (forward, backward, AdamW) against timm's model of the same name.

    python benchmarks/training_step.py                 # 2 CPU cores: t8 at batch 16, 128 px; sa12 at batch 8, 192 px
    python benchmarks/training_step.py --device cuda   # batch 128 at 256 px in bf16, channels-last, eager and compiled

The reference is timm in the fastest form that works: on a CPU that is channels-first, since its channels-last
training crashes there (torch 2.15, the backward of the stem's 1x1 stride-2 convolution).
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from comparison import compare, report
from torch import nn

import hybridvit


def step(model: nn.Module, *, batch: int, side: int, device: str, channels_last: bool) -> Callable[[], object]:
    """A training step on fixed random images; in bf16 autocast on a GPU."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.train().to(device).to(memory_format=layout)
    images = torch.randn(batch, 3, side, side, device=device).to(memory_format=layout)
    labels = torch.randint(0, 1000, (batch,), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = F.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    return run


def on_cpu(rounds: int) -> list[dict[str, object]]:
    """Both layouts, and both training forms."""
    torch.set_num_threads(2)
    results = []
    for name, batch, side in (("fastvit_t8", 16, 128), ("fastvit_sa12", 8, 192)):
        on_this_size = partial(step, batch=batch, side=side, device="cpu")
        branches = hybridvit.create_model(name, training_form="branches")
        candidates = {
            "timm, channels-first": on_this_size(timm.create_model(name), channels_last=False),
            "ours, channels-first": on_this_size(hybridvit.create_model(name), channels_last=False),
            "ours, channels-last": on_this_size(hybridvit.create_model(name), channels_last=True),
            "ours, channels-last, branch by branch": on_this_size(branches, channels_last=True),
        }
        results.append(compare(f"{name}, batch {batch}, {side} px, fp32, CPU", candidates, rounds=rounds))
    return results


def on_gpu(rounds: int) -> list[dict[str, object]]:
    """bf16, channels-last; eager and compiled."""
    results = []
    for name in ("fastvit_t8", "fastvit_sa12"):
        on_this_size = partial(step, batch=128, side=256, device="cuda", channels_last=True)
        for label in ("eager", "compiled"):
            candidates = {}
            for source, create in (("timm", timm.create_model), ("ours", hybridvit.create_model)):
                model = create(name)
                if label == "compiled":
                    model.compile()
                candidates[f"{source}, {label}"] = on_this_size(model)
            results.append(
                compare(f"{name}, batch 128, 256 px, bf16, {label}", candidates, device="cuda", rounds=rounds)
            )
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    measured = on_gpu(arguments.rounds) if arguments.device == "cuda" else on_cpu(arguments.rounds)
    report("training_step", measured, output=arguments.output)
