"""What the two forms gain that compute the same in another way: packed weights, and the collapsed training form.

    python benchmarks/second_forms.py    # 2 CPU cores, fp32; `folding/packed.py` and `folding/collapsed.py`

Packed weights that gain less than 3 % are not worth their code. The collapsed form gains memory above all:
`benchmarks/memory_estimate.py`, with `--model_options={"training_form": "branches"}` for the other.
"""

import argparse
import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
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


def step(model: nn.Module, batch: int, side: int) -> Callable[[], object]:
    """A training step, channels-last."""
    model.train().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

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
    for name, side, batch in (("fastvit_t8", 128, 16), ("fastvit_sa12", 192, 8)):
        forms = {
            form: step(hybridvit.create_model(name, training_form=form), batch, side)
            for form in ("branches", "collapsed")
        }
        results.append(compare(f"{name}, training step, batch {batch}, {side} px", forms, rounds=rounds))
    report("second_forms", results)


if __name__ == "__main__":
    main()
