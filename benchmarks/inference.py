"""Folded inference against timm's folded model, and what an unfolded model costs in eval mode.

    python benchmarks/inference.py                 # 2 CPU cores, fp32, batch 1 at 256 px; eager and ONNX Runtime
    python benchmarks/inference.py --device cuda   # batch 128 in bf16, channels-last, eager and compiled

Both models have the same weights in all but their names, and both are exported by the same call.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from comparison import compare, report
from in_runtimes import opened, to_onnx
from timm.utils import reparameterize_model
from torch import nn

import hybridvit

NAMES = ("fastvit_t8", "fastvit_sa12", "fastvit_ma36")


def forward(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A forward pass without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def on_cpu(rounds: int) -> list[dict[str, object]]:
    """Batch 1, 256 px, fp32."""
    torch.set_num_threads(2)
    results = []
    for name in NAMES:
        images = torch.randn(1, 3, 256, 256)
        theirs, ours = timm.create_model(name).eval(), hybridvit.create_model(name).eval()
        their_folded, our_folded = reparameterize_model(theirs), hybridvit.fold(ours)
        eager = {
            "timm, folded": forward(their_folded, images),
            "ours, folded": forward(our_folded, images),
            "ours, unfolded": forward(ours, images),
            "timm, unfolded": forward(theirs, images),
        }
        results.append(compare(f"{name}, batch 1, 256 px, eager", eager, rounds=rounds))
        exported = {
            "timm, folded": opened("onnx", to_onnx(their_folded, images), images),
            "ours, folded": opened("onnx", to_onnx(our_folded, images), images),
        }
        results.append(compare(f"{name}, batch 1, 256 px, ONNX Runtime", exported, rounds=rounds))
    return results


def on_gpu(rounds: int) -> list[dict[str, object]]:
    """Batch 128, 256 px, bf16, channels-last."""
    results = []
    for name in NAMES:
        images = torch.randn(128, 3, 256, 256, device="cuda", dtype=torch.bfloat16)
        images = images.to(memory_format=torch.channels_last)
        models = {
            "timm, folded": reparameterize_model(timm.create_model(name).eval()),
            "ours, folded": hybridvit.fold(hybridvit.create_model(name).eval()),
            "ours, unfolded": hybridvit.create_model(name).eval(),
        }
        for label in ("eager", "compiled"):
            candidates = {}
            for key, model in models.items():
                model.to(device="cuda", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
                if label == "compiled":
                    model.compile()
                candidates[key] = forward(model, images)
            results.append(compare(f"{name}, batch 128, bf16, {label}", candidates, device="cuda", rounds=rounds))
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    arguments = parser.parse_args()
    measured = on_gpu(arguments.rounds) if arguments.device == "cuda" else on_cpu(arguments.rounds)
    report("inference", measured, output=arguments.output)
