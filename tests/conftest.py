"""One thread and one seed for every test; weights that make each branch count."""

import dataclasses
import os
from collections.abc import Iterable

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

import jaxtyping
import pytest
import torch
from torch import nn

import hybridvit
from hybridvit.models.channel_norm import ChannelLayerNorm
from hybridvit.models.hat.attention import MapCarriers
from hybridvit.models.hat.position import CoordinateMLP
from hybridvit.models.hat.residual import TokenResidual
from hybridvit.models.registry import find_variant

SHRUNK = {  # what keeps mixers, windows, layer scale and propagation, but not the size
    "fastvit": {"depths": (1, 1, 2, 1)},
    "fastervit": {
        "widths": (16, 32, 64, 128),
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 4, 8),
        "stem_width": 8,
        "position_hidden": 32,
        "mlp_ratio": 2,
    },
    "swin_hat": {"widths": (24, 48, 96, 192), "depths": (1, 1, 2, 1), "position_hidden": 32},
}
SMALL = {"fastvit_debug", "fastvit_mci_debug", "fastervit_debug", "swin_debug_hat"}  # as they are
LARGE = {
    "fastervit_4_21k_768",  # differs from fastervit_4_21k_512 in nothing but its larger windows
    *(
        f"fastvit_mci{size}" for size in (2, 3, 4)
    ),  # from fastvit_mci0 and fastvit_mci_debug in nothing but their widths
}


@pytest.fixture(autouse=True)
def _deterministic():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in eval mode with random norms and positions, and layer scales near 0.7.

    At its initial layer scale of 1e-5 a fold that forgot a whole branch would pass a loose test. The bias between the
    tokens of a window is made low: at its start of 8 the carriers, which have none, count for nothing.
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
        for name, module in model.named_modules():
            if isinstance(module, TokenResidual):  # fresh ones are so small that attention scores are all alike
                for layer in module.children():
                    if isinstance(layer, nn.Linear):
                        layer.weight.copy_(noise(layer.weight) / layer.in_features**0.5)
            if isinstance(module, nn.LayerNorm | ChannelLayerNorm):
                module.weight.copy_(0.8 + 0.2 * noise(module.weight))
                module.bias.copy_(0.2 * noise(module.bias))
            if isinstance(module, CoordinateMLP):
                module.hidden.weight.copy_(noise(module.hidden.weight))
                module.hidden.bias.copy_(0.2 * noise(module.hidden.bias))
                out = noise(module.out.weight) / module.out.in_features**0.5
                module.out.weight.copy_(-out.abs() if name.endswith(".attention.bias.mlp") else out)
            if isinstance(module, MapCarriers):
                module.conv.bias.copy_(noise(module.conv.bias))
    return model.eval()


def every_model() -> list[object]:
    """All registered models as parameters of a test; those that `contract_model` makes equal to others are nightly."""
    first: dict[object, str] = {}
    for name in hybridvit.list_models():
        variant = find_variant(name)
        config = dataclasses.replace(variant.config, **_shrunk(name))
        first.setdefault(config, name)
    chosen = set(first.values()) - LARGE
    return [
        pytest.param(name, id=name, marks=() if name in chosen else pytest.mark.nightly)
        for name in hybridvit.list_models()
    ]


LIKE_OTHERS = {"t12", "s12", "sa24", "sa36", "mci1", "mci2", "mci4"}  # FastViTs with other numbers in the same places


def by_day(names: Iterable[str]) -> list[object]:
    """`names` of FastViTs, or of their variants, as parameters of a test; those that are like others are nightly."""
    return [
        pytest.param(name, marks=pytest.mark.nightly if name.removeprefix("fastvit_") in LIKE_OTHERS else ())
        for name in names
    ]


KINDS = ("fastvit_debug", "fastvit_mci_debug", "fastvit_sa12", "fastervit_debug", "fastervit_0", "swin_debug_hat")


def first_of_each_kind() -> list[object]:
    """All registered models as parameters of a test; those that have nothing that one of `KINDS` lacks are nightly."""
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.nightly) for name in hybridvit.list_models()]


def contract_model(name: str, **options: object) -> nn.Module:
    """A registered model, all but those of debug size in a form that keeps everything but the size."""
    return hybridvit.create_model(name, **(_shrunk(name) | options))


def _shrunk(name: str) -> dict[str, object]:
    if name in SMALL:
        return {}
    variant = find_variant(name)
    shrunk: dict[str, object] = dict(SHRUNK[variant.family])
    if len(variant.config.depths) == 5:
        shrunk |= {"depths": (1, 1, 2, 1, 1)}
    return shrunk


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value."""
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


def sizes_px(name: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """An odd size at which all parts of a model run (carriers need a map of several windows), and a small one."""
    return ((65, 98) if find_variant(name).family == "fastvit" else (130, 161)), (32, 64)


@pytest.fixture
def unchecked():
    """Let wrong values past the annotations, which `make test` checks, to the library's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def debug_model() -> nn.Module:
    return trained_like(hybridvit.create_model("fastvit_debug", num_classes=10))


@pytest.fixture(params=["fastvit_debug", "fastervit_debug"])
def any_debug_model(request) -> nn.Module:
    """The debug size of each family; all its parts run at 64 x 64 pixels."""
    return trained_like(hybridvit.create_model(request.param, num_classes=10))
