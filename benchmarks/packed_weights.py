"""What packed weights gain: `folding/packed.py` against the same weights in ordinary linear layers.

    python benchmarks/packed_weights.py    # 2 CPU cores, fp32

What gains less than 3 % is not worth its code.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from comparison import compare, report
from torch import nn

import hybridvit
from hybridvit.folding.packed import PackedLinear


def with_plain_layers(folded: nn.Module) -> nn.Module:
    """The same weights in ordinary linear layers."""
    plain = copy.deepcopy(folded)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, PackedLinear):
            linear = nn.Linear(layer.in_features, layer.out_features, device="meta")
            linear.weight, linear.bias = layer.weight, layer.bias
            plain.set_submodule(name, linear)
    return plain.eval()


def forward(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """A pass without gradients."""

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(2)
    results = []
    for name, side, batch in (("fastervit_0", 224, 1), ("fastervit_0", 224, 16), ("fastvit_sa12", 256, 1)):
        packed = hybridvit.fold(hybridvit.create_model(name).eval())
        images = torch.randn(batch, 3, side, side)
        both = {"nn.Linear": forward(with_plain_layers(packed), images), "packed": forward(packed, images)}
        results.append(compare(f"{name}, folded, batch {batch}, {side} px", both, rounds=rounds))
    report("packed_weights", results)


if __name__ == "__main__":
    main()
