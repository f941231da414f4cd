"""One thread and one seed for every test; weights that make each branch count."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import jaxtyping
import pytest
import torch
from torch import nn

import hybridvit
from hybridvit.folding.foldable import branch_by_branch


@pytest.fixture(autouse=True)
def _deterministic():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in eval mode with random norms and layer scales near 0.7.

    At its initial layer scale of 1e-5 a fold that forgot a whole branch would pass a loose test.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator).to(tensor)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(0.3 * noise(module.running_mean))
                module.running_var.copy_(0.5 + noise(module.running_var).abs())
                module.weight.copy_(0.8 + 0.2 * noise(module.weight))
                module.bias.copy_(0.2 * noise(module.bias))
        for name, parameter in model.named_parameters():
            if name.rsplit(".", 1)[-1] == "layer_scale":
                parameter.copy_(0.7 + 0.2 * noise(parameter))
    return model.eval()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value."""
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def branches_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The output of `model` computed branch by branch: what a fold is compared with."""
    with torch.no_grad(), branch_by_branch(model):
        return model(images)


@pytest.fixture
def unchecked():
    """Let wrong values past the annotations, which `make test` checks, to the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def debug_model() -> nn.Module:
    return trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))
